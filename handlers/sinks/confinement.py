"""What a borrowed library may do in its thread: dial judged addresses, read what is installed. Nothing else.

For honest code that is given hostile URLs: it judges what Python itself does (PEP 578), at the moment when it is done,
so neither a second look-up nor a redirect leads past it. It does not see what a C extension or another thread does.
"""

import ipaddress
import mimetypes
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, Final
from weakref import WeakSet

from service.network.dialler import Guard

_FAMILIES: Final = frozenset({socket.AF_INET, socket.AF_INET6})
_DIALS: Final = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_FORBIDDEN: Final = ("subprocess.", "os.", "pty.", "shutil.", "socket.bind")
_HARMLESS: Final = frozenset({"os.listdir", "os.scandir"})  # imports look around
_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_READABLE: Final = tuple(
    os.path.realpath(path)
    for path in (
        sys.prefix, sys.base_prefix, "/usr/share", "/usr/lib", "/etc/ssl", "/etc/pki", "/dev/urandom",
        *mimetypes.knownfiles,
    )
)  # fmt: skip

_here = threading.local()


LONGEST_PAUSE_S: Final = 6.0  # that a library may make of itself; nothing wakes it


class Confinement:
    """
    Args:
        guard: judges what is dialled; without one nothing is.
    """

    def __init__(self, guard: Guard | None) -> None:
        self._guard = guard
        self.refusal: str | None = None  # the first one, in words for the endpoint's owner
        self.is_cut = False
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._lock = threading.RLock()  # a socket may be made while another is collected

    def cut(self) -> None:
        """From another thread: what it waits for ends now, and it opens nothing more. A thread ends no other way."""
        with self._lock:
            self.is_cut = True
            self.refusal = self.refusal or "it took too long"
            used = list(self._sockets)
        for one in used:
            with suppress(OSError):  # not connected, or closed
                # past TLS, which would go on in the clear and is in use by its own thread
                socket.socket.shutdown(one, socket.SHUT_RDWR)

    def pause(self, seconds: float) -> None:
        """The library is about to sleep.

        Raises:
            PermissionError: it may not, or not so long.
        """
        if self.is_cut or seconds > LONGEST_PAUSE_S:
            self._refuse("it took too long")

    def judge(self, event: str, arguments: tuple[Any, ...]) -> None:
        """
        Raises:
            PermissionError: this is not done here.
        """
        if event == "socket.__new__":
            self._remember(arguments[0])
        elif event in _DIALS:
            if self.is_cut:
                self._refuse("it took too long")
            if not self._may_dial(*arguments[:2]):
                self._refuse("it leads to an address that is not dialled")
        elif event == "open":
            if _writes(arguments[2]):  # an import that would keep its bytecode is not worth a word
                raise PermissionError
            if not _may_read(arguments[0]):
                self._refuse("it wants a file of this machine")
        elif event.startswith(_FORBIDDEN) and event not in _HARMLESS:
            raise PermissionError

    def _remember(self, made: socket.socket) -> None:
        with self._lock:
            if self.is_cut:
                self._refuse("it took too long")
            self._sockets.add(made)

    def _may_dial(self, used: socket.socket, address: object) -> bool:
        if address is None:  # to where it is connected already
            return True
        if self._guard is None or used.family not in _FAMILIES or not isinstance(address, tuple):
            return False
        try:
            target = ipaddress.ip_address(str(address[0]).partition("%")[0])
        except ValueError:  # a name: it would be looked up past the guard
            return False
        return self._guard.refusal(target) is None

    def _refuse(self, why: str) -> None:
        self.refusal = self.refusal or why
        raise PermissionError(why)


def _writes(flags: object) -> bool:
    return not isinstance(flags, int) or bool(flags & _WRITES)


def _may_read(path: object) -> bool:
    if isinstance(path, int):  # an open file
        return True
    if not isinstance(path, str | bytes | os.PathLike):
        return False
    real = os.path.realpath(os.fsdecode(path))
    return any(real == allowed or real.startswith(allowed + os.sep) for allowed in _READABLE)


@contextmanager
def confined(by: Guard | Confinement | None) -> Iterator[Confinement]:
    """This thread, until the block ends."""
    _watch()
    _here.confinement = confinement = by if isinstance(by, Confinement) else Confinement(by)
    try:
        yield confinement
    finally:
        del _here.confinement


@cache
def _watch() -> None:
    """Once for the process: such a hook is never taken away again."""
    sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    confinement: Confinement | None = getattr(_here, "confinement", None)
    if confinement is not None:
        confinement.judge(event, arguments)
