"""A volume that turns read-only under a running process, by what the kernel answers to its writes.

No mount can be made read-only while a file on it is open for writing, except by a file system's own
emergency. So a seccomp filter asks the test about each `pwrite`, which is how SQLite writes.
"""

import array
import ctypes
import errno
import fcntl
import os
import platform
import socket
import struct
import threading
from typing import Final, Self

_NUMBERS: Final = {"x86_64": (317, 18), "aarch64": (277, 68)}  # of seccomp and pwrite64
_RECEIVE, _ANSWER = 0xC0502100, 0xC0182101
_NO_NEW_PRIVILEGES: Final = 38
_LOAD, _EQUALS, _RETURN = 0x20, 0x15, 0x06
_ASK, _ALLOW = 0x7FC00000, 0x7FFF0000
_CONTINUE: Final = 1


class ReadOnly:
    """Answers for one process, which calls `enter` before it becomes the program."""

    def __init__(self) -> None:
        self.on = False
        self.refused = 0
        self._ours, self._theirs = socket.socketpair()
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._libc = ctypes.CDLL(None, use_errno=True)

    def enter(self) -> None:
        """Let us decide over its writes from now on. Raises OSError where the kernel does not."""
        seccomp, pwrite = _NUMBERS[platform.machine()]
        lines = ((_LOAD, 0, 0, 0), (_EQUALS, 0, 1, pwrite), (_RETURN, 0, 0, _ASK))
        code = b"".join(struct.pack("=HBBI", *line) for line in (*lines, (_RETURN, 0, 0, _ALLOW)))
        program = ctypes.create_string_buffer(code, len(code))
        pointed = struct.pack("@HP", 4, ctypes.addressof(program))
        self._libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        asks = self._libc.syscall(seccomp, 1, 1 << 3, ctypes.c_char_p(pointed))
        if asks < 0:
            raise OSError(ctypes.get_errno(), "seccomp")
        self._theirs.sendmsg(
            [b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [asks]))]
        )
        os.close(asks)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """The process has ended by now, or never began."""
        self._theirs.close()
        self._thread.join(10)
        self._ours.close()

    def _answer(self) -> None:
        _, received, _, _ = socket.recv_fds(self._ours, 1, 1)
        for asks in received:
            self._answer_to(asks)

    def _answer_to(self, asks: int) -> None:
        while True:
            request = bytearray(80)
            try:
                fcntl.ioctl(asks, _RECEIVE, request)
                [key] = struct.unpack_from("=Q", request)
                error, flags = (-errno.EROFS, 0) if self.on else (0, _CONTINUE)
                self.refused += self.on
                fcntl.ioctl(asks, _ANSWER, struct.pack("=QqiI", key, 0, error, flags))
            except OSError:  # it is gone
                os.close(asks)
                return
