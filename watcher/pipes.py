"""Standard output and error may be pipes that nobody reads: they hold up neither work nor its end."""

import os
import stat
import threading
from typing import ClassVar, Final, TextIO

import structlog

_MOST: Final = 4000
"""Lines that may wait for a reader, beside those that are being written."""
_PARTING_SECONDS: Final = 2.0


def write(text: str, stream: TextIO) -> None:
    """Past the stream's buffer: what is stuck there would hold up the end of the process.

    Raises OSError, or ValueError for a closed file.
    """
    encoding = stream.encoding or "utf-8"  # a terminal may know no more than ASCII
    data = text.encode(encoding, "backslashreplace")
    if (file := _file(stream)) is None:
        stream.write(data.decode(encoding))
        stream.flush()
        return
    while data:
        data = data[os.write(file, data) :]


def silence(stream: TextIO) -> None:
    """Let it lead nowhere from now on, also what is in its buffer."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Log:
    """Lines for a stream, in order, which one thread writes; those that find no room are dropped."""

    dropped: ClassVar = 0
    """Lines that nobody will read, of this process."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._waiting: list[str] = []
        self._missing = 0
        self._busy = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Take a line to be written; never blocks."""
        with self._changed:
            own = threading.current_thread() is self._thread  # which tells of others
            if len(self._waiting) < _MOST or own:
                self._waiting.append(line)
                self._changed.notify_all()
            else:
                self._missing += 1
                Log.dropped += 1

    def end(self) -> None:
        """Give a reader a moment to take the rest; without one, write nothing any more."""
        with self._changed:
            if self._changed.wait_for(self._empty, _PARTING_SECONDS):
                return
        silence(self._stream)

    def _empty(self) -> bool:
        return not (self._waiting or self._busy or self._missing)

    def _write(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting)
                lines, self._waiting, self._busy = self._waiting, [], True
            try:
                write("".join(lines), self._stream)
            except (OSError, ValueError):  # nobody can read any more
                Log.dropped += len(lines)
            with self._changed:
                missing, self._missing = self._missing, 0
            if missing:
                structlog.stdlib.get_logger("watcher").warning("log.dropped", lines=missing)


_logs: Final[dict[TextIO, Log]] = {}


def log(stream: TextIO) -> Log | TextIO:
    """Return what to write lines for `stream` to: itself, if that does not depend on a reader."""
    file = _file(stream)
    if file is None or stat.S_ISREG(os.fstat(file).st_mode):
        return stream
    if stream not in _logs:
        _logs[stream] = Log(stream)
    return _logs[stream]


def end() -> None:
    """End every log, before anything else is written or the process ends."""
    for each in _logs.values():
        each.end()


def _file(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):  # a stream in memory, or a closed one
        return None
