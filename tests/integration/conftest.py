from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.integration.klingel import Klingel, put_databases_in, running_klingel
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
    monkeypatch.setattr("service.guesses.REFILL_S", 60.0)
