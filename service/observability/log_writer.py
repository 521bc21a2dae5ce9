"""The log's lines are written in a thread of their own: a disk that is busy with a commit holds up the log, and nothing else.

Written where they are said, they were a fifth of what the loop did while it delivered: each waited for the commit that was
just under way.
"""

import atexit
import io
import json
import os
import queue
import sys
import time
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Final

from service.domain.times import rfc3339, utc_now

# Lines that wait for whoever does not read them; what is said beyond is left out, and counted.
MOST_WAITING: Final = 10_000
# In which lines come together: to wake the thread for each of them takes longer than to write it.
GATHER_S: Final = 0.01
LAST_WORDS_S: Final = 5.0  # that an end waits for them


class LogWriter:
    """To standard error. A log that cannot be written, on a full disk say, must not take the work along that it is about."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[bytes | Event] = queue.SimpleQueue()
        self._left_out = 0
        self._starting = Lock()
        self._thread: Thread | None = None

    def write(self, line: bytes) -> None:
        """Soon, in the order in which they are said.

        Args:
            line: with its end.
        """
        if self._waiting.qsize() >= MOST_WAITING:
            self._left_out += 1
            return
        self._waiting.put(line)
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        """With the first line: once, whichever threads say one at the same time."""
        with self._starting:
            if self._thread is None:
                self._thread = Thread(target=self._work, name="log writer", daemon=True)
                self._thread.start()
                atexit.register(self.flush)

    def flush(self, *, within_s: float = LAST_WORDS_S) -> bool:
        """Whether all that was said before is written."""
        if self._thread is None:
            return True
        written = Event()
        self._waiting.put(written)
        return written.wait(within_s)

    def _work(self) -> None:
        while True:
            together = [self._waiting.get()]
            time.sleep(GATHER_S)
            together += [self._waiting.get() for _ in range(self._waiting.qsize())]
            lines = [each for each in together if isinstance(each, bytes)]
            if self._left_out:
                left_out, self._left_out = self._left_out, 0
                lines.append(_told(left_out))
            _write_out(b"".join(lines))
            for each in together:
                if isinstance(each, Event):
                    each.set()


def _told(left_out: int) -> bytes:
    line = {
        "number": left_out,
        "event": "log.lines_left_out",
        "level": "warning",
        "timestamp": rfc3339(utc_now()),
    }
    return json.dumps(line).encode() + b"\n"


def _write_out(text: bytes) -> None:
    if sys.stderr is None:
        return
    try:
        # Past its buffer: whoever writes into one holds its lock, and an interpreter that ends waits for that one.
        _write_all(sys.stderr.fileno(), text)
    except io.UnsupportedOperation:  # it is no file, as in tests
        with suppress(OSError, ValueError):
            sys.stderr.buffer.write(text)
            sys.stderr.buffer.flush()
    except (OSError, ValueError):  # full, or closed
        return


def _write_all(descriptor: int, text: bytes) -> None:
    left = memoryview(text)
    while left:
        left = left[os.write(descriptor, left) :]
