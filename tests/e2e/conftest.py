"""One trio for the whole folder. Each test has an account of its own there, so that nobody hears another's bells."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.e2e.parties import (
    ADMIN_KEY,
    Klingel,
    Receiver,
    Sandbox,
    running_klingel,
    running_receiver,
    running_sandbox,
    settings_with,
)


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with running_sandbox(tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with running_receiver(tmp_path_factory.mktemp("receiver")) as receiver:
        yield receiver


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Iterator[Klingel]:
    """With the admin key of the settings."""
    folder = tmp_path_factory.mktemp("klingel")
    with running_klingel(folder, **settings_with(sandbox), KLINGEL_API_KEY=ADMIN_KEY) as klingel:
        yield klingel
        told = "\n".join(klingel.process.errors)
        assert '"level": "error"' not in told
        assert "Traceback" not in told
        assert ADMIN_KEY not in told
        assert "whsec_" not in told


@pytest.fixture
def klingel(house: Klingel) -> Iterator[Klingel]:
    """The same, with the admin key of a new account."""
    body = {"name": "e2e", "account": f"e2e-{uuid4().hex}", "role": "admin"}
    key = house.call("POST", "/keys", body, answers=201)["key"]
    klingel = Klingel(house.process, house.folder, house.url, key)
    yield klingel
    klingel.http.close()


@pytest.fixture
def hook() -> str:
    """A path at the receiver that only this test has."""
    return f"/hooks/{uuid4().hex}"
