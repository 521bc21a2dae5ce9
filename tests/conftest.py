import os

import pytest
from hypothesis import settings

# A shared machine keeps no deadlines. Where a merge depends on it every run tries the same; elsewhere each tries new ones.
settings.register_profile("klingel", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("klingel")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: many tests wait for processes of theirs."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
