from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.klingel import Klingel, running_klingel


@pytest.fixture
async def klingel(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Klingel]:
    async with running_klingel(tmp_path) as running:
        yield running
