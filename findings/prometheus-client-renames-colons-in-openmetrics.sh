#!/usr/bin/env bash
# prometheus-client gives one metric two names: which one a scraper stores depends on its Accept header.
#
# Expected: a name with colons, which both formats allow, is the same in both, and the same as in its
#           own TYPE line. https://prometheus.io/docs/concepts/data_model/#metric-names
# Seen:     prometheus-client 0.26.0: in OpenMetrics a sample is called job_errors_ratio, under a TYPE line
#           for job:errors:ratio; in the text format, and with escaping=allow-utf-8, it keeps its colons.
# Matters:  to exporters of recorded series: rules and dashboards find nothing once Prometheus asks for
#           OpenMetrics, and the TYPE and HELP belong to a metric without samples.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet prometheus-client==0.26.0

cat >show.py <<'PYTHON'
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import choose_encoder

registry = CollectorRegistry()
Gauge("job:errors:ratio", "Errors.", ["code"], registry=registry).labels("500").set(1)
for accept in (
    "text/plain;version=0.0.4",
    "application/openmetrics-text;version=1.0.0",
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8",
):
    encode, _ = choose_encoder(accept)
    lines = encode(registry).decode().splitlines()
    print(accept, *(line for line in lines if "HELP" not in line and "EOF" not in line), sep="\n  ")
PYTHON

cat >expected <<'END'
text/plain;version=0.0.4
  # TYPE job:errors:ratio gauge
  job:errors:ratio{code="500"} 1.0
application/openmetrics-text;version=1.0.0
  # TYPE job:errors:ratio gauge
  job_errors_ratio{code="500"} 1.0
application/openmetrics-text;version=1.0.0;escaping=allow-utf-8
  # TYPE job:errors:ratio gauge
  job:errors:ratio{code="500"} 1.0
END
venv/bin/python show.py | tee seen

diff "$folder/expected" "$folder/seen" || { echo "not as it was seen with prometheus-client 0.26.0" >&2; exit 1; }
