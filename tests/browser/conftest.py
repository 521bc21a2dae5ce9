"""One Klingel, one receiver and one browser for the folder. Each test has an account and a visitor of its own.

They end with the folder: while Playwright's loop runs, no other test could begin one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.chromium import PATIENCE_MS, Visitor, running_chromium
from tests.browser.pages import House, furnish
from tests.e2e.parties import ADMIN_KEY, Klingel, Receiver, running_klingel, running_receiver

SECRET = "a secret that these tests know in order to speak as the provider"
STEP_S = 0.2  # between the states of a sandbox task; ten times that for one that is told to be slow

Visit = Callable[..., Visitor]


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with running_receiver(tmp_path_factory.mktemp("receiver")) as receiver:
        yield receiver


@pytest.fixture(scope="package")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Klingel]:
    """With the admin key of the settings, and the sandbox that Klingel brings."""
    folder = tmp_path_factory.mktemp("klingel")
    settings = {
        "KLINGEL_API_KEY": ADMIN_KEY,
        "KLINGEL_SECRET": SECRET,
        "KLINGEL_DATA_DIR": "data",
        "KLINGEL_PROVIDER": "sandbox",
        "KLINGEL_SANDBOX_STEP": str(STEP_S),
        "KLINGEL_ALLOW_NETWORKS": "127.0.0.0/8",
    }
    with running_klingel(folder, **settings) as klingel:
        yield klingel
        told = klingel.process.errors
        broken = [line for line in told if '"level": "error"' in line or "Traceback" in line]
        assert not broken, "\n".join(broken)


def of_account(house: Klingel, account: str) -> Klingel:
    body = {"name": "browser", "account": account, "role": "admin"}
    key = house.call("POST", "/keys", body, answers=201)["key"]
    return Klingel(house.process, house.folder, house.url, key)


@pytest.fixture
def klingel(house: Klingel) -> Iterator[Klingel]:
    """The same, with the admin key of a new account."""
    klingel = of_account(house, f"browser-{uuid4().hex}")
    yield klingel
    klingel.http.close()


@dataclass(frozen=True)
class Furnished:
    """An account with something on every page, for tests that only look."""

    klingel: Klingel
    house: House


@pytest.fixture(scope="package")
def furnished(house: Klingel, receiver: Receiver) -> Iterator[Furnished]:
    klingel = of_account(house, "furnished")
    yield Furnished(klingel, furnish(klingel, receiver, "/hooks/furnished"))
    klingel.http.close()


@pytest.fixture
def visit(chromium: Browser, house: Klingel) -> Iterator[Visit]:
    """Begins a visitor, with options of the browser's context. None of them may end with a complaint."""
    visitors: list[Visitor] = []

    def begin(**options: Any) -> Visitor:
        visitors.append(Visitor(chromium, house.url, options))
        return visitors[-1]

    yield begin
    for visitor in visitors:
        visitor.leave()


@pytest.fixture
def visitor(visit: Visit, klingel: Klingel) -> Visitor:
    """Signed in, at a desk."""
    visitor = visit()
    visitor.sign_in(klingel.key)
    return visitor


@pytest.fixture
def page(visitor: Visitor) -> Page:
    return visitor.page


@pytest.fixture
def hook() -> str:
    """A path at the receiver that only this test has."""
    return f"/hooks/{uuid4().hex}"
