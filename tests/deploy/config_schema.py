"""The part of the chart's schema that is the watcher's own: what `config:` may hold."""

import json
import sys
from pathlib import Path
from typing import Any

from watcher.config import json_schema

CHART = Path(__file__).parents[2] / "deploy" / "chart"
SCHEMA = CHART / "values.schema.json"
LOOKAHEAD = r"(?=\d)"  # helm's regular expressions have none; here it only forbids the empty text


def expected() -> dict[str, Any]:
    """The schema as it should be: as it is, with the configuration as the watcher has it now."""
    config = json_schema()
    definitions = config.pop("$defs")
    del config["$schema"]
    del config["properties"]["web"]  # these two are the chart's to set
    del definitions["StoreSettings"]["properties"]["url"]
    del definitions["WebSettings"]
    schema: dict[str, Any] = json.loads(SCHEMA.read_text())
    return schema | {"$defs": _for_helm({"Config": config, **definitions})}


def _for_helm(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    if isinstance(value, list):
        return [_for_helm(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _for_helm(item) for key, item in value.items()}
    if LOOKAHEAD in str(found.get("pattern", "")):
        found |= {"pattern": found["pattern"].replace(LOOKAHEAD, ""), "minLength": 1}
    return found


def main() -> None:
    SCHEMA.write_text(json.dumps(expected(), indent=2, ensure_ascii=False) + "\n")
    print(f"{SCHEMA.name} is up to date", file=sys.stderr)


if __name__ == "__main__":
    main()
