"""A database with years behind it: the rows of a few real tasks, copied a million times by SQL.

`python -m benchmarks.history FILE --tasks 1000000` makes one to look into: it has 4 events, 4 deliveries, 4 attempts, 3
transitions and 2 callbacks for each task. Moments are spread evenly over the past; ids grow with them, as real ones do.
One task in 50 failed; one delivery in 4,000 is a dead letter; tasks belong to 1,000 customers, by their metadata.
"""

import argparse
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import stay_with_the_load
from benchmarks.open_loop import send
from benchmarks.plan import Plan, Stage
from benchmarks.processes import until
from benchmarks.stores import Store, opened
from benchmarks.tasks import SUBMIT, Made, Tasks

SPAN_DAYS: Final = 36
CHUNK: Final = 20_000
IDS: Final = {  # of each table: columns with the ids of what is copied, and how these begin
    "tasks": {"id": "task"},
    "task_metadata": {"task_id": "task"},
    "transitions": {"task_id": "task"},
    "callbacks": {"id": "cbk", "task_id": "task"},
    "events": {"id": "evt", "task_id": "task"},
    "deliveries": {"id": "dlv", "event_id": "evt", "task_id": "task"},
    "attempts": {"delivery_id": "dlv"},
}
TABLES: Final = tuple(IDS)


@dataclass(frozen=True, slots=True)
class Life:
    """Of one task, as it is stored: its id, and the ids of all that is about it."""

    task_id: str
    parts: Sequence[str]  # events, deliveries, callbacks
    began: int  # milliseconds


def fill(stage: Stage, tasks: Tasks, number: int) -> None:
    """So many tasks more, and all that belongs to them. Klingel is stopped meanwhile, and stays so."""
    one, world = stage.klingel, stage.world
    until(lambda: not one.pending(), "what was on its way before")
    before = world.arrived()
    ids = _live(stage, tasks, "succeed", "failed")
    until(lambda: world.arrived() == before + 8 and not one.pending(), "the webhooks of both")
    one.stop()
    with opened(one.database) as store:
        lives = [_life(store, task_id) for task_id in ids]
        lean = _lean_sqlite(store) if one.database.startswith("sqlite:") else nullcontext()
        began = round(time.time() * 1000) - SPAN_DAYS * 86_400_000
        moment = f"({began} + cast(series.n * {SPAN_DAYS * 86_400_000 / number:.6f} as bigint))"
        with lean:
            for table in TABLES:
                store.run(_model(table, lives))
                for first in range(1, number + 1, CHUNK):
                    store.run(_copies(store, table, moment, first=first, last=min(first + CHUNK - 1, number)))
        if one.database.startswith("postgresql:"):
            store.run("select setval('event_positions', (select max(position) from events))")


@contextmanager
def _lean_sqlite(store: Store) -> Iterator[None]:
    """Nothing is lost if this is: the file is made anew. Indexes that are made afterwards are made faster."""
    for pragma in ("journal_mode = off", "synchronous = off", "cache_size = -1000000", "temp_store = memory"):
        store.run(f"pragma {pragma}")
    named = ", ".join(f"'{table}'" for table in TABLES)
    of_these = f"from sqlite_master where type = 'index' and sql is not null and tbl_name in ({named})"
    listed = json.loads(store.one(f"select json_group_array(json_array(name, sql)) {of_these}"))
    for name, _ in listed:
        store.run(f"drop index {name}")
    yield
    for _, made_by in listed:
        store.run(made_by)
    store.run("pragma journal_mode = wal")


def _live(stage: Stage, tasks: Tasks, *ends: str) -> list[str]:
    """A task for each end, from its submit to there, overdue on the way: 4 events."""
    one = stage.klingel
    ids = [
        one.call("POST", "/v1/tasks", **SUBMIT, deadline_s=1, metadata={"customer": "c0"})["id"] for _ in ends
    ]

    def lives() -> list[dict[str, Any]]:
        return [one.call("GET", f"/v1/tasks/{task_id}") for task_id in ids]

    until(lambda: all(task["overdue_at"] and task["provider_task_id"] for task in lives()), "the deadlines")
    for task, end in zip(lives(), ends, strict=True):
        made = Made(task["id"], task["external_task_id"], task["provider_task_id"])
        for word in ("processing", end):
            send(one.server, [tasks.callback(made, word)], a_second=100)
    return ids


def _life(store: Store, task_id: str) -> Life:
    parts: list[str] = []
    for table in ("events", "deliveries", "callbacks"):
        number: int = store.one(f"select count(*) from {table} where task_id = ?", task_id)
        assert number == {"events": 4, "deliveries": 4, "callbacks": 2}[table], (table, number)
        parts += [
            store.one(
                f"select id from {table} where task_id = ? order by id limit 1 offset {offset}", task_id
            )
            for offset in range(number)
        ]
    return Life(task_id, parts, store.one("select created_at from tasks where id = ?", task_id))


def _model(table: str, lives: Sequence[Life]) -> str:
    """The statement that sets the rows aside that are to be copied: whose they are, and which place each id has there."""
    places = " ".join(
        f"when '{part}' then {place}"
        for life in lives
        for place, part in enumerate((life.task_id, *life.parts))
    )
    numbered = [f"case rows.{column} {places} end as place_of_{column}" for column in IDS[table]]
    succeeded, failed = lives
    owner = {
        "tasks": "rows.id",
        "attempts": "(select task_id from deliveries where id = rows.delivery_id)",
    }.get(table, "rows.task_id")
    return (
        f"create temp table model_{table} as select rows.*, {', '.join(numbered)}, "
        f"case {owner} when '{failed.task_id}' then 1 else 0 end as has_failed, "
        f"case {owner} when '{failed.task_id}' then {failed.began} else {succeeded.began} end as began "
        f"from {table} as rows where {owner} in ('{succeeded.task_id}', '{failed.task_id}')"
    )


def _copies(store: Store, table: str, moment: str, *, first: int, last: int) -> str:
    """The statement that makes the rows of a table for tasks `first` to `last`. Ids grow with the number of the task, then
    with the place in it.
    """
    changed = {
        column: store.new_id(kind, moment, f"series.n * 16 + old.place_of_{column}")
        for column, kind in IDS[table].items()
    }
    dead = "series.n % 1000 = 7 and old.event_type = 'task.succeeded'"
    changed |= {
        "tasks": {
            "external_task_id": "'order-' || series.n",
            "provider_external_id": changed.get("id", ""),
            "provider_task_id": "'theirs-' || series.n",
            "metadata": "'{\"customer\": \"c' || (series.n % 1000) || '\"}'",
        },
        "task_metadata": {"value": "'c' || (series.n % 1000)"},
        "events": {"position": "1000 + series.n * 4 + old.sequence"},
        "deliveries": {"status": f"case when {dead} then 'dead' else old.status end"},
    }.get(table, {})
    columns = store.columns(table)
    picked = [
        changed.get(name, f"old.{name} - old.began + {moment}" if _is_moment(name) else f"old.{name}")
        for name in columns
    ]
    return (
        f"insert into {table} ({', '.join(columns)}) select {', '.join(picked)} from {store.series(first, last)} "
        f"join model_{table} as old on old.has_failed = case when series.n % 50 = 0 then 1 else 0 end order by series.n"
    )


def _is_moment(column: str) -> bool:
    return column == "at" or column.endswith("_at")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="where the database goes")
    parser.add_argument("--tasks", type=int, default=1_000_000)
    given = parser.parse_args()
    stay_with_the_load()
    with Plan().stage("history") as stage:
        stage.klingel.subscribe(*stage.world.hooks(1))
        fill(stage, Tasks(stage.klingel, stage.world), given.tasks)
        with (
            closing(sqlite3.connect(stage.klingel.database.removeprefix("sqlite:///"))) as made,
            closing(sqlite3.connect(given.file)) as kept,
        ):
            made.backup(kept)


if __name__ == "__main__":
    main()
