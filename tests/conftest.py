import os
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import settings

from storage.statements import Dialect
from tests.places import Places, places_of
from tests.postgres import Databases, shared_server

# A shared machine keeps no deadlines. Where a merge depends on it every run tries the same; elsewhere each tries new ones.
settings.register_profile("klingel", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("klingel")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: many tests wait for processes of theirs."""
    return (os.cpu_count() or 1) + 1


def pytest_collection(session: pytest.Session) -> None:
    """Each worker begins with other files of the whole suite: what one has compiled, the others only read.

    Side by side they would all compile the same ones; alone that takes longer than to collect what is compiled.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None or session.config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    root = session.config.rootpath
    number, workers = int(worker.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    for path in sorted((root / "tests").rglob("test_*.py"))[number::workers]:
        with suppress(Exception):  # is told when the file's turn comes
            import_module(".".join(path.relative_to(root).with_suffix("").parts))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Whatever needs a place for its database runs on each kind, but for what is marked to be of SQLite alone."""
    if "places" in metafunc.fixturenames:
        alone = metafunc.definition.get_closest_marker("sqlite_alone") is not None
        metafunc.parametrize("places", [Dialect.SQLITE] if alone else list(Dialect), indirect=True)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    base = tmp_path_factory.getbasetemp()
    run: Path = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    databases = Databases(shared_server(run))
    yield databases
    databases.close()


@pytest.fixture
def places(request: pytest.FixtureRequest) -> Iterator[Places]:
    yield from places_of(request)
