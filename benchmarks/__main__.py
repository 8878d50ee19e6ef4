"""Run every benchmark, or the ones that are named."""

import sys

from benchmarks import delivery, faults, footprint, latency, pipeline

ALL = {
    "pipeline": pipeline.main,
    "latency": latency.main,
    "footprint": footprint.main,
    "delivery": delivery.main,
    "faults": faults.main,
}


def main() -> None:
    names = sys.argv[1:] or list(ALL)
    for name in names:
        print(f"== {name}: {sys.modules[ALL[name].__module__].__doc__}")
        ALL[name]()
        print()


if __name__ == "__main__":
    main()
