"""What an operator may set: one frozen value, checked whole before anything starts.

Every key is in config.example.yaml; its shape is the contract of the design, §5.
"""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    ValidationInfo,
    WithJsonSchema,
)

from watcher.config import rules
from watcher.config.secrets import SecretRef, Written
from watcher.core.durations import PATTERN, format_duration, parse_duration
from watcher.core.policy import ClusterPolicy, HealthPolicy

_HEALTH: Final = HealthPolicy()
_CLUSTER: Final = ClusterPolicy()


def _positive(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("must be longer than 0s")
    return value


def _some(items: tuple[Any, ...]) -> tuple[Any, ...]:
    if not items:  # a `min_length` also counts an item that is wrong as one that is not there
        raise ValueError("must not be empty")
    return items


def _address(value: str) -> str:
    rules.parse_address(value)
    return value


def _sendable(url: str, info: ValidationInfo) -> str:
    return rules.check_url(url, bool(info.data.get("allow_http")))


def _kind(value: object) -> str:
    return "text" if isinstance(value, str) else "reference"


Duration = Annotated[
    timedelta,
    BeforeValidator(lambda value: parse_duration(str(value))),  # a bare number has no unit
    PlainSerializer(format_duration),
    WithJsonSchema({"type": "string", "pattern": PATTERN}),
]
Positive = Annotated[Duration, AfterValidator(_positive)]
Count = Annotated[int, Field(ge=1, le=1000)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]
Namespace = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
NamespacePattern = Annotated[
    str,
    Field(pattern=r"^[a-z0-9*?]([a-z0-9*?-]{0,61}[a-z0-9*?])?$"),
    AfterValidator(rules.check_exclusion),
]
Line = Annotated[str, AfterValidator(rules.check_line)]
_Reference = Annotated[SecretRef, Tag("reference")]
_StoreUrl = Annotated[Written, AfterValidator(rules.check_store_url), Tag("text")]
_SinkUrl = Annotated[Written, AfterValidator(_sendable), Tag("text")]
_Value = Annotated[Written, AfterValidator(rules.check_line), Tag("text")]
_PeerUrl = Annotated[
    Written, AfterValidator(_sendable), AfterValidator(rules.check_peer_url), Tag("text")
]
Url = Annotated[_SinkUrl | _Reference, Discriminator(_kind)]
PeerUrl = Annotated[_PeerUrl | _Reference, Discriminator(_kind)]
Headers = Mapping[
    Annotated[str, AfterValidator(rules.check_header)],
    Annotated[_Value | _Reference, Discriminator(_kind)],
]
Mention = Annotated[str, AfterValidator(rules.check_mention)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClusterSettings(_Settings):
    """One API server; without a kubeconfig the in-cluster account, else the usual kubeconfig."""

    name: Name = "default"
    kubeconfig: Path | None = None
    context: Line | None = None
    namespaces: tuple[Namespace, ...] = ()
    namespaces_exclude: tuple[NamespacePattern, ...] = ()
    label_selector: Line = ""
    strict_x509: bool = True


class HeartbeatSettings(_Settings):
    """When an API server counts as out of sight; the fields of `ClusterPolicy`."""

    interval: Positive = _CLUSTER.interval
    timeout: Positive = _CLUSTER.timeout
    failures: Count = _CLUSTER.failures
    successes: Count = _CLUSTER.successes
    unauthorized_for: Duration = _CLUSTER.unauthorized_for
    forbidden_for: Duration = _CLUSTER.forbidden_for
    view_stale_for: Duration = _CLUSTER.view_stale_for
    throttled_for: Duration = _CLUSTER.throttled_for
    stream_silent_for: Positive = _CLUSTER.stream_silent_for


class FlappingSettings(_Settings):
    """When a subject counts as flapping."""

    cycles: Count = _HEALTH.flapping.cycles
    episodes: Count = _HEALTH.flapping.episodes
    window: Positive = _HEALTH.flapping.window
    stable: Positive = _HEALTH.flapping.stable


class HealthSettings(_Settings):
    """How long a verdict must hold before anybody is told; the fields of `HealthPolicy`."""

    degraded_for: Duration = _HEALTH.degraded_for
    none_available_for: Duration = _HEALTH.none_available_for
    rollout_stalled_for: Duration = _HEALTH.rollout_stalled_for
    nothing_serves_for: Positive = _HEALTH.nothing_serves_for
    no_progress_for: Positive = _HEALTH.no_progress_for
    scale_up_grace: Duration = _HEALTH.scale_up_grace
    recovered_for: Duration = _HEALTH.recovered_for
    flapping: FlappingSettings = FlappingSettings()


class StoreSettings(_Settings):
    """Where the record is kept, and how long what is over stays in it."""

    url: Annotated[_StoreUrl | _Reference, Discriminator(_kind)] = Written("sqlite:///watcher.db")
    retain: Positive = timedelta(days=90)
    queue_cap: Annotated[int, Field(ge=10)] = 100_000


class HttpSettings(_Settings):
    """What everything has in common that sends."""

    allow_http: bool = False
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None


class HttpSink(HttpSettings):
    """What all sinks have in common that post."""

    name: Name


class SlackSettings(HttpSink):
    """Slack with a bot token: one message an incident, edited and answered in its thread."""

    type: Literal["slack"]
    token: SecretRef
    channel: Annotated[str, AfterValidator(rules.check_channel)]
    mention: tuple[Mention, ...] = ()
    api_url: Annotated[str, AfterValidator(_sendable)] = "https://slack.com/api/"


class SlackWebhookSettings(HttpSink):
    """Slack's incoming webhook: its URL is the secret."""

    type: Literal["slack_webhook"]
    url: SecretRef
    mention: tuple[Mention, ...] = ()


class WebhookSettings(HttpSink):
    """Signed events for machines; several secrets while one is being replaced by another."""

    type: Literal["webhook"]
    url: Url
    format: Literal["cloudevents", "alertmanager"] = "cloudevents"
    secrets: tuple[SecretRef, ...] = ()
    headers: Headers = {}


class AlertmanagerSettings(HttpSink):
    """Alertmanager's API: every peer by its own URL, told at each interval what stands."""

    type: Literal["alertmanager"]
    urls: Annotated[tuple[PeerUrl, ...], AfterValidator(_some)]
    headers: Headers = {}
    interval: Positive = timedelta(minutes=1)


class PagerDutySettings(HttpSink):
    """PagerDuty's Events API v2."""

    type: Literal["pagerduty"]
    routing_key: SecretRef
    url: Annotated[str, AfterValidator(_sendable)] = "https://events.pagerduty.com/v2/enqueue"


class AppriseSettings(_Settings):
    """Any other service, by the library Apprise, best effort; its URL is the secret."""

    type: Literal["apprise"]
    name: Name
    url: SecretRef


class ConsoleSettings(_Settings):
    """Standard output: what is told when no sink is configured."""

    type: Literal["console"]
    name: Name


SinkSettings = Annotated[
    SlackSettings
    | SlackWebhookSettings
    | WebhookSettings
    | AlertmanagerSettings
    | PagerDutySettings
    | AppriseSettings
    | ConsoleSettings,
    Field(discriminator="type"),
]


SINK_TYPES: Final = [
    get_args(kind.model_fields["type"].annotation)[0]
    for kind in get_args(get_args(SinkSettings)[0])
]
_CONSOLE: Final = (ConsoleSettings(type="console", name="console"),)


class RouteSettings(_Settings):
    """Who is told; without a list, every sink."""

    sinks: Annotated[tuple[Name, ...], AfterValidator(_some)] | None = None


class WebSettings(_Settings):
    """Where health and metrics are served."""

    address: Annotated[str, AfterValidator(_address)] = ":8080"


class DeadManSettings(HttpSettings):
    """Who is to miss us when we cannot tell of an outage any more."""

    url: Url
    interval: Positive = timedelta(minutes=1)
    method: Literal["GET", "POST"] = "GET"


class Config(_Settings):
    """Everything that is configured."""

    clusters: Annotated[tuple[ClusterSettings, ...], AfterValidator(_some)] = (ClusterSettings(),)
    heartbeat: HeartbeatSettings = HeartbeatSettings()
    health: HealthSettings = HealthSettings()
    store: StoreSettings = StoreSettings()
    sinks: Annotated[tuple[SinkSettings, ...], AfterValidator(lambda s: s or _CONSOLE)] = _CONSOLE
    route: RouteSettings = RouteSettings()
    web: WebSettings = WebSettings()
    dead_man: DeadManSettings | None = None

    @property
    def told(self) -> tuple[str, ...]:
        """Names of the sinks that the route reaches."""
        return self.route.sinks or tuple(sink.name for sink in self.sinks)

    def health_policy(self) -> HealthPolicy:
        """The holds, as the core takes them."""
        return msgspec.convert(self.health, HealthPolicy, from_attributes=True)

    def cluster_policy(self) -> ClusterPolicy:
        """When an API server is out of sight, as the core takes it."""
        return msgspec.convert(self.heartbeat, ClusterPolicy, from_attributes=True)

    def masked(self) -> dict[str, Any]:
        """The whole configuration as plain values, fit to be shown: what may be secret is hidden."""
        return self.model_dump(mode="json", exclude_none=True)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the file, for editors and checks."""
    return Config.model_json_schema() | {"$schema": "https://json-schema.org/draft/2020-12/schema"}
