"""File, environment and flags become one Config, or one error that lists every problem."""

import json
import os
import re
from collections.abc import Iterator, Mapping, ValuesView
from contextlib import suppress
from dataclasses import dataclass
from operator import eq
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from watcher.config import (
    SINK_TYPES,
    Config,
    HttpSettings,
    StoreSettings,
    WebhookSettings,
    rules,
)
from watcher.config.secrets import SecretRef
from watcher.errors import ConfigError

Place = tuple[str | int, ...]
Values = dict[str, Any]

_VARIABLE: Final = re.compile(r"WATCHER_(?!(?:SERVICE|PORT)(?:_|$))(.+)")
"""All but what Kubernetes sets in every pod beside a Service called `watcher`."""
_NEEDS: Final = {
    "SLACK_BOT_TOKEN": "SLACK_CHANNEL",
    "SLACK_CHANNEL": "SLACK_BOT_TOKEN",
    "WEBHOOK_SECRET": "WEBHOOK_URL",
}
_MAPPING: Final = "must be a mapping (in a variable: as JSON)"
_TYPES: Final = f"{', '.join(SINK_TYPES[:-1])} or {SINK_TYPES[-1]}"
_WORDS: Final = {
    "extra_forbidden": "unknown key",
    "missing": "is required",
    "tuple_type": "must be a list (in a variable: as JSON)",
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "string_pattern_mismatch": "is too long, or has a character that such a name cannot have",
    "union_tag_not_found": f"needs a type: {_TYPES}",
}


@dataclass(frozen=True)
class Source:
    """Where `watcher run` has its configuration from, to read it again in the same way.

    The variables and flags are those of the start.
    """

    path: Path | None
    env: Mapping[str, str]
    flags: Mapping[str, str | None]

    def load(self) -> Config:
        """Read everything, the secrets too; raises ConfigError with all problems."""
        config = load(self.path, self.env, self.flags)
        if problems := [*unusable_files(config), *unusable_secrets(config)]:
            raise ConfigError(problems)
        return config


def load(path: Path | None, env: Mapping[str, str], flags: Mapping[str, str | None]) -> Config:
    """Read everything; flags beat the environment, which beats the file.

    `flags` are `kubeconfig`, `context` and `address`. Raises ConfigError with all problems.
    """
    draft = _Draft(path)
    _add_variables(draft, env)
    _add_short_forms(draft, env)
    _add_flags(draft, flags)
    for place, words in _across(draft.values):
        draft.say(place, words)
    try:
        config = Config.model_validate(draft.values)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            draft.say(_place(details), _words(details))
    else:
        if not draft.problems:
            return config
    raise ConfigError(draft.problems)


class _Draft:
    """The values so far, who set them if not the file, and what is wrong with them."""

    def __init__(self, path: Path | None) -> None:
        self.values = {} if path is None else _read_file(path)
        self.setters: list[tuple[str, Place]] = []
        self.problems: list[str] = []
        self._file = str(path or "configuration")

    def put(self, setter: str, place: Place, value: object) -> None:
        """Let a variable or flag set a value: mappings are merged, anything else is replaced."""
        self.setters.append((setter, place))
        for step in reversed(place):
            value = {step: value}
        self.values = _merged(self.values, value)

    def say(self, place: Place, words: str) -> None:
        """Keep a problem as `file.yaml: sinks.0.channel: …` or `WATCHER_WEB__ADDRESS: …`."""
        source, rest = self._file, place
        for setter, at in self.setters:
            if all(map(eq, at, place)):  # it set the place, or something in it
                source, rest = setter, place[len(at) :]
        self.problems.append(": ".join(filter(None, (source, ".".join(map(str, rest)), words))))


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would quietly take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if key.value != "<<"]
        for number, key in enumerate(keys):
            if key.value in [earlier.value for earlier in keys[:number]]:
                problem = f"the key {key.value!r} is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep)


def _read_file(path: Path) -> Values:
    """Return the file's sections that are set; raises ConfigError with the place in it."""
    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.load(text, _UniqueKeys)  # noqa: S506 - a safe one
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
        raise ConfigError([f"{place}: {error.problem}"]) from None
    except (yaml.YAMLError, ValueError, RecursionError):  # no text; a date such as 2026-13-45
        raise ConfigError([f"{path}: not YAML that can be read"]) from None
    if not text.strip():  # a disk that was full, or `>` before the command that has failed
        raise ConfigError([f"{path}: is empty; for the defaults it would be {{}}"])
    if not isinstance(values, dict | None):
        raise ConfigError([f"{path}: must be a mapping of sections: clusters, health, sinks, …"])
    return {key: value for key, value in (values or {}).items() if value is not None}


def _merged(under: object, over: object) -> Any:  # noqa: ANN401 - whatever the two are
    if not isinstance(under, dict) or not isinstance(over, dict):
        return over
    return under | {key: _merged(under.get(key), value) for key, value in over.items()}


def _add_variables(draft: _Draft, env: Mapping[str, str]) -> None:
    """`__` goes one level down; JSON that is none stays text, for the validation to refuse."""
    for name in sorted(env):
        if found := _VARIABLE.fullmatch(name):
            value: object = env[name]
            if env[name].lstrip().startswith(("[", "{")):
                with suppress(ValueError):
                    value = json.loads(env[name])
            draft.put(name, tuple(found[1].lower().split("__")), value)


def _add_short_forms(draft: _Draft, env: Mapping[str, str]) -> None:
    """The few variables that are enough to start with, for sections that nothing else sets."""
    given = {name: {"env": name} for name, value in env.items() if value}
    if "store" not in draft.values and "DATABASE_URL" in given:
        draft.values["store"] = {"url": given["DATABASE_URL"]}
    if "sinks" in draft.values:
        return
    for name, other in _NEEDS.items():
        if name in given and other not in given:
            draft.problems.append(f"{name}: needs {other} as well")
    sinks: list[Values] = []
    if "SLACK_BOT_TOKEN" in given and "SLACK_CHANNEL" in given:
        token, channel = given["SLACK_BOT_TOKEN"], env["SLACK_CHANNEL"]
        sinks.append({"name": "slack", "type": "slack", "token": token, "channel": channel})
        draft.setters.append(("SLACK_CHANNEL", ("sinks", 0, "channel")))
    if url := given.get("SLACK_WEBHOOK_URL"):
        sinks.append({"name": "slack-webhook", "type": "slack_webhook", "url": url})
    if url := given.get("WEBHOOK_URL"):
        secrets = [given["WEBHOOK_SECRET"]] if "WEBHOOK_SECRET" in given else []
        sinks.append({"name": "webhook", "type": "webhook", "url": url, "secrets": secrets})
    draft.values["sinks"] = sinks


def _add_flags(draft: _Draft, flags: Mapping[str, str | None]) -> None:
    given = {name: value for name, value in flags.items() if value is not None}
    if (address := given.pop("address", None)) is not None:
        draft.put("--address", ("web", "address"), address)
    match draft.values.get("clusters", [{}]):
        case [dict(cluster)]:
            draft.values["clusters"] = [cluster | given]
            draft.setters += [(f"--{name}", ("clusters", 0, name)) for name in given]
        case _:
            draft.problems += [
                f"--{name}: which cluster it is for is unclear, several are set" for name in given
            ]


def _across(values: Values) -> Iterator[tuple[Place, str]]:
    """What no single value shows: names given twice, and names that nobody has."""
    sinks = _names(values.get("sinks"))
    clusters = _names(values.get("clusters"), unnamed="default")
    for section, names in (("clusters", clusters), ("sinks", sinks)):
        for number, name in enumerate(names):
            if name is not None and name in names[:number]:
                yield (section, number, "name"), f"another one is called {name!r}"
    for number, cluster in enumerate(_list(values.get("clusters"))):
        match cluster:
            case {"namespaces": [*named], "namespaces_exclude": [*left_out]} if named and left_out:
                words = "only where all are watched: `namespaces` says already which are"
                yield ("clusters", number, "namespaces_exclude"), words
    route = values.get("route")
    for number, name in enumerate(_list(route.get("sinks") if isinstance(route, dict) else None)):
        if name not in (sinks or ["console"]):
            yield ("route", "sinks", number), f"no sink is called {name!r}"


def _names(items: object, unnamed: str | None = None) -> list[object]:
    return [item.get("name", unnamed) if isinstance(item, dict) else None for item in _list(items)]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _place(details: ErrorDetails) -> Place:
    """Where the error is, as people write it: without pydantic's names of types."""
    place = details["loc"]
    if place[:1] == ("sinks",):
        place = (*place[:2], *place[3:])
    return tuple(step for step in place if step not in ("text", "reference"))


def _words(details: ErrorDetails) -> str:
    if details["type"] == "union_tag_invalid":
        return f"no type is called {details['ctx']['tag']!r}: {_TYPES}"
    words = _WORDS.get(details["type"]) or details["msg"].removeprefix("Value error, ")
    return words[:1].lower() + words[1:]


def unusable_files(config: Config) -> list[str]:
    """Certificates and keys that cannot be read here; a name with a NUL in it is that of no file."""
    return [
        f"{place}.{key}: file {path} cannot be read"
        for place, section in _sections(config).items()
        for key in ("ca_file", "client_cert", "client_key")
        if (path := getattr(section, key, None)) is not None
        and ("\0" in str(path) or not os.access(path, os.R_OK))
    ]


def unusable_secrets(config: Config, *, elsewhere: bool = False) -> list[str]:
    """What is wrong with secrets as they are now: unreadable, or no URL where one is needed.

    With `elsewhere` only the latter: what is not here may be where it is to run.
    """
    problems = []
    for place, section, key, secret in _secrets(config):
        try:
            value = secret.read()
            _check_secret(section, key, value)
        except ValueError as error:
            problems.append(f"{secret.env or secret.file} ({place}.{key}): {error}")
        except ConfigError as error:
            if not elsewhere:
                problems.append(f"{place}.{key}: {error}")
    return problems


def _check_secret(section: BaseModel, key: str, value: str) -> None:
    match section:
        case StoreSettings():
            rules.check_store_url(value)
        case WebhookSettings() if key == "secrets":
            rules.signing_key(value)
        case HttpSettings() if key in ("url", "urls"):
            rules.check_url(value, section.allow_http)
            if key == "urls":
                rules.check_peer_url(value)
        case _:
            pass


def clear_passwords(config: Config) -> list[str]:
    """Places of URLs with a password in them that are written out rather than named."""
    return [
        ".".join(map(str, place))
        for place, value in _texts(_sections(config))
        if "://" in value and rules.has_password(value)
    ]


def _texts(value: object, *place: str | int) -> Iterator[tuple[Place, str]]:
    """Every text in a configuration, with its place."""
    match value:
        case str():
            yield place, value
        case BaseModel():
            for key, each in value:
                yield from _texts(each, *place, key)
        case Mapping():
            for key, each in value.items():
                yield from _texts(each, *place, key)
        case tuple():
            for number, each in enumerate(value):
                yield from _texts(each, *place, number)
        case _:
            pass


def _sections(config: Config) -> Mapping[str, BaseModel]:
    sinks = {f"sinks.{number}": sink for number, sink in enumerate(config.sinks)}
    pinged = {"dead_man": config.dead_man} if config.dead_man else {}
    return {"store": config.store, **sinks, **pinged}


def _secrets(config: Config) -> Iterator[tuple[str, BaseModel, str, SecretRef]]:
    for place, section in _sections(config).items():
        for key, value in section:
            several = value.values() if isinstance(value, Mapping) else value
            for each in several if isinstance(several, tuple | ValuesView) else (value,):
                if isinstance(each, SecretRef):
                    yield place, section, key, each
