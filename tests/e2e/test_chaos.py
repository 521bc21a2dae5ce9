"""The short form of `make chaos`: a Klingel that is killed in the middle of everything forgets nothing."""

from pathlib import Path

from tests.e2e.chaos.story import run
from tests.e2e.chaos.world import OF_ONE_PROCESS


async def test_nothing_is_lost_or_doubled_however_klingel_dies(tmp_path: Path) -> None:
    findings = await run(tmp_path, kills=len(OF_ONE_PROCESS), seed=20261122, submits=4)
    assert findings.kills.total() == len(OF_ONE_PROCESS)
    assert findings.load["tasks billed"] >= 20
    assert findings.faults == dict.fromkeys(findings.faults, 0)
