"""A database with years behind it: the rows of a few real tasks, copied a million times by SQL.

`python -m benchmarks.history FILE --tasks 1000000` makes one to look into: it has 4 events, 4 deliveries, 4 attempts, 3
transitions and 2 callbacks for each task. Moments are spread evenly over the past; ids grow with them, as real ones do.
One task in 50 failed; one delivery in 4,000 is a dead letter; tasks belong to 1,000 customers, by their metadata.
"""

import argparse
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
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
TABLES: Final = ("tasks", "transitions", "callbacks", "events", "deliveries", "attempts")
OF_A_TASK: Final = {
    "tasks": "id",
    "attempts": "delivery_id",
}  # what names the task, or the delivery; else `task_id`


@dataclass(frozen=True, slots=True)
class Life:
    """Of one task, as it is stored: its id, and the ids of all that is about it."""

    task_id: str
    parts: Sequence[str]  # events, deliveries, callbacks
    began: int  # milliseconds


def fill(stage: Stage, tasks: Tasks, number: int) -> None:
    """So many tasks more, and all that belongs to them. Klingel is stopped meanwhile, and stays so."""
    one, world = stage.klingel, stage.world
    before = world.arrived()
    ids = [_live(stage, tasks, word) for word in ("succeed", "failed")]
    until(lambda: world.arrived() == before + 8 and not one.pending(), "the webhooks of both")
    one.stop()
    with opened(one.database) as store:
        lives = [_life(store, task_id) for task_id in ids]
        if one.database.startswith("sqlite:"):
            # Nothing is lost if this is: the file is made anew.
            for pragma in ("journal_mode = off", "synchronous = off", "cache_size = -1000000"):
                store.run(f"pragma {pragma}")
        began = round(time.time() * 1000) - SPAN_DAYS * 86_400_000
        step = SPAN_DAYS * 86_400_000 / number
        for table in TABLES:
            for first in range(1, number + 1, CHUNK):
                last = min(first + CHUNK - 1, number)
                store.run(_copies(store, table, lives, first=first, last=last, began=began, step=step))
        if one.database.startswith("sqlite:"):
            store.run("pragma journal_mode = wal")


def _live(stage: Stage, tasks: Tasks, word: str) -> str:
    """One task from its submit to its end, overdue on the way: 4 events."""
    one = stage.klingel
    task = one.call("POST", "/v1/tasks", **SUBMIT, deadline_s=1, metadata={"customer": "c0"})

    def is_overdue() -> bool:
        nonlocal task
        task = one.call("GET", f"/v1/tasks/{task['id']}")
        return task["overdue_at"] is not None and task["provider_task_id"] is not None

    until(is_overdue, "the deadline")
    made = Made(task["id"], task["external_task_id"], task["provider_task_id"])
    for state in ("processing", word):
        send(one.server, [tasks.callback(made, state)], a_second=100)
    return made.id


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


def _copies(
    store: Store, table: str, lives: Sequence[Life], *, first: int, last: int, began: int, step: float
) -> str:
    """The statement that makes the rows of a table for tasks `first` to `last`."""
    succeeded, failed = lives
    moment = f"({began} + cast(series.n * {step:.6f} as bigint))"
    shift = f"({moment} - case when series.n % 50 = 0 then {failed.began} else {succeeded.began} end)"

    def new_id(column: str) -> str:
        """Keeps its kind; grows with the number of its task, then with that of the part."""
        parts = [part for life in lives for part in (life.task_id, *life.parts)]
        numbers = [place for life in lives for place in range(1 + len(life.parts))]
        place = " ".join(f"when '{part}' then {number}" for part, number in zip(parts, numbers, strict=True))
        kind = f"substr(old.{column}, 1, length(old.{column}) - 32)"
        part = f"series.n * 16 + case old.{column} {place} end"
        return f"{kind} || {store.hexadecimal(moment, 12)} || {store.hexadecimal(part, 20)}"

    changed = _changed(table, new_id)
    columns = store.columns(table)
    picked = [
        changed.get(name, f"old.{name} + {shift}" if name == "at" or name.endswith("_at") else f"old.{name}")
        for name in columns
    ]
    named = f"case when series.n % 50 = 0 then '{failed.task_id}' else '{succeeded.task_id}' end"
    if table == "attempts":
        source = f"deliveries as parent on parent.task_id = {named} join attempts as old on old.delivery_id = parent.id"
    else:
        source = f"{table} as old on old.{OF_A_TASK.get(table, 'task_id')} = {named}"
    return (
        f"insert into {table} ({', '.join(columns)}) select {', '.join(picked)} "
        f"from {store.series(first, last)} join {source} order by series.n"
    )


def _changed(table: str, new_id: Any) -> dict[str, str]:
    match table:
        case "tasks":
            return {
                "id": new_id("id"),
                "external_task_id": "'order-' || series.n",
                "provider_external_id": new_id("id"),
                "provider_task_id": "'theirs-' || series.n",
                "metadata": "'{\"customer\": \"c' || (series.n % 1000) || '\"}'",
            }
        case "transitions":
            return {"task_id": new_id("task_id")}
        case "callbacks":
            return {"id": new_id("id"), "task_id": new_id("task_id")}
        case "events":
            return {
                "id": new_id("id"),
                "task_id": new_id("task_id"),
                "position": "1000 + series.n * 4 + old.sequence",
            }
        case "deliveries":
            dead = "series.n % 1000 = 7 and old.event_type = 'task.succeeded'"
            return {
                "id": new_id("id"),
                "event_id": new_id("event_id"),
                "task_id": new_id("task_id"),
                "status": f"case when {dead} then 'dead' else old.status end",
            }
        case _:
            return {"delivery_id": new_id("delivery_id")}


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
