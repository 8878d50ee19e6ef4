"""`watcher run` as a process of its own: start, ask, stop, kill, start again on the same store."""

import http.client
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

from tests.controlplane.client import Client, Json
from tests.controlplane.objects import deployment, deployments
from tests.controlplane.receivers import eventually

ROOT = Path(__file__).parents[2]
START_TIMEOUT = 30
STOP_TIMEOUT = 10
REQUEST_TIMEOUT = 5
LOG_TAIL = 40


class WatcherProcess:
    """One watcher in a folder of its own, which keeps its configuration, its store and its log."""

    def __init__(
        self, folder: Path, config: Json, before: Callable[[], None] | None = None
    ) -> None:
        self.config = {
            "store": {"url": f"sqlite:///{folder / 'watcher.db'}"},
            "web": {"address": "127.0.0.1:0"},
            **config,
        }
        """Written down at each start, so a test may change it before."""
        self._before = before
        """Called in the new process, which then becomes the watcher."""
        self._folder = folder
        self._log = folder / "audit.jsonl"
        self._process: subprocess.Popen[bytes] | None = None
        self._lines_before = 0
        """Of the log, from the starts before this one."""
        self._address = ""

    def start(self) -> None:
        """Returns once it serves, ready or not."""
        file = self.write_config()
        self._lines_before = len(self.audit)
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "watcher", "run", "--config", file],
                cwd=self._folder,
                env={**environment, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                preexec_fn=self._before,
            )
        self._address = eventually(self._served, START_TIMEOUT)

    def write_config(self) -> Path:
        """The file that the next start reads."""
        file = self._folder / "config.yaml"
        file.write_text(json.dumps(self.config))  # JSON is YAML
        return file

    def start_fresh(self, within: float = START_TIMEOUT) -> None:
        """Returns once it is ready and its view is fresh, since before that it judges nobody."""
        self.start()

        def fresh() -> bool:
            ready, _ = self.get("/readyz")
            _, answer = self.get("/health/deployments")
            return ready == http.HTTPStatus.OK and answer["status"] != "unknown"

        eventually(fresh, within, lambda: (self.get("/readyz"), self.get("/health/deployments")))

    def terminate(self) -> int:
        """Ask it to end, as Kubernetes does; gives its exit code."""
        return self._end(signal.SIGTERM)

    def ask_to_end(self) -> None:
        """The same, without waiting for it."""
        assert self._process
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stop it where it stands, until `resume`."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def reload(self, event: str, **changes: object) -> Json:
        """Change these sections, send SIGHUP, and give the line of its log that follows."""
        assert self._process
        before = len(self.lines(event))
        self.config |= changes
        self.write_config()
        self._process.send_signal(signal.SIGHUP)
        return eventually(
            lambda: next(iter(self.lines(event)[before:]), None), instead=lambda: self.audit[-5:]
        )

    def lines(self, *events: str) -> list[Json]:
        """The lines of its log that tell one of these."""
        return [line for line in self.audit if line["event"] in events]

    def resume(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """However it stands, leave nothing behind, and show the end of its log if a test failed."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        print(*self._log_lines()[-LOG_TAIL:], sep="\n")

    @property
    def audit(self) -> list[Json]:
        """The lines of its log, those of earlier starts included."""
        return [json.loads(line) for line in self._log_lines()]

    def get(self, path: str) -> tuple[int, Json]:
        """Status and body of one of its pages."""
        connection = http.client.HTTPConnection(self._address, timeout=REQUEST_TIMEOUT)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def text(self, path: str) -> str:
        """One of its pages that is no JSON."""
        connection = http.client.HTTPConnection(self._address, timeout=REQUEST_TIMEOUT)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    @property
    def log_size(self) -> int:
        return self._log.stat().st_size

    def rows(self, namespace: str) -> list[Json]:
        """Its Deployments as `/health/deployments` has them: none before the first list."""
        _, answer = self.get(f"/health/deployments?namespace={namespace}")
        found: list[Json] = answer.get("deployments", [])
        return found

    def sees(self, namespace: str, name: str, **expected: object) -> Json:
        """Wait until the row of that Deployment has these values."""

        def row() -> Json | None:
            return next((r for r in self.rows(namespace) if r["name"] == name), None)

        def wanted() -> Json | None:
            found = row()
            return found if found and expected.items() <= found.items() else None

        return eventually(wanted, instead=row)

    def catch_up(self, admin: Client, namespace: str) -> None:
        """Wait until it has judged all that has happened so far.

        A watch keeps the order of changes, so one more Deployment, which promises nothing, marks
        the place.
        """
        mark = f"mark-{uuid.uuid4().hex[:8]}"
        admin.create(deployments(namespace), deployment(mark, replicas=0))
        self.sees(namespace, mark, health="scaled_to_zero")
        admin.delete(f"{deployments(namespace)}/{mark}")

    def _served(self) -> str | None:
        """Where this start of it answers, once it does."""
        assert self._process
        if (code := self._process.poll()) is not None:
            raise AssertionError(f"the watcher has ended with {code}")
        lines = self.audit[self._lines_before :]
        return next((line["address"] for line in lines if line["event"] == "process.started"), None)

    def _end(self, how: signal.Signals) -> int:
        assert self._process
        self._process.send_signal(how)
        return self._process.wait(STOP_TIMEOUT)

    def _log_lines(self) -> list[str]:
        written = self._log.read_text() if self._log.exists() else ""
        return written.split("\n")[:-1]  # what has no end yet is still being written
