"""One PgBouncer as a process, on loopback."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import psycopg

from tests.poolers import debian

START_TIMEOUT = 20.0


class PgBouncer:
    """Before the server with that socket; its sessions are lent by transaction, statement or session."""

    def __init__(self, version: str, server: str, mode: str, size: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._version = version
        self._server = Path(server).parent
        self._mode = mode
        self._size = size
        self._folder = Path(tempfile.mkdtemp(prefix="watcher-pgbouncer-"))
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, of: str) -> str:
        """The way through it to a database of the server."""
        return f"postgresql://postgres@127.0.0.1:{self.port}{urlsplit(of).path}"

    def start(self) -> None:
        file = self._folder / "pgbouncer.ini"
        file.write_text(
            f"[databases]\n* = host={self._server} user=postgres\n"
            "[pgbouncer]\nauth_type = any\nlisten_addr = 127.0.0.1\nunix_socket_dir =\n"
            f"listen_port = {self.port}\npool_mode = {self._mode}\ndefault_pool_size = {self._size}\n"
        )
        # It will not be root, and turns into who may enter the server's folder once it has started.
        owner = pwd.getpwuid(self._server.stat().st_uid).pw_name
        user = ["-u", owner] if os.geteuid() == 0 else []
        command = [*debian.command(self._version), *user, str(file)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert self._process.poll() is None, self._log()
                assert time.monotonic() < deadline, self._log()
                time.sleep(0.02)

    def stop(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def show(self, of: str, setting: str) -> str:
        """What another client finds set, in whichever session it is lent."""
        with psycopg.connect(self.url(of), autocommit=True) as other:
            found = other.execute(f"SHOW {setting}".encode()).fetchone()
        assert found
        return str(found[0])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        print(self._log())
        shutil.rmtree(self._folder)

    def _log(self) -> str:
        return (self._folder / "log").read_text()
