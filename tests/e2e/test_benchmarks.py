"""The benchmarks work, whatever their figures are: none of them is a test of speed."""

import re

import pytest

from benchmarks.__main__ import BENCHMARKS
from benchmarks.end_to_end import measure
from benchmarks.figures import Figure, kept, most, ratio
from benchmarks.history import fill
from benchmarks.instructions import by_part
from benchmarks.page import ELSEWHERE, PAGE, keep_figures, table
from benchmarks.plan import Plan
from benchmarks.tasks import Tasks
from tests.tools import program


def test_callbacks_go_all_the_way_beside_a_bare_server():
    program("wrk")
    plan = Plan(rounds=1, seconds=1, warm=1, arrivals=50)

    figures = measure(plan)

    # That nothing is lost, and that each callback counts once, is asserted where it is measured.
    assert [figure.target for figure in figures] == ["≥ 0.20", "", "≤ 3 ms", "≤ 15 ms"]
    assert all(re.fullmatch(r"[0-9.,]+(?: ms)?", figure.result) for figure in figures)
    assert plan.memory.keys() == {"end to end, sqlite"}


def test_a_long_history_is_one_that_klingel_can_read():
    with Plan().stage("history", hosts=1) as stage:
        one = stage.klingel
        one.subscribe(*stage.world.hooks(1))
        fill(stage, Tasks(one, stage.world), 100)
        one.start()

        failed = one.call("GET", "/v1/tasks?status=failed&metadata.customer=c50")["items"]
        assert [task["external_task_id"] for task in failed] == ["order-50"]
        path = f"/v1/tasks/{failed[0]['id']}"
        assert [event["sequence"] for event in one.call("GET", f"{path}/events")["items"]] == [1, 2, 3, 4]
        assert len(one.call("GET", f"{path}/callbacks")["items"]) == 2
        sent = one.call("GET", f"/v1/deliveries?task_id={failed[0]['id']}")["items"]
        assert len(sent) == 4
        assert len(one.call("GET", f"/v1/deliveries/{sent[0]['id']}")["attempts"]) == 1


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_benchmark_has_its_place_on_a_page(name):
    page = ELSEWHERE.get(name, PAGE).read_text()

    assert page.count(f"<!-- {name}: begin -->") == 1
    assert page.count(f"<!-- {name}: end -->") == 1


def test_figures_are_kept_where_the_former_ones_were_and_targets_are_gathered(tmp_path):
    page = tmp_path / "performance.md"
    marks = "<!-- {0}: begin -->\nold\n<!-- {0}: end -->\n"
    page.write_text(
        "before\n" + "".join(marks.format(name) for name in ("targets", "ingest", "submit")) + "after\n"
    )
    reached = ratio("callbacks", [50, 40, 60], [100, 100, 100], unit="a second", least=0.4)
    missed = most("time to the answer", [30, 10, 20], 15, unit="ms")
    other = Figure("of no matter", "", "1")

    keep_figures(["ingest", "submit"], "ingest", [reached, missed, other], page=page)

    assert kept("ingest", page=page) == table([reached, missed, other])
    assert kept("targets", page=page) == table([reached, missed])
    assert kept("submit", page=page) == "old"
    assert reached.cells() == ("callbacks", "50 of 100 a second", "0.50", "0.40 to 0.60", "≥ 0.40", "yes")
    assert missed.cells() == ("time to the answer", "", "20.0 ms", "10.0 to 30.0", "≤ 15 ms", "**no**")
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("after\n")


def test_instructions_are_counted_once_where_they_are_executed():
    dump = """
ob=(1) /usr/lib/libpython3.11.so.1.0
fn=(1) eval
12 100
+3 20
cob=(2) /usr/lib/libsqlite3.so.0.8.6
cfn=(2) step
calls=2 40
* 5000
-1 7
ob=(2)
fn=(2)
40 5000
ob=(3) /venv/loop.cpython-311.so
fn=(3) turn
1 9
totals: 5136
"""
    assert by_part(dump.splitlines()) == {"the interpreter": 127, "SQLite": 5000, "extensions": 9}
