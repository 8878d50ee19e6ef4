"""Settings become the adapters that they name: beside `app` the only file with concrete classes."""

from watcher import config as options
from watcher.cluster.api import KubeCluster
from watcher.cluster.auth import find_auth
from watcher.cluster.transport import Timings
from watcher.core.namespaces import Exclusion
from watcher.ports import Clock, Sink
from watcher.sinks.alertmanager import Alertmanager
from watcher.sinks.apprise import Apprise
from watcher.sinks.console import Console
from watcher.sinks.http import Ping, Secret, Sender
from watcher.sinks.pagerduty import PagerDuty
from watcher.sinks.slack import SlackBot, SlackWebhook
from watcher.sinks.webhook import Webhook


def make_cluster(
    settings: options.ClusterSettings, config: options.Config, clock: Clock
) -> KubeCluster:
    """Build the adapter of one API server; raises ConfigError for credentials that cannot be found."""
    auth = find_auth(clock, settings.kubeconfig, settings.context, strict_x509=settings.strict_x509)
    scopes, selector = settings.namespaces or ("",), settings.label_selector
    seconds = Timings(probe=config.heartbeat.timeout.total_seconds())
    return KubeCluster(
        settings.name, auth, clock, scopes=scopes, label_selector=selector,
        excluded=Exclusion(settings.namespaces_exclude), timings=seconds,
    )  # fmt: skip


def make_sink(settings: options.SinkSettings, clock: Clock) -> Sink:
    """Build the sink of that type."""
    name = settings.name
    if isinstance(settings, options.ConsoleSettings):
        return Console(name)
    if isinstance(settings, options.AppriseSettings):
        return Apprise(name, url=settings.url.read)
    send = _sender(settings, clock)
    match settings:
        case options.SlackSettings(token=token, channel=room, api_url=api, mention=whom):
            return SlackBot(name, send, token=token.read, channel=room, api_url=api, mention=whom)
        case options.SlackWebhookSettings(url=url, mention=whom):
            return SlackWebhook(name, send, url=url.read, mention=whom)
        case options.PagerDutySettings(routing_key=key, url=address):
            return PagerDuty(name, send, routing_key=key.read, url=address)
        case options.WebhookSettings(url=url, headers=headers, format=form):
            keys, v4 = [key.read for key in settings.secrets], form == "alertmanager"
            own = _readers(headers)
            return Webhook(name, send, url=url.read, secrets=keys, headers=own, alertmanager=v4)
        case options.AlertmanagerSettings(headers=headers, interval=every):
            urls, own = [peer.read for peer in settings.urls], _readers(headers)
            return Alertmanager(name, send, urls=urls, headers=own, every=every)


def make_pinger(settings: options.DeadManSettings, clock: Clock) -> Ping:
    """Build what asks the dead-man monitor's URL."""
    return Ping(_sender(settings, clock), url=settings.url.read, method=settings.method)


def _readers(headers: options.Headers) -> dict[str, Secret]:
    return {name: value.read for name, value in headers.items()}


def _sender(settings: options.HttpSettings, clock: Clock) -> Sender:
    return Sender(
        clock,
        ca_file=settings.ca_file,
        client_cert=settings.client_cert,
        client_key=settings.client_key,
        allow_http=settings.allow_http,
    )
