"""A byte stream cut into lines at 0x0A and nowhere else, in linear time."""

from watcher.errors import Expired


class LineBuffer:
    """Keeps the unfinished line between chunks; chunk borders may fall anywhere.

    Text is decoded only when a line is whole: U+0085 and U+2028 inside of JSON strings and cut
    multi-byte characters cannot break one.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that `chunk` completes; raises Expired on one over the limit."""
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines and self._parts:
            self._parts.append(lines[0])
            lines[0] = b"".join(self._parts)
            self._parts.clear()
            self._size = 0
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
            if self._size > self._limit:
                raise Expired(f"an event of more than {self._limit} bytes")
        return lines

    @property
    def unfinished(self) -> bool:
        """Whether bytes without their newline are left."""
        return bool(self._parts)
