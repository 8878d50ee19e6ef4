"""The chart as it is rendered: what it takes and refuses, and what an API server makes of it."""

import json
import re
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import promql_parser
import pytest
import yaml

from tests.controlplane.client import Json
from tests.deploy import config_schema
from tests.deploy.release import CHART, Release
from watcher.config.load import load
from watcher.core.delivery import DeliveryState
from watcher.metrics import Metrics
from watcher.testing.clock import ManualClock
from watcher.view import View

ROOT = CHART.parents[1]
POSTGRESQL: Json = {"store": {"type": "postgresql", "postgresql": {"existingSecret": "database"}}}
MONITORING: Json = {
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "alertLabels": {"team": "platform"}},
    "dashboard": {"enabled": True},
}
SINKS: Json = {
    "config": {
        "health": {"degraded_for": "2m"},
        "sinks": [
            {
                "name": "oncall",
                "type": "slack",
                "token": {"file": "/etc/slack/token"},
                "channel": "C0123456789",
            },
            {"name": "hooks", "type": "webhook", "url": {"env": "HOOK_URL"}},
        ],
    },
    "env": {
        "HOOK_URL": "https://hooks.example.com/x",
        "TZ": "UTC",
        "NODE": {"valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    },
    "envFrom": [{"secretRef": {"name": "watcher-env", "optional": True}}],
    "extraVolumes": [{"name": "slack", "secret": {"secretName": "slack"}}],
    "extraVolumeMounts": [{"name": "slack", "mountPath": "/etc/slack", "readOnly": True}],
}


def sink(**about: object) -> Json:
    """One sink."""
    return {"config": {"sinks": [{"name": "one", **about}]}}


MATRIX = [
    pytest.param({}, id="defaults"),
    pytest.param(SINKS, id="sinks"),
    pytest.param({"store": {"sqlite": {"persistent": False}}}, id="sqlite without a claim"),
    pytest.param({"store": {"sqlite": {"existingClaim": "mine"}}}, id="sqlite on a claim of mine"),
    pytest.param({"replicaCount": 0}, id="scaled to zero"),
    pytest.param({"replicaCount": None}, id="replicas left to others"),
    pytest.param(POSTGRESQL, id="postgresql"),
    pytest.param(
        {
            **POSTGRESQL,
            **SINKS,
            **MONITORING,
            "replicaCount": 3,
            "networkPolicy": {"enabled": True},
        },
        id="postgresql with everything",
    ),
    pytest.param({"namespaces": ["default", "kube-system"]}, id="two namespaces"),
    pytest.param({"rbac": {"causes": True}}, id="causes"),
    pytest.param(
        {"namespaces": ["default"], "rbac": {"causes": True}}, id="causes of one namespace"
    ),
    pytest.param(
        {"rbac": {"create": False}, "serviceAccount": {"create": False, "name": "mine"}},
        id="an account of mine",
    ),
    pytest.param(MONITORING, id="monitoring"),
    pytest.param(
        {
            "networkPolicy": {
                "enabled": True,
                "ingressFrom": [{"namespaceSelector": {}}],
                "extraEgress": [{"ports": [{"port": 8080}]}],
            }
        },
        id="a network policy with rules of mine",
    ),
    pytest.param(
        {
            "image": {"digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
            "imagePullSecrets": [{"name": "registry"}],
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "dedicated", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "priorityClassName": "system-cluster-critical",
            "podAnnotations": {"a": "b"},
            "podLabels": {"c": "d"},
            "service": {"type": "NodePort", "port": 80, "annotations": {"e": "f"}},
            "fullnameOverride": "a-name-that-is-about-as-long-as-that-of-an-object-may-be",
        },
        id="everything about pods",
    ),
]
REFUSED = [
    pytest.param({"sotre": {}}, "'sotre' not allowed", id="unknown key"),
    pytest.param({"store": {"typ": "sqlite"}}, "'typ' not allowed", id="unknown key below"),
    pytest.param({"store": {"type": "mysql"}}, "'/store/type'", id="unknown store"),
    pytest.param({"replicaCount": 2}, "'/replicaCount'", id="two replicas on sqlite"),
    pytest.param(
        {"store": {"type": "postgresql"}}, "'/store/postgresql/existingSecret'", id="no secret"
    ),
    pytest.param({"env": {"DEBUG": 1}}, "'/env/DEBUG'", id="variable that is a number"),
    pytest.param({"env": {"A": {"value": "b"}}}, "'/env/A'", id="variable that is an object"),
    pytest.param({"env": {"DATABASE_URL": "x"}}, "'DATABASE_URL'", id="the chart's own variable"),
    pytest.param(
        {"config": {"health": {"degraded_for": 60}}}, "'/config/health/degraded_for'", id="no unit"
    ),
    pytest.param({"config": {"helth": {}}}, "'helth' not allowed", id="unknown configuration"),
    pytest.param({"config": {"web": {}}}, "'web' not allowed", id="the chart's own address"),
    pytest.param(
        {"config": {"store": {"url": "sqlite:///x"}}}, "'url' not allowed", id="the chart's own URL"
    ),
    pytest.param(
        {"config": {"sinks": [{"name": "a", "type": "slack", "channel": "C0123456789"}]}},
        "missing property 'token'",
        id="slack without a token",
    ),
    pytest.param(
        {"namespaces": ["a"], "config": {"clusters": [{"name": "b"}]}},
        "set either it, or clusterName and namespaces",
        id="namespaces said twice",
    ),
    pytest.param(
        {"clusterName": "a", "config": {"clusters": [{"name": "b"}]}},
        "set either it, or clusterName and namespaces",
        id="name said twice",
    ),
    pytest.param({"clusterName": "a b"}, "'/clusterName'", id="no cluster's name"),
    pytest.param({"namespaces": ["A_B"]}, "'/namespaces/0'", id="no namespace's name"),
    pytest.param({"image": {"tag": 1.2}}, "'/image/tag'", id="tag that YAML reads as a number"),
    pytest.param({"service": {"port": 0}}, "'/service/port'", id="no port"),
]


@pytest.fixture(scope="session")
def exported() -> set[str]:
    """Names of all the samples that a running watcher can show."""
    metrics = Metrics(View(), ManualClock(datetime(2026, 1, 1, tzinfo=UTC)), ["oncall"])
    metrics.latency.labels("oncall").observe(1)
    metrics.transitions.labels("default", "degraded").inc()
    metrics.notifications.labels("oncall", "sent").inc()
    metrics.failed("oncall", "timeout")
    metrics.relists.labels("default", "start").inc()
    metrics.watch_events.labels("default").inc()
    queue = [("oncall", DeliveryState.PENDING, 1, datetime(2026, 1, 1, tzinfo=UTC))]
    shown = metrics.render(queue).decode()
    # A family of which there is no sample yet has its type there all the same.
    return set(re.findall(r"^(?:# TYPE )?([a-z_]+)", shown, re.MULTILINE))


def test_lint(release: Release) -> None:
    assert "0 chart(s) failed" in release.helm("lint", "--strict", str(CHART))


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart["version"] == chart["appVersion"] == project["version"]


def test_the_schema_knows_the_configuration() -> None:
    found = config_schema.SCHEMA.read_text()
    assert json.loads(found) == config_schema.expected(), "`make chart` brings it up to date"


def test_every_value_is_explained() -> None:
    """In the comments that helm-docs reads: its own, or that of the mapping it is in."""
    text = (CHART / "values.yaml").read_text()
    lines = text.splitlines()

    def silent(mapping: yaml.MappingNode) -> Iterator[str]:
        for key, value in mapping.value:
            if lines[key.start_mark.line - 1].lstrip().startswith("# -- "):
                continue
            if isinstance(value, yaml.MappingNode) and value.value:
                yield from silent(value)
            else:
                yield f"{key.value} in line {key.start_mark.line + 1}"

    values = yaml.compose(text)
    assert isinstance(values, yaml.MappingNode)
    assert list(silent(values)) == []


@pytest.mark.parametrize("values", MATRIX)
def test_an_api_server_takes_it(release: Release, values: Json) -> None:
    """In a namespace that enforces the restricted standard, without a word of warning."""
    objects = release.render(values)
    pods = list(pods_of(objects))
    others = [each for each in objects if each["kind"] != "Pod"]
    assert len(pods) >= 2  # the watcher's and the test's
    for group in (others, pods):
        assert len(release.accepted(group)) == len(group)


def pods_of(objects: list[Json]) -> Iterator[Json]:
    """Each pod that the objects would make: whether it may run is decided when it is made."""
    for each in objects:
        if each["kind"] in ("Pod", "Deployment", "Job"):
            template = each if each["kind"] == "Pod" else each["spec"]["template"]
            # Its account would have to be there already.
            spec = {**template["spec"], "serviceAccountName": "default"}
            own = {"name": each["kind"].lower(), "namespace": each["metadata"]["namespace"]}
            metadata = {**template["metadata"], **own}
            yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@pytest.mark.parametrize(("values", "named"), REFUSED)
def test_wrong_values_are_refused_by_name(release: Release, values: Json, named: str) -> None:
    assert named in release.refused(values)


def test_helm_3_is_helm_3(helm3: Release) -> None:
    assert helm3.helm("version", "--short").startswith("v3.")


@pytest.mark.parametrize("values", MATRIX)
def test_helm_3_renders_the_same(offline: Release, helm3: Release, values: Json) -> None:
    assert helm3.render(values) == offline.render(values)


@pytest.mark.parametrize(("values", "named"), REFUSED)
def test_helm_3_refuses_the_same(helm3: Release, values: Json, named: str) -> None:
    """By the schema or the chart, in words of its own."""
    ours = named.startswith("set either")
    assert (named if ours else "values don't meet the specifications") in helm3.refused(values)


@pytest.mark.parametrize(
    ("values", "several"),
    [
        pytest.param({"replicaCount": None}, False, id="sqlite"),
        pytest.param({**POSTGRESQL, "replicaCount": None}, True, id="postgresql"),
    ],
)
def test_the_number_of_replicas_can_be_left_to_others(
    offline: Release, helm3: Release, values: Json, several: bool
) -> None:
    """An autoscaler or a hand: no upgrade sets it back, and what several need is there for them."""
    for release in (offline, helm3):
        objects = release.render(values)
        assert "replicas" not in find(objects, "Deployment")["spec"]
        assert ("topologySpreadConstraints" in spec(objects)) == several
        assert any(each["kind"] == "PodDisruptionBudget" for each in objects) == several


REACHED = [
    pytest.param({}, [443, 6443], id="nothing said"),
    pytest.param(sink(type="webhook", url="https://hooks.example.com:8443/x"), [443, 6443, 8443],
        id="a port"),
    pytest.param(sink(type="webhook", url="http://hooks/x:99", allow_http=True), [80, 443, 6443],
        id="plain HTTP"),
    pytest.param(sink(type="webhook", url="https://u:1@hooks.example.com/?a=:7"), [443, 6443],
        id="no port, though colons"),
    pytest.param(sink(type="webhook", url="https://[2001:db8::1]:8443"), [443, 6443, 8443],
        id="an address in brackets"),
    pytest.param(sink(type="alertmanager", allow_http=True,
        urls=["http://am-0:9093", {"env": "AM"}, {"file": "/x"}]) | {"env": {"AM": "http://am-1:9094"}},
        [443, 6443, 9093, 9094], id="several, one in a variable"),
    pytest.param(sink(type="webhook", url={"env": "HOOK"})
        | {"env": {"HOOK": {"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}}},
        [443, 6443], id="in a Secret: nobody knows"),
    pytest.param({"config": {"dead_man": {"url": "https://hc.example.com:9443/x"}}},
        [443, 6443, 9443], id="the dead-man ping"),
    pytest.param({"env": {"https_proxy": "http://proxy:3128"}}, [443, 3128, 6443], id="a proxy"),
    pytest.param(POSTGRESQL, [443, 5432, 6443], id="PostgreSQL"),
    pytest.param({"networkPolicy": {"egressPorts": []}}, [], id="none: the rule is left out"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "ports"), REACHED)
def test_the_network_policy_lets_out_to_what_is_configured(
    offline: Release, values: Json, ports: list[int]
) -> None:
    """Each port that the values tell, once; a rule without ports would open all of them."""
    policy = values.get("networkPolicy", {}) | {"enabled": True}
    rules = find(offline.render({**values, "networkPolicy": policy}), "NetworkPolicy")["spec"]
    dns, *others, itself = rules["egress"]
    assert [each["port"] for each in dns["ports"]] == [53, 53]
    assert itself["ports"] == [{"port": "http"}]
    assert [sorted(each["port"] for each in rule["ports"]) for rule in others] == [ports][
        : len(ports)
    ]


def test_variables_reach_both_containers_unchanged(release: Release) -> None:
    """A new variable needs no change of the chart, and the migration has the same as the watcher."""
    env = {
        "PLAIN": "1e6",
        "WATCHER_HEALTH__DEGRADED_FOR": "30s",
        "JSON": '{"a": "b: c # d"}',
        "SECRET": {"valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}},
    }
    objects = release.render({**POSTGRESQL, "env": env})
    watcher, migration = (container(objects, kind) for kind in ("Deployment", "Job"))
    assert watcher["env"] == migration["env"]
    assert (watcher["args"][0], migration["args"]) == ("run", ["migrate"])
    assert watcher["image"] == migration["image"]
    rendered = {each["name"]: each for each in watcher["env"]}
    for name, value in env.items():
        expected = value if isinstance(value, dict) else {"value": value}
        assert rendered[name] == {"name": name, **expected}


def test_a_change_of_the_configuration_rolls_the_pods(release: Release) -> None:
    def sum_of(values: Json) -> str:
        template = find(release.render(values), "Deployment")["spec"]["template"]
        found: str = template["metadata"]["annotations"]["checksum/config"]
        return found

    assert sum_of({}) == sum_of({"podAnnotations": {"a": "b"}})
    assert sum_of({}) != sum_of({"config": {"health": {"degraded_for": "2m"}}})
    assert sum_of({}) != sum_of({"namespaces": ["shop"]})


@pytest.mark.parametrize(
    ("values", "followed"),
    [
        pytest.param({}, [("default", [])], id="defaults"),
        pytest.param({"clusterName": "prod-eu"}, [("prod-eu", [])], id="named"),
        pytest.param({"namespaces": ["a"]}, [("default", ["a"])], id="namespaces"),
        pytest.param(
            {"clusterName": "2", "namespaces": ["a", "b"]}, [("2", ["a", "b"])], id="both"
        ),
        pytest.param(
            {"config": {"clusters": [{"name": "x"}, {"name": "y", "namespaces": ["a"]}]}},
            [("x", []), ("y", ["a"])],
            id="of the configuration",
        ),
    ],
)
def test_the_cluster_can_be_named(
    release: Release, values: Json, followed: list[tuple[str, list[str]]], tmp_path: Path
) -> None:
    """Whichever namespaces are followed, the watcher reads the name that the values give it."""
    found = find(release.render(values), "ConfigMap")["data"]["config.yaml"]
    (file := tmp_path / "config.yaml").write_text(found)
    clusters = load(file, {}, {}).clusters
    assert [(each.name, list(each.namespaces)) for each in clusters] == followed


def test_only_the_watchers_own_pods_are_behind_the_service(release: Release) -> None:
    """The migration and the test answer nothing; a Service that chose them would lose requests."""
    objects = release.render({**POSTGRESQL, "replicaCount": 2})
    selector = find(objects, "Service")["spec"]["selector"].items()
    labels = {
        each["kind"]: (each["spec"].get("template") or each)["metadata"]["labels"].items()
        for each in objects
        if each["kind"] in ("Deployment", "Job", "Pod")
    }
    assert [kind for kind, found in labels.items() if selector <= found] == ["Deployment"]


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        pytest.param({}, {"PersistentVolumeClaim"}, id="sqlite"),
        pytest.param({"store": {"sqlite": {"existingClaim": "a"}}}, set(), id="a claim of mine"),
        pytest.param(POSTGRESQL, {"Job"}, id="one replica on postgresql"),
        pytest.param(
            {**POSTGRESQL, "replicaCount": 2}, {"Job", "PodDisruptionBudget"}, id="two replicas"
        ),
    ],
)
def test_what_is_there_for_the_store(release: Release, values: Json, kinds: set[str]) -> None:
    always = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "ConfigMap", "Service"}
    always |= {"Deployment", "Pod"}
    assert {each["kind"] for each in release.render(values)} == always | kinds


@pytest.mark.parametrize(
    ("values", "said"),
    [
        pytest.param({}, ["NOBODY IS TOLD YET", "delete pvc {name}"], id="defaults"),
        pytest.param(
            {"store": {"sqlite": {"persistent": False}}},
            ["THE RECORD DIES WITH THE POD"],
            id="no claim",
        ),
        pytest.param(
            POSTGRESQL,
            ["migrated by the job {name}-migrate", "logs job/{name}-migrate"],
            id="postgresql",
        ),
    ],
)
def test_the_notes_tell_how_to_go_on(release: Release, values: Json, said: list[str]) -> None:
    """How to ask it and send a test, and what the chosen store costs."""
    notes = release.install(values, "--dry-run=client").stdout.partition("NOTES:")[2]
    always = ["/healthz", "/health/apiserver", "/health/deployments", "watcher test-notify"]
    for each in (*always, *said):
        assert each.format(name=release.fullname) in notes
    assert "NOBODY" not in release.install({"env": {"A": "b"}}, "--dry-run=client").stdout


def test_the_watcher_ends_before_it_is_killed(release: Release) -> None:
    """Kubernetes waits longer than the twenty seconds that ending takes on a database that hangs."""
    assert spec(release.render({}))["terminationGracePeriodSeconds"] > 20


def test_alerts_and_dashboard_name_metrics_that_exist(release: Release, exported: set[str]) -> None:
    """An alert on a metric that nobody exports would never fire, and nobody would know."""
    objects = release.render(MONITORING)
    rules = find(objects, "PrometheusRule")["spec"]["groups"][0]["rules"]
    told = re.findall(
        r"^\| `(Watcher\w+)` \|", (ROOT / "docs/operations.md").read_text(), re.MULTILINE
    )
    assert sorted(rule["alert"] for rule in rules) == sorted(told)
    assert {rule["labels"]["team"] for rule in rules} == {"platform"}
    [board] = (each for each in objects if each["metadata"]["name"].endswith("-dashboard"))
    panels = json.loads(board["data"]["deployment-watcher.json"])["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    for query in (*(rule["expr"] for rule in rules), *queries):
        names = set(selected(query))
        assert names, query
        assert names <= exported, query


def test_alerts_are_about_this_release(release: Release) -> None:
    """Another watcher's metrics in the same Prometheus neither raise nor hush them."""
    objects = release.render(MONITORING)
    own = {"job": release.fullname, "namespace": release.namespace}
    for rule in find(objects, "PrometheusRule")["spec"]["groups"][0]["rules"]:
        assert list(own.items()) == re.findall(r'(job|namespace)="([^"]+)"', rule["expr"])


def selected(query: str) -> list[str]:
    """Names of the metrics that a PromQL expression reads; raises ValueError if it is none."""
    found: list[str] = []

    def visit(node: object) -> None:
        if isinstance(node, promql_parser.VectorSelector) and node.name:
            found.append(node.name)

    promql_parser.walk(promql_parser.parse(query), visit)
    return found


def find(objects: list[Json], kind: str) -> Json:
    """The one of that kind that is no test."""
    [found] = (each for each in objects if each["kind"] == kind)
    return found


def spec(objects: list[Json], kind: str = "Deployment") -> Json:
    found: Json = find(objects, kind)["spec"]["template"]["spec"]
    return found


def container(objects: list[Json], kind: str = "Deployment") -> Json:
    [found] = spec(objects, kind)["containers"]
    return dict(found)
