"""Releases on a real API server: what Helm makes, in which order, and what it leaves behind."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.controlplane.client import ApiError, Client, Json
from tests.controlplane.objects import deployments, pods, settled
from tests.controlplane.plane import ControlPlane
from tests.controlplane.receivers import eventually
from tests.deploy.node import Node, PodProcess, ended
from tests.deploy.release import Release
from tests.postgres import Postgres

POSTGRESQL: Json = {
    "store": {"type": "postgresql", "postgresql": {"existingSecret": "database"}},
    "migration": {"backoffLimit": 0},
    "replicaCount": 2,
}
REAL: Json = {"image": {"repository": "deployment-watcher", "tag": "e2e"}}
JOBS = "/apis/batch/v1/namespaces/{}/jobs"


@pytest.fixture
def admin(cluster: ControlPlane) -> Client:
    return cluster.admin


@pytest.fixture
def app(release: Release) -> str:
    """The path of the release's Deployment."""
    return f"{deployments(release.namespace)}/{release.fullname}"


def test_a_failed_migration_fails_the_release(
    release: Release, node: Node, admin: Client, app: str
) -> None:
    """Nothing of the application is there; the job that failed is, for its log."""
    node.mark(release.namespace, "", ended(1))
    done = release.install(POSTGRESQL)
    assert done.returncode == 1
    assert f"{release.fullname}-migrate" in done.stderr
    with pytest.raises(ApiError, match="NotFound"):
        admin.get(app)
    [job] = admin.list(JOBS.format(release.namespace))
    assert job["status"]["failed"] == 1
    assert job["spec"]["ttlSecondsAfterFinished"] > 0

    release.helm("uninstall", release.name)
    assert kinds_left(release) == {"job.batch", "pod"}  # until its time to live is over


def test_the_application_comes_after_its_migration(
    release: Release, node: Node, admin: Client, app: str
) -> None:
    """The job's pod is admitted, which takes an account; then the rest is made, and the job goes."""
    before: list[str] = []

    def migrated(pod: Json) -> Json:
        before.extend(
            each["metadata"]["name"] for each in admin.list(deployments(release.namespace))
        )
        return ended(0)(pod)

    node.mark(release.namespace, "", migrated)
    done = release.install(POSTGRESQL)
    assert done.returncode == 0, done.stderr
    admin.wait_for(app, settled)
    assert before == []
    assert admin.list(JOBS.format(release.namespace)) == []
    accounts = admin.list(f"/api/v1/namespaces/{release.namespace}/serviceaccounts")
    names = {account["metadata"]["name"] for account in accounts}
    assert names == {"default", release.fullname}  # the migration's went with it


def test_an_upgrade_that_cannot_migrate_changes_nothing(
    release: Release, node: Node, admin: Client, app: str
) -> None:
    """The running version goes on as it was."""
    node.mark(release.namespace, "", ended(0))
    assert release.install(POSTGRESQL).returncode == 0
    before = admin.wait_for(app, settled)
    running = names(admin.list(pods(release.namespace)))

    node.mark(release.namespace, "", ended(1))
    done = release.upgrade({**POSTGRESQL, "image": {"tag": "0.2.0"}, "env": {"NEW": "1"}})
    assert done.returncode == 1
    after = admin.get(app)
    assert after["spec"] == before["spec"]
    left = admin.list(pods(release.namespace))
    assert names(pod for pod in left if "migrate" not in pod["metadata"]["name"]) == running

    node.mark(release.namespace, "", ended(0))
    assert release.upgrade({**POSTGRESQL, "image": {"tag": "0.2.0"}}).returncode == 0
    found = admin.wait_for(app, lambda each: settled(each) and image(each).endswith(":0.2.0"))
    assert found["metadata"]["uid"] == before["metadata"]["uid"]


def test_only_a_release_migrates(release: Release, node: Node, admin: Client, app: str) -> None:
    """Neither scaling nor pods that come back start a job."""
    node.mark(release.namespace, "", ended(0))
    assert release.install(POSTGRESQL).returncode == 0
    admin.wait_for(app, settled)
    release.kubectl("scale", "--replicas=3", f"deployment/{release.fullname}")
    before = names(admin.list(pods(release.namespace)))
    release.kubectl("delete", "pods", "--all")
    found = admin.wait_for(app, lambda each: settled(each) and each["status"]["replicas"] == 3)
    assert found["spec"]["replicas"] == 3
    assert names(admin.list(pods(release.namespace))).isdisjoint(before)
    assert admin.list(JOBS.format(release.namespace)) == []


def test_uninstalled_without_a_trace(release: Release, node: Node, admin: Client) -> None:
    node.mark(release.namespace, "", ended(0))
    everything = {
        **POSTGRESQL,
        "networkPolicy": {"enabled": True},
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True},
        "rbac": {"causes": True},
    }
    assert release.install(everything).returncode == 0
    release.helm("test", release.name)
    assert kinds_left(release) >= {
        "deployment.apps",
        "clusterrole.rbac.authorization.k8s.io",
        "secret",
    }
    release.helm("uninstall", release.name, "--wait")
    eventually(lambda: not kinds_left(release), instead=lambda: kinds_left(release))


def test_the_claim_outlives_the_release(release: Release, admin: Client) -> None:
    """Helm names what it keeps, and a release of the same name takes it up again."""
    assert release.install({}).returncode == 0
    told = release.helm("uninstall", release.name)
    assert f"[PersistentVolumeClaim] {release.fullname}" in told
    left = "persistentvolumeclaim"
    eventually(lambda: kinds_left(release) == {left}, instead=lambda: kinds_left(release))
    again = release.install({})
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("values", "everywhere", "inside"),
    [
        pytest.param({}, {"deployments.apps"}, {"deployments.apps"}, id="cluster-wide"),
        pytest.param(
            {"rbac": {"causes": True}},
            {"deployments.apps", "replicasets.apps", "pods", "events"},
            {"deployments.apps", "replicasets.apps", "pods", "events"},
            id="with causes",
        ),
        pytest.param({"namespaces": ["HERE"]}, set(), {"deployments.apps"}, id="one namespace"),
        pytest.param({"rbac": {"create": False}}, set(), set(), id="none"),
    ],
)
def test_what_the_account_may(
    release: Release, values: Json, everywhere: set[str], inside: set[str]
) -> None:
    """Read what is switched on, and nothing else of any kind."""
    here = {key: [release.namespace] if key == "namespaces" else values[key] for key in values}
    assert release.install(here).returncode == 0
    account = f"system:serviceaccount:{release.namespace}:{release.fullname}"
    assert allowed(release, account, "default") == dict.fromkeys(everywhere, READ)
    assert allowed(release, account, release.namespace) == dict.fromkeys(inside, READ)


READ = "[get list watch]"


def allowed(release: Release, account: str, namespace: str) -> dict[str, str]:
    """Resources and verbs beyond what any account may, which differs between versions of Kubernetes."""
    anybody = f"system:serviceaccount:{release.namespace}:anybody"
    common = listed(release, anybody, namespace)
    own = listed(release, account, namespace)
    return {name: verbs for name, verbs in own.items() if common.get(name) != verbs}


def listed(release: Release, account: str, namespace: str) -> dict[str, str]:
    """What the API server says that an account may, but for paths of no resource."""
    told = release.kubectl(
        "auth", "can-i", "--list", "--no-headers", f"--as={account}", f"--namespace={namespace}"
    )
    rows = [line for line in told.splitlines() if not line.startswith(" ")]
    return {row.split()[0]: row[row.rindex("[") :] for row in rows}


@pytest.fixture
def real(
    release: Release, node: Node, cluster: ControlPlane, tmp_path: Path
) -> Iterator[Callable[[], list[PodProcess]]]:
    """Gives the processes of the release's pods: this namespace really runs them."""
    kubeconfig = cluster.write_kubeconfig(tmp_path / "where", "admin")
    node.run_pods_of(release.namespace, tmp_path, kubeconfig)
    yield lambda: node.of(release.namespace)
    for process in node.of(release.namespace):
        process.stop()
    print(node.logs(release.namespace))


def test_it_runs_as_it_is_rendered(
    release: Release, real: Callable[[], list[PodProcess]], admin: Client, app: str
) -> None:
    """With the pod's variables, arguments, configuration and account it answers all its probes."""
    values = {**REAL, "env": {"WATCHER_HEALTH__DEGRADED_FOR": "30s"}}
    done = release.install(values, "--wait", "--timeout=30s")
    assert done.returncode == 0, done.stderr
    [process] = real()
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert process.answers(process.container[name]) == 200, name
    admin.wait_for(app, settled)


def test_it_follows_one_namespace_with_no_right_to_more(
    release: Release, real: Callable[[], list[PodProcess]]
) -> None:
    """Namespaced Roles are enough for what the chart then configures."""
    done = release.install({"namespaces": [release.namespace], **REAL}, "--wait", "--timeout=30s")
    assert done.returncode == 0, done.stderr
    [process] = real()
    rows = process.page("/health/deployments")["deployments"]
    seen = [(row["namespace"], row["name"]) for row in rows]
    assert seen == [(release.namespace, release.fullname)]


def test_a_change_of_the_configuration_takes_effect(
    release: Release, real: Callable[[], list[PodProcess]], admin: Client, app: str
) -> None:
    """By a new pod, which waits until the old one has let go of the store."""
    assert release.install(REAL, "--wait", "--timeout=30s").returncode == 0
    changed = {**REAL, "config": {"clusters": [{"name": "renamed"}]}}
    done = release.upgrade(changed, "--wait", "--timeout=30s")
    assert done.returncode == 0, done.stderr
    admin.wait_for(app, settled)
    old, new = real()
    assert not old.is_ready
    assert {row["cluster"] for row in new.page("/health/deployments")["deployments"]} == {"renamed"}


@pytest.fixture
def database(release: Release, admin: Client, postgres: Postgres) -> str:
    """The URL of an empty database, which is in the Secret that the chart is told of."""
    url = postgres.database()
    secret = {"metadata": {"name": "database"}, "stringData": {"url": url}}
    admin.create(f"/api/v1/namespaces/{release.namespace}/secrets", secret)
    return url


def test_an_older_schema_is_left_to_the_migration(
    release: Release, real: Callable[[], list[PodProcess]], app: str, admin: Client, database: str
) -> None:
    """Without the hook the watcher starts, says what is missing and is not ready; with it, it is."""
    assert release.install({**POSTGRESQL, **REAL}, "--no-hooks").returncode == 0
    first = eventually(lambda: next(iter(real()), None))
    said = eventually(lambda: first.said() if "watcher migrate" in first.said() else None)
    assert "has no schema yet" in said
    assert not any(process.is_ready for process in real())

    done = release.upgrade({**POSTGRESQL, **REAL, "podAnnotations": {"a": "b"}}, "--wait")
    assert done.returncode == 0, done.stderr
    admin.wait_for(app, settled)
    migration = next(process for process in real() if "migrate" in process.name)
    assert "schema created at " in migration.said()


def test_a_migration_that_cannot_reach_its_database(
    release: Release, real: Callable[[], list[PodProcess]], admin: Client
) -> None:
    """The release fails with the job, whose log says why without the password."""
    url = "postgresql://watcher:pa55word@127.0.0.1:1/watcher"
    secret = {"metadata": {"name": "database"}, "stringData": {"url": url}}
    admin.create(f"/api/v1/namespaces/{release.namespace}/secrets", secret)
    assert release.install({**POSTGRESQL, **REAL}).returncode == 1
    [migration] = real()
    assert "onnection refused" in migration.said()
    assert "pa55word" not in migration.said()


def kinds_left(release: Release) -> set[str]:
    """Kinds of which the release, or Helm's record of it, still has an object."""
    listed = release.kubectl("api-resources", "--verbs=list,delete", "--output=name").split()
    kinds = ",".join(kind for kind in listed if not kind.startswith("events"))
    labels = f"app.kubernetes.io/instance={release.name}", "owner=helm"
    found = [
        release.kubectl("get", kinds, f"--selector={label}", "--output=name", "--ignore-not-found")
        for label in labels
    ]
    # Other tests have releases of this name in namespaces of their own.
    theirs = re.compile(rf"clusterrole\w*\.[^/]+/(?!{release.namespace})")
    return {line.partition("/")[0] for line in "".join(found).split() if not theirs.match(line)}


def names(objects: Iterable[Json]) -> set[str]:
    return {each["metadata"]["name"] for each in objects}


def image(found: Json) -> str:
    name: str = found["spec"]["template"]["spec"]["containers"][0]["image"]
    return name
