"""The dashboard's doors: what strangers may send, what people may, and what is left of a session that has ended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.integration.klingel import ADMIN_KEY, PATIENCE_S, Klingel, png
from tests.integration.test_dashboard import VIDEO, Browser, browsing, signed_in

URLENCODED = {"content-type": "application/x-www-form-urlencoded"}
MULTIPART = {"content-type": "multipart/form-data; boundary=b"}
MIB = 1024 * 1024


@pytest.fixture
async def visitor(klingel: Klingel) -> AsyncIterator[Browser]:
    async with browsing(klingel) as browser:
        yield browser


@pytest.fixture
async def admin(visitor: Browser) -> Browser:
    assert (await visitor.sign_in(ADMIN_KEY)).status_code == 303
    return visitor


class Endless:
    """A body without a length, and how much of it was taken."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.taken < self.size:
            self.taken += 4096
            yield b"&" * 4096


# What strangers send


@pytest.mark.parametrize("kind", [URLENCODED, MULTIPART], ids=["urlencoded", "multipart"])
async def test_a_strangers_form_is_small_whatever_its_kind(visitor: Browser, kind: dict[str, str]) -> None:
    response = await visitor.http.post("/sign-in", content=b"&" * (16 * 1024 + 1), headers=kind)
    assert response.status_code == 413


async def test_no_more_of_a_strangers_form_is_read_than_it_may_have(visitor: Browser) -> None:
    body = Endless(12 * MIB)
    assert (await visitor.http.post("/sign-in", content=body, headers=URLENCODED)).status_code == 413
    assert body.taken <= 64 * 1024


async def test_a_form_of_nothing_but_separators_is_refused(visitor: Browser) -> None:
    response = await visitor.http.post("/sign-in", content=b"&" * 16 * 1024, headers=URLENCODED)
    assert response.status_code == 400


@pytest.mark.parametrize("path", [VIDEO, "/keys", "/endpoints/new/webhook"])
async def test_nothing_is_read_of_a_form_of_nobody(visitor: Browser, path: str) -> None:
    body = Endless(12 * MIB)
    response = await visitor.http.post(path, content=body, headers=MULTIPART)
    assert (response.status_code, response.headers["location"]) == (303, "/sign-in")
    assert body.taken <= 4096


# What people send


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/keys", URLENCODED), ("/keys", MULTIPART), ("/sign-out", MULTIPART), (VIDEO, URLENCODED)],
)
async def test_only_an_upload_is_large(admin: Browser, path: str, kind: dict[str, str]) -> None:
    response = await admin.http.post(path, content=b"&" * (64 * 1024 + 1), headers=kind)
    assert response.status_code == 413


async def test_a_text_of_an_upload_is_no_file(admin: Browser) -> None:
    response = await admin.http.post(
        VIDEO,
        data={"form_token": await admin.token(VIDEO), "input.images": "\n" * (MIB + 1)},
        files={"x": ("", b"")},
    )
    assert response.status_code == 400


async def test_letters_of_all_kinds_come_through(klingel: Klingel, admin: Browser) -> None:
    name = "Zoë & 小明 = 100 % +"
    assert (await admin.send("/keys", on="/keys", name=name, role="member")).status_code == 200
    assert f'"name":"{name}"' in (await klingel.http.get("/v1/keys")).text


class Held:
    """An upload that stays where it is until it is told to end."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.came = asyncio.Event()
        self.ending = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self.size // MIB):
            yield bytes(MIB)
        self.came.set()
        await self.ending.wait()


async def test_uploads_have_the_room_that_submits_have(klingel: Klingel) -> None:
    """What one account's forms hold in memory leaves room for another's."""
    async with signed_in(klingel, account="other") as (browser, _), browsing(klingel) as admin:
        assert (await admin.sign_in(ADMIN_KEY)).status_code == 303
        held = [Held(47 * MIB) for _ in range(5)]
        sending = [
            asyncio.create_task(browser.http.post(VIDEO, content=each, headers=MULTIPART)) for each in held
        ]
        for each in held:
            await each.came.wait()
        last = await browser.http.post(VIDEO, content=bytes(40 * MIB), headers=MULTIPART)
        assert last.status_code == 503
        token = await admin.token(VIDEO)
        files = {"input.images.file": ("a.png", png() + bytes(MIB), "image/png")}
        response = await admin.http.post(VIDEO, data={"form_token": token, "action": "submit"}, files=files)
        assert response.status_code in {303, 422}
        for each in held:
            each.ending.set()
        assert {each.status_code for each in await asyncio.gather(*sending)} == {400}


async def test_a_large_form_is_parsed_beside_everybody_else(klingel: Klingel, admin: Browser) -> None:
    """One made to take long, of what nearly ends a part and does not."""
    body = (
        b"--b\r\n"
        b'content-disposition: form-data; name="x"; filename="y"\r\n\r\n'
        + b"\r\n--" * (10 * MIB)
        + b"\r\n--b--"
    )
    sending = asyncio.create_task(admin.http.post(VIDEO, content=body, headers=MULTIPART))
    answered = 0
    while not sending.done():
        assert (await klingel.http.get("/v1/tasks/task_unknown")).status_code == 404
        answered += 1
    assert (await sending).status_code in {400, 403}
    assert answered > 0


# What is left of a session


def cookie_of(browser: Browser) -> dict[str, str]:
    [(name, value)] = browser.http.cookies.items()
    return {"cookie": f"{name}={value}"}


async def test_a_copy_of_the_cookie_is_nothing_after_signing_out(klingel: Klingel, admin: Browser) -> None:
    copied = cookie_of(admin)
    assert (await admin.send("/sign-out", on="/")).status_code == 303
    async with browsing(klingel) as other:
        assert (await other.get("/tasks", **copied)).status_code == 303
        assert (await other.get("/live", **copied)).status_code == 401
        response = await other.http.post(VIDEO, data={}, headers=copied)
        assert response.headers["location"] == "/sign-in"


async def test_signing_out_ends_this_session_alone(klingel: Klingel, admin: Browser) -> None:
    async with browsing(klingel) as phone:
        assert (await phone.sign_in(ADMIN_KEY)).status_code == 303
        assert (await admin.send("/sign-out", on="/")).status_code == 303
        assert (await phone.get("/tasks")).status_code == 200
    assert (await admin.sign_in(ADMIN_KEY)).status_code == 303
    assert (await admin.get("/tasks")).status_code == 200


@asynccontextmanager
async def live(klingel: Klingel, session: dict[str, str]) -> AsyncIterator[httpx.Response]:
    async with (
        klingel.served() as http,
        http.stream("GET", "/live", headers={**session, "authorization": ""}) as response,
        asyncio.timeout(PATIENCE_S),
    ):
        assert response.status_code == 200
        yield response


async def test_signing_out_ends_what_the_session_watches_and_nothing_else(
    klingel: Klingel, admin: Browser
) -> None:
    """Also in another tab, and for whoever has copied the cookie."""
    async with browsing(klingel) as phone:
        assert (await phone.sign_in(ADMIN_KEY)).status_code == 303
        async with live(klingel, cookie_of(admin)) as mine, live(klingel, cookie_of(phone)) as theirs:
            assert (await admin.send("/sign-out", on="/")).status_code == 303
            assert b"data:" not in await mine.aread()
            await klingel.submit()
            assert await anext(line async for line in theirs.aiter_lines() if line.startswith("data:"))


async def test_a_session_that_runs_out_ends_what_it_watches(klingel: Klingel, admin: Browser) -> None:
    klingel.clock.advance(hours=12, milliseconds=-100)
    async with live(klingel, cookie_of(admin)) as response:
        assert b"data:" not in await response.aread()


async def test_who_watches_asks_again_where_a_sign_out_may_have_been_missed(
    klingel: Klingel, admin: Browser
) -> None:
    """Such as one of another process, while the database could not be heard."""
    async with live(klingel, cookie_of(admin)) as response:
        klingel.state["notices"].doubt()
        assert b"data:" not in await response.aread()


async def test_signing_out_twice_is_signing_out(klingel: Klingel, admin: Browser) -> None:
    copied, token = cookie_of(admin), await admin.token("/")
    async with browsing(klingel) as other:
        for _ in range(2):
            response = await other.http.post("/sign-out", data={"form_token": token}, headers=copied)
            assert response.status_code == 303


async def test_an_ended_session_is_forgotten_once_it_would_have_ended(
    klingel: Klingel, admin: Browser
) -> None:
    async def forgotten() -> int:
        ended: int = (await klingel.http.post("/v1/prune")).json()["ended_sessions"]
        return ended

    copied = cookie_of(admin)
    assert (await admin.send("/sign-out", on="/")).status_code == 303
    klingel.clock.advance(hours=11, minutes=59)
    assert await forgotten() == 0
    assert (await admin.get("/tasks", **copied)).status_code == 303
    klingel.clock.advance(minutes=2)
    assert await forgotten() == 1
    assert (await admin.get("/tasks", **copied)).status_code == 303
