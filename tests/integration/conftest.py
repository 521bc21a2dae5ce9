from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.integration.klingel import PATIENCE_S, Klingel, put_databases_in, running_klingel
from tests.places import Places, SqlitePlaces


@pytest.fixture(autouse=True)
def _databases_here(places: Places) -> Iterator[None]:
    put_databases_in(places)
    yield
    put_databases_in(SqlitePlaces())


@pytest.fixture
async def klingel(_databases_here: None, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Klingel]:
    async with running_klingel(tmp_path) as running:
        yield running


@pytest.fixture(autouse=True)
def _forgives_no_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine enough of them would be forgiven while the next ones are made."""
    monkeypatch.setattr("service.doors.guesses.REFILL_S", 60.0)


@pytest.fixture(autouse=True)
def _is_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who hangs does so until a test lets go, and a door answers once the provider has: however slow the machine is."""
    monkeypatch.setattr("service.delivery.ATTEMPT_DEADLINE", timedelta(minutes=4))
    monkeypatch.setattr("service.api.dropin.LONGEST_WAIT_S", float(PATIENCE_S))
