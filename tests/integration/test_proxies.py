"""Who asks, where proxies pass requests on: seen by who is told to wait for guessing keys."""

from pathlib import Path

import httpx
import pytest

from service.doors.guesses import KEYS
from tests.integration.klingel import Klingel, running_klingel

PROXY, STRANGER = "10.0.0.1", "203.0.113.9"


async def ask(klingel: Klingel, peer: str, *forwarded: str, key: str = "wrong") -> int:
    """What a request is answered that comes from this peer, with these lines of X-Forwarded-For."""
    transport = httpx.ASGITransport(klingel.app, client=(peer, 1234))
    headers = [("authorization", f"Bearer {key}"), *(("x-forwarded-for", line) for line in forwarded)]
    async with httpx.AsyncClient(transport=transport, base_url="http://klingel.test") as client:
        return (await client.get("/v1/tasks", headers=headers)).status_code


async def guess(klingel: Klingel, peer: str, *forwarded: str) -> None:
    """Until it is told to wait."""
    for _ in range(KEYS + 5):
        if await ask(klingel, peer, *forwarded) == 429:
            return
    raise AssertionError("it may go on guessing")


async def test_without_trusted_proxies_the_header_means_nothing(klingel: Klingel) -> None:
    """Whoever guesses names another address each time."""
    await guess(klingel, STRANGER, "198.51.100.1")
    assert await ask(klingel, STRANGER, "198.51.100.2") == 429
    assert await ask(klingel, "198.51.100.1") == 401


async def test_behind_a_trusted_proxy_each_client_counts_for_itself(tmp_path: Path) -> None:
    async with running_klingel(tmp_path, trusted_proxies="10.0.0.0/8, fd00::/8") as klingel:
        await guess(klingel, PROXY, STRANGER)
        assert await ask(klingel, PROXY, "203.0.113.10") == 401
        for same in (
            [STRANGER],
            [f"198.51.100.1, {STRANGER}"],  # what the client said itself is left of what its proxy said
            ["198.51.100.1", STRANGER],
            [f"{STRANGER}, 10.0.0.7"],  # by way of two proxies
            [f"{STRANGER}:4711"],
            [f"::ffff:{STRANGER}"],
            [f" {STRANGER} , 10.0.0.7, fd00::7 "],
            [", ".join(["198.51.100.1"] * 5000 + [STRANGER])],
        ):
            assert await ask(klingel, PROXY, *same) == 429, same
        # Connected past the proxy it says what it likes.
        assert await ask(klingel, STRANGER, "198.51.100.1") == 429


async def test_what_a_proxy_does_not_know_is_the_proxys(tmp_path: Path) -> None:
    async with running_klingel(tmp_path, trusted_proxies="10.0.0.0/8") as klingel:
        await guess(klingel, PROXY)
        for line in ("unknown", "", ",", f"{STRANGER}, _hidden", "10.0.0.1", "[::1"):
            assert await ask(klingel, PROXY, line) == 429, line
        assert await ask(klingel, PROXY, f"unknown, {STRANGER}") == 401
        assert await ask(klingel, PROXY, "[2001:db8::1]:4711") == 401


async def test_the_servers_own_reading_of_the_header_is_off(
    klingel: Klingel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It trusts this machine, and whom an environment variable names that is no setting of Klingel's."""
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    async with klingel.served() as client:
        for _ in range(KEYS + 5):
            headers = {"authorization": "Bearer wrong", "x-forwarded-for": STRANGER}
            last = await client.get("/v1/tasks", headers=headers)
        assert last.status_code == 429
        elsewhere = {"authorization": "Bearer wrong", "x-forwarded-for": "203.0.113.77"}
        assert (await client.get("/v1/tasks", headers=elsewhere)).status_code == 429
