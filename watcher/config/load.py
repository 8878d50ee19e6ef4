"""File, environment and flags become one Config, or one error that lists every problem."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import yaml
from msgspec import Struct
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource

from watcher.config import Config, rules
from watcher.config.secrets import SecretRef
from watcher.errors import ConfigError

Place = tuple[str | int, ...]

_SERVICE_LINK: Final = re.compile(r"WATCHER_(SERVICE|PORT)(_.*)?")
"""What Kubernetes sets in every pod beside a Service called `watcher`."""
_NEEDS: Final = {
    "SLACK_BOT_TOKEN": "SLACK_CHANNEL",
    "SLACK_CHANNEL": "SLACK_BOT_TOKEN",
    "WEBHOOK_SECRET": "WEBHOOK_URL",
}
_TYPES: Final = "needs a type: slack, slack_webhook, webhook or console"
_WORDS: Final = {
    "extra_forbidden": "unknown key",
    "missing": "is required",
    "tuple_type": "must be a list (in a variable: as JSON)",
    "dict_type": "must be a mapping (in a variable: as JSON)",
    "model_type": "must be a mapping (in a variable: as JSON)",
    "model_attributes_type": "must be a mapping (in a variable: as JSON)",
    "too_short": "must not be empty",
    "string_pattern_mismatch": "is too long, or has a character that such a name cannot have",
    "union_tag_not_found": _TYPES,
    "union_tag_invalid": _TYPES,
}


class _Source(Struct, frozen=True):
    """One place that sets values; `names` are the variables of an environment."""

    label: str
    values: dict[str, Any]
    names: frozenset[str] = frozenset()

    def name(self, place: Place) -> str:
        """How a reader finds the place: `file.yaml: sinks.0.channel`, `WATCHER_WEB__ADDRESS`."""
        for depth in range(len(place), 0, -1):
            variable = "__".join(("WATCHER_" + str(place[0]), *map(str, place[1:depth]))).upper()
            if variable in self.names:
                return ": ".join(filter(None, (variable, _dotted(place[depth:]))))
        return ": ".join(filter(None, (self.label, _dotted(place))))

    def reach(self, place: Place) -> int:
        """How many steps of the place are set here."""
        values: Any = self.values
        for depth, step in enumerate(place):
            try:
                values = values[step]
            except (LookupError, TypeError):
                return depth
        return len(place)


def load(path: Path | None, env: Mapping[str, str], flags: Mapping[str, str | None]) -> Config:
    """Read everything; flags beat the environment, which beats the file.

    `flags` are `kubeconfig`, `context` and `address`. Raises ConfigError with all problems.
    """
    problems: list[str] = []
    file = _Source(str(path or "configuration"), {} if path is None else read_file(path, problems))
    variables = _variables(env, problems)
    merged = _merge(file.values, variables.values)
    short = _Source("environment", _short_forms(env, merged, problems))
    merged = _merge(merged, short.values)
    command = _Source("command line", _flags(flags, merged, problems))
    sources = [file, short, variables, command]
    merged = _merge(merged, command.values)
    if not merged.get("sinks"):
        merged.pop("sinks", None)
    problems += [f"{_source(place, sources)}: {words}" for place, words in _across(merged)]
    try:
        config = Config(**merged)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            problems.append(f"{_source(_place(details), sources)}: {_say(details)}")
    else:
        if not problems:
            return config
    raise ConfigError(problems)


def unusable_secrets(config: Config) -> list[str]:
    """What is wrong with secrets as they are now: unreadable, or no URL where one is needed."""
    problems = []
    for place, secret in _secrets(config):
        try:
            value = secret.read()
            if place == ("store", "url"):
                rules.check_store_url(value)
            elif place[-1] == "url":
                rules.check_url(value, getattr(config.sinks[int(place[1])], "allow_http", False))
        except (ConfigError, ValueError) as error:
            problems.append(f"{_dotted(place)}: {error}")
    return problems


def _secrets(value: object, place: Place = ()) -> Iterator[tuple[Place, SecretRef]]:
    items: Iterable[tuple[str | int, object]] = ()
    match value:
        case SecretRef():
            yield place, value
        case BaseModel():
            items = value
        case tuple():
            items = enumerate(value)
        case _:
            return
    for step, item in items:
        yield from _secrets(item, (*place, step))


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would quietly take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.value != "<<":
                problem = f"the key {key.value!r} is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def read_file(path: Path, problems: list[str]) -> dict[str, Any]:
    """The file's values; what is wrong with it goes to `problems`, as one line with the place."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506 - a safe one
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        problems.append(f"{path}: is not UTF-8 text")
    except yaml.YAMLError as error:
        problems.append(f"{path}{_mark(error)}: {getattr(error, 'problem', None) or 'not YAML'}")
    except (ValueError, RecursionError):  # a date such as 2026-13-45; brackets without end
        problems.append(f"{path}: not YAML that can be read")
    else:
        if isinstance(values, dict | None):
            return {str(key): value for key, value in (values or {}).items() if value is not None}
        problems.append(f"{path}: must be a mapping of sections: clusters, health, sinks, …")
    return {}


def _mark(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f":{mark.line + 1}:{mark.column + 1}" if mark else ""


class _Environment(EnvSettingsSource):
    def decode_complex_value(self, field_name: str, field: FieldInfo, value: str) -> object:
        """Read JSON; what is none stays text, for the validation to tell with all the rest."""
        try:
            return json.loads(value)
        except ValueError:
            return value


def _variables(env: Mapping[str, str], problems: list[str]) -> _Source:
    """The `WATCHER_…` variables: `__` goes one level down, lists and mappings are JSON."""
    names = {n.upper(): value for n, value in env.items() if n.upper().startswith("WATCHER_")}
    settings = cast(type[BaseSettings], Config)  # it reads nothing but the fields
    source = _Environment(settings, env_prefix="WATCHER_", env_nested_delimiter="__")
    source.env_vars = {name.lower(): value for name, value in names.items()}
    sections = tuple(f"WATCHER_{section.upper()}" for section in Config.model_fields)
    problems += [
        f"{name}: no such setting"
        for name in sorted(names)
        if name.split("__")[0] not in sections and not _SERVICE_LINK.fullmatch(name)
    ]
    return _Source("environment", source(), frozenset(names))


def _short_forms(
    env: Mapping[str, str], merged: Mapping[str, Any], problems: list[str]
) -> dict[str, Any]:
    """The few variables that are enough to start with, for sections that nothing else sets."""
    values: dict[str, Any] = {}
    if "store" not in merged and env.get("DATABASE_URL"):
        values["store"] = {"url": {"env": "DATABASE_URL"}}
    if "sinks" in merged:
        return values
    for name, other in _NEEDS.items():
        if env.get(name) and not env.get(other):
            problems.append(f"{name}: needs {other} as well")
    sinks: list[dict[str, Any]] = []
    if env.get("SLACK_BOT_TOKEN") and (channel := env.get("SLACK_CHANNEL")):
        token = {"env": "SLACK_BOT_TOKEN"}
        sinks.append({"name": "slack", "type": "slack", "token": token, "channel": channel})
    if env.get("SLACK_WEBHOOK_URL"):
        url = {"env": "SLACK_WEBHOOK_URL"}
        sinks.append({"name": "slack-webhook", "type": "slack_webhook", "url": url})
    if env.get("WEBHOOK_URL"):
        secrets = [{"env": "WEBHOOK_SECRET"}] if env.get("WEBHOOK_SECRET") else []
        url = {"env": "WEBHOOK_URL"}
        sinks.append({"name": "webhook", "type": "webhook", "url": url, "secrets": secrets})
    return values | ({"sinks": sinks} if sinks else {})


def _flags(
    flags: Mapping[str, str | None], merged: Mapping[str, Any], problems: list[str]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if flags.get("address") is not None:
        values["web"] = {"address": flags["address"]}
    chosen = {key: flags[key] for key in ("kubeconfig", "context") if flags.get(key) is not None}
    if not chosen:
        return values
    clusters = merged.get("clusters") or [{}]
    if isinstance(clusters, list) and len(clusters) == 1 and isinstance(clusters[0], dict):
        return values | {"clusters": [clusters[0] | chosen]}
    problems += [f"--{key}: which cluster it is for is unclear, several are set" for key in chosen]
    return values


def _across(merged: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    """What no single value shows: names given twice, and names that nobody has."""
    for section, unnamed in (("clusters", "default"), ("sinks", None)):
        names: set[str] = set()
        for number, item in enumerate(_list(merged.get(section))):
            name = item.get("name", unnamed) if isinstance(item, dict) else None
            if isinstance(name, str) and name in names:
                yield (section, number, "name"), f"another one is called {name!r}"
            names.add(str(name))
    sinks = _list(merged.get("sinks")) or [{"name": "console"}]
    known = [item["name"] for item in sinks if isinstance(item, dict) and "name" in item]
    route = merged.get("route")
    for number, name in enumerate(_list(route.get("sinks") if isinstance(route, dict) else None)):
        if name not in known:
            yield ("route", "sinks", number), f"no sink is called {name!r}"


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged key by key; anything else is replaced whole."""
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _source(place: Place, sources: Sequence[_Source]) -> str:
    """Name the source that set the place; of several the one that won, which is the last."""
    *_, winner = sorted(sources, key=lambda source: source.reach(place))
    return winner.name(place)


def _place(details: ErrorDetails) -> Place:
    """Where the error is, as people write it: without pydantic's names of types."""
    place = details["loc"]
    if place[:1] == ("sinks",):
        place = (*place[:2], *place[3:])
    return tuple(step for step in place if step not in ("text", "reference"))


def _say(details: ErrorDetails) -> str:
    words = _WORDS.get(details["type"]) or details["msg"].removeprefix("Value error, ")
    return words[:1].lower() + words[1:]


def _dotted(place: Place) -> str:
    return ".".join(map(str, place))
