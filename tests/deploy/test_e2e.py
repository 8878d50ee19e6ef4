"""What the workflow runs on kind runs here too, on the real API server with pods as processes."""

import contextlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.controlplane.plane import ControlPlane
from tests.deploy.node import Node
from tests.postgres import Postgres

SCRIPT = Path(__file__).parents[2] / "deploy" / "e2e" / "run"
LIMIT = 160


def test_sqlite(
    commands: Mapping[str, Path], cluster: ControlPlane, node: Node, tmp_path: Path
) -> None:
    """Installed, asked, told of what breaks and of its end, upgraded, uninstalled."""
    end_to_end("sqlite", commands, cluster, node, tmp_path)


def test_postgresql(
    commands: Mapping[str, Path],
    cluster: ControlPlane,
    node: Node,
    tmp_path: Path,
    postgres: Postgres,
) -> None:
    """The same with two replicas, behind a migration job that really migrates."""
    url = postgres.database()
    end_to_end("postgresql", commands, cluster, node, tmp_path, DATABASE_URL=url)


def end_to_end(
    store: str,
    commands: Mapping[str, Path],
    cluster: ControlPlane,
    node: Node,
    folder: Path,
    **variables: str,
) -> None:
    namespace = f"e2e-{store}"
    kubeconfig = cluster.write_kubeconfig(folder / "kubeconfig", "admin")
    node.run_pods_of(namespace, folder, kubeconfig)
    env = {
        "PATH": f"{commands['helm'].parent}:{os.environ['PATH']}",
        "KUBECONFIG": str(kubeconfig),
        "HOME": str(folder),  # Helm and kubectl keep caches there
        **variables,
    }
    said = folder / "run.log"
    code: int | None = None
    with said.open("w") as output, contextlib.suppress(subprocess.TimeoutExpired):
        code = subprocess.run(
            [SCRIPT, store, namespace],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=LIMIT,
            check=False,
        ).returncode
    print(node.logs(namespace))
    assert code == 0, f"{code} (None: not within {LIMIT} s)\n{said.read_text()}"
    assert said.read_text().endswith(f"== done: {store}\n")
