"""`service.cli.text`: what people read."""

import json
import time
from collections.abc import Iterator
from datetime import datetime

import pytest
from rich.console import Console

from service.cli.text import as_json, clean, details, moment, span, table, took


@pytest.fixture(autouse=True)
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("at", "shown"),
    [
        ("2026-11-22T05:30:01.999Z", "06:30:01"),
        ("2026-11-21T23:00:00Z", "00:00:00"),  # today in Berlin
        ("2026-11-21T22:59:59Z", "21 Nov 23:59"),
        ("2026-07-01T12:00:00Z", "01 Jul 14:00"),
        ("2025-12-31T23:30:00Z", "01 Jan 00:30"),  # this year in Berlin
        ("2025-12-31T22:30:00Z", "2025-12-31 23:30"),
        (None, ""),
    ],
)
def test_a_moment_is_local_and_as_short_as_it_stays_clear(at: str | None, shown: str) -> None:
    assert moment(at, now=datetime.fromisoformat("2026-11-22T09:00:00Z")) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"),
        (0.85, "850 ms"),
        (3.24, "3.2 s"),
        (59.94, "59.9 s"),
        (60, "1 m 00 s"),
        (124.4, "2 m 04 s"),
        (3599, "59 m 59 s"),
        (3900, "1 h 05 m"),
        (273_600, "3 d 04 h"),
    ],
)
def test_a_span_has_two_units_at_most(seconds: float, shown: str) -> None:
    assert span(seconds) == shown


@pytest.mark.parametrize("seconds", [0.9996, 59.97, 3599.7])
def test_a_span_just_below_a_unit_never_shows_an_impossible_number(seconds: float) -> None:
    assert span(seconds) in {"1.0 s", "1 m 00 s", "1 h 00 m"}


def test_what_took_no_time_or_has_not_ended_is_told_apart() -> None:
    assert took("2026-11-22T05:30:00Z", "2026-11-22T05:30:02.500Z") == "2.5 s"
    assert took("2026-11-22T05:30:00Z", "2026-11-22T05:29:59Z") == "0 ms"
    assert took("2026-11-22T05:30:00Z", None) == ""


def test_what_others_wrote_cannot_command_the_terminal() -> None:
    assert clean("a\x1b[2Jb\x9bc\rd\ne\tf") == "a\ufffd[2Jb\ufffdc\ufffdd\ne\tf"


def test_json_keeps_its_meaning_and_holds_no_raw_control() -> None:
    value = {"a": "\x1b\x7f\x9b", "b": "Köln 夜"}
    text = as_json(value)
    assert json.loads(text) == value
    assert not {"\x1b", "\x7f", "\x9b"} & set(text)
    assert "Köln 夜" in text
    assert as_json(value, ascii_only=True).isascii()


def rendered(value: object) -> str:
    console = Console(width=200, color_system=None)
    with console.capture() as captured:
        console.print(value)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def test_a_table_leaves_out_columns_in_which_nothing_stands() -> None:
    columns = [("A", lambda row: row["a"]), ("B", lambda row: row["b"]), ("C", lambda row: row["c"])]
    rows = [{"a": "1", "b": "", "c": "[red]"}, {"a": "2", "b": "", "c": ""}]
    assert rendered(table(columns, rows)) == "A  C\n1  [red]\n2"


def test_details_show_what_is_set_zero_and_false_too() -> None:
    view = {
        "id": "x",
        "none": None,
        "empty": {},
        "enabled": False,
        "count": 0,
        "inner": {"a": [1]},
        "[b]": "[c]",
    }
    assert rendered(details(view)).splitlines() == [
        "id       x",
        "enabled  false",
        "count    0",
        'inner    {"a": [1]}',
        "[b]      [c]",
    ]
