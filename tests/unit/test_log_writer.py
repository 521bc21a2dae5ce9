"""`service.observability.log_writer`: nobody waits for whoever reads the log."""

import io
import json
import sys
from threading import Event
from typing import Any

import pytest

from service.observability import log_writer
from service.observability.log_writer import LogWriter

LONG_S = 60.0


class Reader(io.RawIOBase):
    """Who reads standard error, as slowly as the test wants."""

    def __init__(self) -> None:
        self.read = b""
        self.asked = Event()
        self.goes_on = Event()
        self.goes_on.set()

    def writable(self) -> bool:
        return True

    def write(self, text: Any) -> int:
        self.asked.set()
        assert self.goes_on.wait(LONG_S)
        self.read += bytes(text)
        return len(text)


def reading(monkeypatch: pytest.MonkeyPatch) -> Reader:
    """Not as a fixture: standard error is another one while these are made."""
    reader = Reader()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(reader)))
    return reader


def test_lines_are_written_in_the_order_in_which_they_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reading(monkeypatch)
    writer = LogWriter()
    lines = [b"%d\n" % number for number in range(1000)]
    for line in lines:
        writer.write(line)
    assert writer.flush(within_s=LONG_S)
    assert reader.read == b"".join(lines)


def test_a_reader_that_is_stuck_holds_up_nobody_and_is_told_how_much_was_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full pipe, or a disk that is busy: what is beyond the cap is not kept for it."""
    reader = reading(monkeypatch)
    monkeypatch.setattr(log_writer, "MOST_WAITING", 10)
    writer = LogWriter()
    reader.goes_on.clear()
    writer.write(b"0\n")
    assert reader.asked.wait(LONG_S)
    for number in range(1, 15):
        writer.write(b"%d\n" % number)  # nobody waits here
    assert not writer.flush(within_s=0)
    reader.goes_on.set()
    assert writer.flush(within_s=LONG_S)
    *lines, told = reader.read.splitlines()
    assert lines == [b"%d" % number for number in range(11)]
    assert (
        json.loads(told).items() >= {"event": "log.lines_left_out", "level": "warning", "number": 4}.items()
    )
    writer.write(b"again\n")
    assert writer.flush(within_s=LONG_S)
    assert reader.read.endswith(b"again\n")


@pytest.mark.parametrize("error", [OSError("full"), ValueError("closed")])
def test_a_log_that_cannot_be_written_ends_nothing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    reader = reading(monkeypatch)

    def refuses(_text: bytes) -> int:
        raise error

    writer = LogWriter()
    with monkeypatch.context() as while_full:
        while_full.setattr(Reader, "write", lambda _self, text: refuses(text))
        writer.write(b"lost\n")
        assert writer.flush(within_s=LONG_S)
    writer.write(b"kept\n")
    assert writer.flush(within_s=LONG_S)
    assert reader.read.endswith(b"kept\n")


def test_nothing_is_written_where_standard_error_is_closed_from_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    writer = LogWriter()
    writer.write(b"nobody reads this\n")
    assert writer.flush(within_s=LONG_S)
