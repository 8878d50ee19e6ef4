"""The configuration: where values come from, what is refused, and that no secret shows."""

import base64
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from watcher import config as settings
from watcher.config import Config, SlackSettings, WebhookSettings, json_schema
from watcher.config.load import load, unusable_secrets
from watcher.config.rules import parse_address, signing_key
from watcher.config.secrets import SecretRef, hide, mask, redact
from watcher.core.durations import format_duration, parse_duration
from watcher.core.policy import ClusterPolicy, HealthPolicy
from watcher.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "file.yaml"
    path.write_text(text or "{}")
    return path


def problems(
    tmp_path: Path,
    text: str = "",
    env: dict[str, str] | None = None,
    flags: dict[str, str] | None = None,
) -> list[str]:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path, env or {}, flags or {})
    return [problem.replace(str(path), "file.yaml") for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("90s", 90, id="seconds"),
        pytest.param("15m", 900, id="minutes"),
        pytest.param("1h30m", 5400, id="several units"),
        pytest.param("500ms", 0.5, id="milliseconds are not minutes and seconds"),
        pytest.param("90d", 7_776_000, id="days"),
        pytest.param("0s", 0, id="nothing"),
    ],
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "90",
        "s",
        "-1s",
        "1.5h",
        "1m1h",
        "1s1s",
        "1 s",
        "1s\n",
        "٣s",
        "3651d",
        "9" * 30 + "d",
        "P1D",
    ],
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="a duration is"):
        parse_duration(text)


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3650)))
def test_a_written_duration_is_read_as_the_same(duration: timedelta) -> None:
    whole = duration // timedelta(milliseconds=1) * timedelta(milliseconds=1)
    assert parse_duration(format_duration(duration)) == whole


def test_without_anything_the_defaults_are_those_of_the_core() -> None:
    config = load(None, {}, {})
    assert config == Config()
    assert config.health_policy() == HealthPolicy()
    assert config.cluster_policy() == ClusterPolicy()
    assert [cluster.name for cluster in config.clusters] == ["default"]
    assert config.told == ("console",)


def test_each_policy_key_reaches_the_core(tmp_path: Path) -> None:
    """A key that the converters forgot would be a setting without effect."""
    health: dict[str, Any] = dict.fromkeys(HealthPolicy.__struct_fields__, "7s")
    health["flapping"] = {"cycles": 7, "episodes": 7, "window": "7s", "stable": "7s"}
    heartbeat: dict[str, Any] = dict.fromkeys(ClusterPolicy.__struct_fields__, "7s")
    heartbeat |= {"failures": 7, "successes": 7}
    text = yaml.safe_dump({"health": health, "heartbeat": heartbeat})
    config = load(written(tmp_path, text), {}, {})
    for policy in (
        config.health_policy(),
        config.cluster_policy(),
        config.health_policy().flapping,
    ):
        values = {getattr(policy, name) for name in policy.__struct_fields__ if name != "flapping"}
        assert values <= {timedelta(seconds=7), 7}


def test_flags_beat_variables_beat_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, 'web: {address: ":1"}\nhealth: {degraded_for: 1s, recovered_for: 1s}')
    env = {"WATCHER_WEB__ADDRESS": ":2", "WATCHER_HEALTH__DEGRADED_FOR": "2s"}
    config = load(path, env, {"address": ":3", "kubeconfig": "/k", "context": "c"})
    assert config.web.address == ":3"
    assert load(path, env, {}).web.address == ":2"
    assert config.health.degraded_for == timedelta(seconds=2)
    assert config.health.recovered_for == timedelta(seconds=1)  # merged, not replaced
    assert (config.clusters[0].kubeconfig, config.clusters[0].context) == (Path("/k"), "c")


def test_lists_come_as_json_and_replace_the_files(tmp_path: Path) -> None:
    path = written(tmp_path, "sinks: [{name: a, type: console}, {name: b, type: console}]")
    env = {
        "WATCHER_SINKS": '[{"name": "c", "type": "console"}]',
        "WATCHER_ROUTE__SINKS": '["c"]',
        "WATCHER_STORE__URL": '{"env": "WHERE"}',
    }
    config = load(path, env, {})
    assert [sink.name for sink in config.sinks] == ["c"]
    assert config.told == ("c",)
    assert config.store.url == SecretRef(env="WHERE")


@pytest.mark.parametrize(
    ("env", "sinks"),
    [
        pytest.param({}, [("console", "console")], id="nothing: the console"),
        pytest.param({"WATCHER_SINKS": "[]"}, [("console", "console")], id="an empty list"),
        pytest.param(
            {"SLACK_WEBHOOK_URL": ""}, [("console", "console")], id="an empty one is none"
        ),
        pytest.param(
            {"SLACK_WEBHOOK_URL": "u"}, [("slack-webhook", "slack_webhook")], id="slack webhook"
        ),
        pytest.param(
            {"SLACK_BOT_TOKEN": "t", "SLACK_CHANNEL": "#a", "WEBHOOK_URL": "u"},
            [("slack", "slack"), ("webhook", "webhook")],
            id="several at once",
        ),
    ],
)
def test_short_forms_are_enough_to_start_with(
    env: dict[str, str], sinks: list[tuple[str, str]]
) -> None:
    assert [(sink.name, sink.type) for sink in load(None, env, {}).sinks] == sinks


def test_short_forms_name_their_variables_and_hold_no_value() -> None:
    env = {"WEBHOOK_URL": "u", "WEBHOOK_SECRET": "s", "DATABASE_URL": "postgresql://u:p@h/d"}
    config = load(None, env, {})
    (webhook,) = config.sinks
    assert isinstance(webhook, WebhookSettings)
    assert webhook.url == SecretRef(env="WEBHOOK_URL")
    assert webhook.secrets == (SecretRef(env="WEBHOOK_SECRET"),)
    assert config.store.url == SecretRef(env="DATABASE_URL")


@pytest.mark.parametrize(
    ("text", "env"),
    [
        pytest.param("sinks: [{name: a, type: console}]", {}, id="the file sets it"),
        pytest.param(
            "", {"WATCHER_SINKS": '[{"name": "a", "type": "console"}]'}, id="WATCHER_ does"
        ),
    ],
)
def test_short_forms_count_only_where_nothing_else_sets_the_section(
    tmp_path: Path, text: str, env: dict[str, str]
) -> None:
    env |= {"SLACK_WEBHOOK_URL": "u", "SLACK_CHANNEL": "left over"}
    assert load(written(tmp_path, text), env, {}).told == ("a",)


WRONG = [
    ("a: 1", {}, "file.yaml: a: unknown key", "an unknown section"),
    ("health: {degraded: 1s}", {}, "file.yaml: health.degraded: unknown key", "an unknown key"),
    ("health: [1]", {}, "file.yaml: health: must be a mapping (in a variable: as JSON)", "no mapping"),
    (
        "health: {degraded_for: 60}", {},
        "file.yaml: health.degraded_for: a duration is a number and a unit, such as 90s, 15m, 1h30m or 90d",
        "a bare number",
    ),
    ("heartbeat: {interval: 0s}", {}, "file.yaml: heartbeat.interval: must be longer than 0s", "an interval of nothing"),
    (
        "sinks: [{name: a, type: slack, token: {env: T}, channel: general}]", {},
        "file.yaml: sinks.0.channel: must be a channel id such as C0123456789, or #name",
        "a channel without #",
    ),
    ("sinks: [{name: a, type: slack, channel: '#a'}]", {}, "file.yaml: sinks.0.token: is required", "a missing token"),
    ("sinks: [{name: a}]", {}, "file.yaml: sinks.0: needs a type: slack, slack_webhook, webhook, alertmanager, pagerduty, apprise or console", "no type"),
    ("sinks: [{name: a, type: slak}]", {}, "file.yaml: sinks.0: no type is called 'slak': slack, slack_webhook, webhook, alertmanager, pagerduty, apprise or console", "a misspelt type"),
    (
        "sinks: [{name: a, type: console}, {name: a, type: console}]", {},
        "file.yaml: sinks.1.name: another one is called 'a'", "two sinks of one name",
    ),
    (
        "clusters: [{kubeconfig: a}, {kubeconfig: b}]", {},
        "file.yaml: clusters.1.name: another one is called 'default'", "two clusters without a name",
    ),
    ("route: {sinks: [pager]}", {}, "file.yaml: route.sinks.0: no sink is called 'pager'", "an unknown sink"),
    ("clusters: [{namespaces_exclude: [Dev]}]", {}, "file.yaml: clusters.0.namespaces_exclude.0: is too long, or has a character that such a name cannot have", "no pattern of namespaces"),
    ("clusters: [{namespaces_exclude: [a, '**']}]", {}, "file.yaml: clusters.0.namespaces_exclude.1: would leave no namespace to be watched", "all namespaces excluded"),
    ("clusters: [{namespaces: [a], namespaces_exclude: [b]}]", {}, "file.yaml: clusters.0.namespaces_exclude: only where all are watched: `namespaces` says already which are", "named and excluded"),
    ("clusters: [{name: '-'}]", {}, "file.yaml: clusters.0.name: is too long, or has a character that such a name cannot have", "a name that is none"),
    ("clusters: []", {}, "file.yaml: clusters: must not be empty", "no cluster"),
    ("route: {sinks: []}", {}, "file.yaml: route.sinks: must not be empty", "nobody is told"),
    ("store: {url: 'mysql://h/d'}", {}, "file.yaml: store.url: must be sqlite:///PATH or postgresql://…", "another database"),
    ("store: {url: 'sqlite://'}", {}, "file.yaml: store.url: must be sqlite:///PATH or postgresql://…", "a store in memory"),
    ("web: {address: '8080'}", {}, "file.yaml: web.address: must be HOST:PORT or :PORT, an IPv6 host in brackets", "a port without colon"),
    ("web: {address: ':1'}\nweb: {address: ':2'}", {}, "file.yaml:2:1: the key 'web' is there twice", "a key twice"),
    ("a: [1\nb: 2", {}, "file.yaml:2:2: expected ',' or ']', but got ':'", "no YAML"),
    (" \n", {}, "file.yaml: is empty; for the defaults it would be {}", "nothing at all"),
    ("- 1", {}, "file.yaml: must be a mapping of sections: clusters, health, sinks, …", "a list"),
    ("web: {when: 2026-99-99}", {}, "file.yaml: not YAML that can be read", "an impossible date"),
    ("", {"WATCHER_WEB__PORT": "1"}, "WATCHER_WEB__PORT: unknown key", "a variable of no key"),
    ("", {"WATCHER_WEBB": "1"}, "WATCHER_WEBB: unknown key", "a variable of no section"),
    ("", {"WATCHER_HEALTH__DEGRADED_FOR": "1"}, "WATCHER_HEALTH__DEGRADED_FOR: a duration is a number and a unit, such as 90s, 15m, 1h30m or 90d", "a variable's value"),
    ("", {"WATCHER_SINKS__0__NAME": "a"}, "WATCHER_SINKS__0__NAME: must be a list (in a variable: as JSON)", "a number of a list"),
    ("", {"SLACK_BOT_TOKEN": "t", "SLACK_CHANNEL": "general"}, "SLACK_CHANNEL: must be a channel id such as C0123456789, or #name", "a short form's value"),
    ("", {"WATCHER_SINKS": "[{"}, "WATCHER_SINKS: must be a list (in a variable: as JSON)", "a variable that is no JSON"),
    (
        "", {"WATCHER_SINKS": '[{"name": "a", "type": "console", "x": 1}]'},
        "WATCHER_SINKS: 0.x: unknown key", "a key inside a variable's JSON",
    ),
    ("", {"SLACK_BOT_TOKEN": "t"}, "SLACK_BOT_TOKEN: needs SLACK_CHANNEL as well", "half of Slack"),
    ("", {"WEBHOOK_SECRET": "t"}, "WEBHOOK_SECRET: needs WEBHOOK_URL as well", "half of a webhook"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "env", "problem"), [pytest.param(*case[:3], id=case[3]) for case in WRONG]
)
def test_a_mistake_is_told_with_its_place_and_nothing_else(
    tmp_path: Path, text: str, env: dict[str, str], problem: str
) -> None:
    assert problems(tmp_path, text, env) == [problem]


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = """
    clusters: [{name: a}, {name: a}]
    health: {degraded_for: 1, flapping: {cycles: 0}}
    sinks: [{name: s, type: slack, token: {env: T}, channel: x}, {type: webhook, url: ftp://h}]
    route: {sinks: [t]}
    """
    places = [line.split(": ")[-2] for line in problems(tmp_path, text, {"WATCHER_X": "1"})]
    assert sorted(places) == sorted(
        [
            "WATCHER_X",
            "clusters.1.name",
            "health.degraded_for",
            "health.flapping.cycles",
            "sinks.0.channel",
            "sinks.1.name",
            "sinks.1.url",
            "route.sinks.0",
        ]
    )


def test_a_missing_file_is_one_line() -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        load(Path("no/such.yaml"), {}, {})


def test_a_section_whose_keys_are_all_commented_out_is_not_set(tmp_path: Path) -> None:
    assert load(written(tmp_path, "health:\nsinks:\n"), {}, {}) == Config()


def test_flags_for_one_cluster_are_refused_when_there_are_several(tmp_path: Path) -> None:
    text = "clusters: [{name: a}, {name: b}]"
    told = problems(tmp_path, text, flags={"context": "c"})
    assert told == ["--context: which cluster it is for is unclear, several are set"]


def test_a_flags_mistake_names_the_flag(tmp_path: Path) -> None:
    flags = {"address": "8080", "context": "a\nb"}
    assert [line.split(": ")[0] for line in problems(tmp_path, "", flags=flags)] == [
        "--context",
        "--address",
    ]


def test_what_kubernetes_sets_beside_a_service_called_watcher_is_no_setting() -> None:
    env = {"WATCHER_SERVICE_HOST": "10.0.0.1", "WATCHER_PORT_80_TCP_ADDR": "10.0.0.1"}
    assert load(None, env, {}) == Config()


@pytest.mark.parametrize(
    ("url", "allow_http", "wrong"),
    [
        pytest.param("https://h/x", False, "", id="https"),
        pytest.param("http://127.0.0.1:1/x", False, "", id="loopback"),
        pytest.param("http://[::1]/x", False, "", id="loopback, IPv6"),
        pytest.param("http://localhost/x", False, "", id="localhost"),
        pytest.param("http://hook.ns.svc/x", False, "", id="a Service"),
        pytest.param("http://hook.ns.svc.cluster.local", False, "", id="a Service, in full"),
        pytest.param("http://example.com", True, "", id="allowed"),
        pytest.param("http://example.com", False, "allow_http", id="http elsewhere"),
        pytest.param("http://example.com#.svc", False, "allow_http", id="not a Service's name"),
        pytest.param("http://a.svc.example.com", False, "allow_http", id="a Service's name in it"),
        pytest.param("http://127.0.0.1.example.com", False, "allow_http", id="not loopback"),
        pytest.param("file:///etc/passwd", True, "must be https", id="file"),
        pytest.param("gopher://h/", True, "must be https", id="gopher"),
        pytest.param("https://", False, "must be https", id="no host"),
        pytest.param("https://h:99999/", False, "is not a URL", id="no port"),
        pytest.param("https://h/\r\nX: y", False, "line break", id="CR LF"),
    ],
)
def test_a_message_goes_only_where_it_may(
    tmp_path: Path, url: str, allow_http: bool, wrong: str
) -> None:
    sink = {"name": "a", "type": "webhook", "url": url, "allow_http": allow_http}
    path = written(tmp_path, yaml.safe_dump({"sinks": [sink]}))
    if not wrong:
        assert load(path, {}, {}).sinks[0].name == "a"
        return
    with pytest.raises(ConfigError, match=rf"sinks\.0\.url: .*{wrong}"):
        load(path, {}, {})


@pytest.mark.parametrize(
    "sink",
    [
        "{name: a, type: slack, channel: '#a', token: xoxb-very-secret}",
        "{name: a, type: slack_webhook, url: 'https://hooks.slack.com/services/xoxb-very-secret'}",
        "{name: a, type: webhook, url: 'https://h', secrets: [xoxb-very-secret]}",
        "{name: a, type: webhook, url: 'https://h', secrets: [{file: a, env: xoxb-very-secret}]}",
        "{name: a, type: webhook, url: 'ftp://u:xoxb-very-secret@h'}",
        "{name: a, type: slack, channel: xoxb-very-secret, token: {env: T}}",
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_repeated(tmp_path: Path, sink: str) -> None:
    (problem,) = problems(tmp_path, f"sinks: [{sink}]")
    assert "very-secret" not in problem


def test_the_refusal_of_a_written_secret_names_both_forms(tmp_path: Path) -> None:
    text = "sinks: [{name: a, type: slack, channel: '#a', token: xoxb-1}]"
    (problem,) = problems(tmp_path, text)
    assert "{file: PATH} or {env: NAME}" in problem


def test_a_secret_is_read_for_each_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rotated one needs no restart."""
    file = tmp_path / "token"
    file.write_text("first-token\n")
    secret = SecretRef(file=file)
    assert secret.read() == "first-token"
    file.write_text("second-token\n")
    assert secret.read() == "second-token"
    monkeypatch.setenv("A_TOKEN", "https://[third-token")  # no URL either
    assert SecretRef(env="A_TOKEN").read() == "https://[third-token"
    assert redact("first-token second-token https://[third-token") == "*** *** ***"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(None, "cannot be read: No such file", id="missing"),
        pytest.param(b" \n", "not set or empty", id="empty"),
        pytest.param(b"\xff\xfe", "not UTF-8", id="binary"),
    ],
)
def test_a_secret_that_cannot_be_had_says_where_it_should_be(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"token {words}|token is {words}"):
        SecretRef(file=file).read()


def test_a_url_from_a_variable_keeps_the_rules_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the file may not say, a short form may not say either."""
    monkeypatch.setenv("WEBHOOK_URL", "http://example.com/path-of-secret")
    monkeypatch.setenv("DATABASE_URL", "mysql://h")
    env = {"WEBHOOK_URL": "set", "DATABASE_URL": "set"}
    told = unusable_secrets(load(None, env, {}))
    places = ["DATABASE_URL (store.url)", "WEBHOOK_URL (sinks.0.url)"]
    assert [line.split(": ")[0] for line in told] == places
    assert "path-of-secret" not in str(told)


def test_nothing_that_is_shown_has_a_secret_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither `config show` nor a repr in a traceback."""
    text = """
    store: {url: 'postgresql://user:pass-w0rd-1@db/watcher'}
    sinks:
      - {name: a, type: webhook, url: 'https://user:pass-w0rd-2@h/pass-w0rd-3?t=pass-w0rd-4'}
      - {name: b, type: slack_webhook, url: {env: HOOK}}
    """
    monkeypatch.setenv("HOOK", "https://hooks.slack.com/services/pass-w0rd-5")
    config = load(written(tmp_path, text), {}, {})
    for sink in config.sinks:
        assert isinstance(sink, settings.WebhookSettings | settings.SlackWebhookSettings)
        sink.url.read()
    config.store.url.read()
    shown = yaml.safe_dump(config.masked())
    assert "pass-w0rd" not in shown + repr(config) + str(config)
    assert "https://h/***" in shown
    assert redact("pass-w0rd-1 /services/pass-w0rd-5 t=pass-w0rd-4") == "*** *** ***"


def test_what_is_hidden_is_bounded() -> None:
    """Tokens that are renewed every hour do not add up for ever."""
    for number in range(1000):
        hide(f"hourly-token-{number}-")
    assert redact("hourly-token-0- hourly-token-999-") == "hourly-token-0- ***"


def test_a_short_path_does_not_make_nonsense_of_the_log() -> None:
    hide("https://hooks.example.com/deployments")
    assert redact("GET /apis/apps/v1/deployments") == "GET /apis/apps/v1/deployments"
    assert redact("POST https://hooks.example.com/deployments") == "POST ***"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///var/watcher.db", "sqlite:///var/watcher.db"),
        ("postgresql://u:p@h:5432/d", "postgresql://h:5432/***"),
        ("postgresql://u:p@d@h/x", "postgresql://h/***"),
        ("https://h", "https://h"),
        ("nonsense", "***"),
    ],
)
def test_of_a_url_only_scheme_and_host_are_shown(url: str, shown: str) -> None:
    assert mask(url) == shown


def test_the_manifests_configuration_is_one(tmp_path: Path) -> None:
    manifest = yaml.safe_load((EXAMPLE.parent / "deploy/manifests/config.yaml").read_text())
    config = load(written(tmp_path, manifest["data"]["config.yaml"]), {}, {})
    assert config.store.url == "sqlite:////var/lib/watcher/watcher.db"


def test_what_is_shown_can_be_loaded_again(tmp_path: Path) -> None:
    shown = yaml.safe_dump(load(EXAMPLE, {}, {}).masked())
    assert load(written(tmp_path, shown), {}, {}).masked() == load(EXAMPLE, {}, {}).masked()


@pytest.mark.parametrize(
    ("address", "place"),
    [
        (":8080", (None, 8080)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::]:8080", ("::", 8080)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_addresses(address: str, place: tuple[str | None, int]) -> None:
    assert parse_address(address) == place


@pytest.mark.parametrize("address", ["", "8080", ":", ":65536", "::8080", "[::]", "h:1:2", "h: 1"])
def test_no_addresses(address: str) -> None:
    with pytest.raises(ValueError, match="must be HOST:PORT"):
        parse_address(address)


def models(
    model: type[BaseModel], values: list[dict[str, Any]]
) -> Iterator[tuple[type[BaseModel], set[str]]]:
    """Every model of the configuration, with all that the example sets in it."""
    yield model, {key for value in values for key in value}
    for name, field in model.model_fields.items():
        items = [value[name] for value in values if value.get(name) is not None]
        items = [one for item in items for one in (item if isinstance(item, list) else [item])]
        for kind in nested(field.annotation):
            tag = kind.model_fields.get("type")
            mine = [i for i in items if tag is None or i["type"] in get_args(tag.annotation)]
            yield from models(kind, mine)


def nested(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401 - any type there is
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation] if annotation is not SecretRef else []
    return [kind for part in getattr(annotation, "__args__", ()) for kind in nested(part)]


def test_the_example_has_every_key() -> None:
    """What is not in config.example.yaml nobody will find."""
    example = yaml.safe_load(EXAMPLE.read_text())
    load(EXAMPLE, {}, {})
    seen = list(models(Config, [example]))
    assert len(seen) == 16
    http = {"ca_file", "client_cert", "client_key", "allow_http"}  # once, for the first sink
    for model, keys in seen:
        assert model.model_fields.keys() - keys <= (
            http if "ca_file" in model.model_fields else set()
        )
    slack = next(keys for model, keys in seen if model is SlackSettings)
    assert http <= slack


def test_the_examples_values_are_the_defaults() -> None:
    """As its first line promises, for all that is no example."""
    example = load(EXAMPLE, {}, {})
    default = Config()
    for section in ("health", "heartbeat", "store", "web"):
        assert getattr(example, section) == getattr(default, section)


def test_the_schema_takes_the_example_and_refuses_a_typo() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    example = yaml.safe_load(EXAMPLE.read_text())
    validator.validate(example)
    typos: list[Any] = [
        {"helth": {}},
        {"health": {"degraded_for": 60}},
        {"health": {"degraded_for": "1 minute"}},
        {"sinks": [{"name": "a", "type": "slack", "token": "xoxb-1", "channel": "#a"}]},
    ]
    for wrong in typos:
        assert not validator.is_valid(wrong)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://am.example:9093/api/v2/alerts", "ends in /api/v2/alerts, which the watcher adds"),
        ("https://am.example/prefix/api/v2/alerts/", "ends in /api/v2/alerts/, which"),
        ("https://am.example/api/v1/alerts", "ends in /api/v1/alerts, which"),
        ("https://am.example/api/v2", "ends in /api/v2, which"),
        ("https://am.example/?a=b", "must end with the host or a path"),
    ],
)
def test_an_alertmanager_is_named_without_the_path_of_its_api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, words: str
) -> None:
    """The path is added: with it in the URL every push would be a 404, and the sink parked."""
    sink = "sinks: [{{name: am, type: alertmanager, urls: [https://one.example/am, {}]}}]"
    (told,) = problems(tmp_path, sink.format(f"'{url}'"))
    assert f"sinks.0.urls.1: {words}" in told
    monkeypatch.setenv("PEER", url)
    named = load(written(tmp_path, sink.format("{env: PEER}")), {}, {})
    (told,) = unusable_secrets(named)
    assert told.startswith(f"PEER (sinks.0.urls): {words}")


NO_BASE64 = "must be base64 with its padding, with or without whsec_ before"
KEY = base64.b64encode(bytes(range(200, 232))).decode()
"""With `+` and `/` in it, and padding."""


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("whsec_", "is base64 of 0 bytes, and must be of 24 to 64"),
        ("whsec_…", NO_BASE64),
        ("whsec_!", NO_BASE64),
        ("correct horse battery staple 123", NO_BASE64),
        (KEY.rstrip("="), NO_BASE64),
        (f"whsec_{KEY.rstrip('=')}", NO_BASE64),
        (KEY.replace("+", "-").replace("/", "_"), NO_BASE64),
        (f"{KEY[:8]} {KEY[8:]}", NO_BASE64),
        (f"whsk_{KEY}", NO_BASE64),
        (f"{KEY[:-2]}{chr(ord(KEY[-2]) + 1)}=", NO_BASE64),
        (base64.b64encode(b"k" * 23).decode(), "is base64 of 23 bytes, and must be of 24 to 64"),
        (base64.b64encode(b"k" * 65).decode(), "is base64 of 65 bytes, and must be of 24 to 64"),
    ],
)
def test_a_signing_secret_that_no_library_takes_is_refused_before_anything_is_sent(
    secret: str, words: str
) -> None:
    env = {"WEBHOOK_URL": "https://hooks.example.com/x", "WEBHOOK_SECRET": secret}
    with pytest.MonkeyPatch.context() as patched:
        for name, value in env.items():
            patched.setenv(name, value)
        (told,) = unusable_secrets(load(None, env, {}))
    cure = "`openssl rand -base64 32` makes one"
    assert told == f"WEBHOOK_SECRET (sinks.0.secrets): {words}: {cure}"


@pytest.mark.parametrize("length", [24, 32, 64])
def test_a_signing_secret_is_the_same_key_with_and_without_its_prefix(length: int) -> None:
    key = bytes(range(190, 190 + length))
    text = base64.b64encode(key).decode()
    assert signing_key(text) == signing_key(f"whsec_{text}") == key


def test_a_piece_of_a_secret_url_is_hidden_when_it_stands_alone() -> None:
    """A receiver may echo the telling part only; words that name things stay readable."""
    hide("https://hooks.example.com/services/T0123ABCD/aB3dE5fG7hJ9kL?key=s3cretvalue")
    told = redact("unknown hook aB3dE5fG7hJ9kL of T0123ABCD, key s3cretvalue, in services")
    assert told == "unknown hook *** of ***, key ***, in services"


HEADERS = "sinks: [{{name: a, type: webhook, url: 'https://h/', headers: {}}}]"


@pytest.mark.parametrize(
    ("sinks", "place"),
    [
        (HEADERS.format('{X-A: "b\\r\\nX-C: d"}'), "sinks.0.headers.X-A: holds a line break"),
        (HEADERS.format('{"X-A\\r\\nB": c}'), "sinks.0.headers."),
        (HEADERS.format("{Content-Type: text/plain}"), "sinks.0.headers."),
        (HEADERS.format("{webhook-id: x}"), "sinks.0.headers."),
        (HEADERS.format("{Host: x}"), "sinks.0.headers."),
        (HEADERS.format("{X-A: {file: 3, env: y}}"), "sinks.0.headers.X-A: a secret is not"),
        ("sinks: [{name: a, type: webhook, url: 'file:///etc/passwd'}]", "sinks.0.url: must be"),
        ("sinks: [{name: a, type: webhook, url: 'gopher://h/'}]", "sinks.0.url: must be"),
        ('sinks: [{name: a, type: webhook, url: "https://h/\\r\\nX: y"}]', "sinks.0.url: holds"),
        ("sinks: [{name: a, type: alertmanager, urls: []}]", "sinks.0.urls: must not be empty"),
        ("sinks: [{name: a, type: alertmanager, urls: ['http://x']}]", "sinks.0.urls.0: http://"),
        (
            "sinks: [{name: a, type: slack_webhook, url: {env: U}, mention: ['<!channel>']}]",
            "sinks.0.mention.0: must be the id of a user",
        ),
        ("sinks: [{name: a, type: pagerduty}]", "sinks.0.routing_key: is required"),
    ],
)
def test_what_would_break_a_request_is_refused_at_the_start(
    tmp_path: Path, sinks: str, place: str
) -> None:
    """Row 60: with the path to the key, and without the value."""
    (problem,) = problems(tmp_path, sinks, {})
    assert problem.startswith(f"file.yaml: {place}")
