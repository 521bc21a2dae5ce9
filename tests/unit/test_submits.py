"""Large submits take turns."""

import asyncio
import threading
from collections.abc import Mapping

import pytest

from service.delivery import Sink
from service.domain.errors import InvalidRequest
from service.domain.ids import AccountId
from service.domain.secrets import Vault
from service.doors.bodies import SMALL_BODY
from service.submission import Draft
from service.submits import READERS, SubmitReader


@pytest.mark.parametrize(
    ("body", "is_aside"),
    [(b"{}", False), (b'{"follow_ups": [{}]}', True), (b'{"follow_ups": []}', False)],
    ids=["small", "with follow-ups", "with none"],
)
async def test_what_may_take_long_to_be_read_is_read_aside(body: bytes, is_aside: bool) -> None:
    read_in: list[int] = []

    def reading(raw: object, *, sinks: Mapping[str, Sink], vault: Vault, decoding: bool) -> Draft:
        read_in.append(threading.get_ident())
        raise InvalidRequest("read")

    reader = SubmitReader(sinks={}, vault=Vault(["a-secret-for-tests-0123456789"]))
    with pytest.raises(InvalidRequest):
        await reader.read(body, account_id=AccountId("one"), by=reading)
    assert (read_in != [threading.get_ident()]) == is_aside


async def test_accounts_take_turns_however_many_submits_one_of_them_sends() -> None:
    """Else whoever sends a hundred pictures first keeps everybody waiting for all of them."""
    order: list[str] = []
    begin = threading.Event()

    def reading(raw: object, *, sinks: Mapping[str, Sink], vault: Vault, decoding: bool) -> Draft:
        begin.wait(timeout=60)
        assert isinstance(raw, str)
        order.append(raw[0])
        raise InvalidRequest("read")

    reader = SubmitReader(sinks={}, vault=Vault(["a-secret-for-tests-0123456789"]))

    async def submit(account: str) -> None:
        body = f'"{account}{" " * SMALL_BODY}"'.encode()
        with pytest.raises(InvalidRequest):
            await reader.read(body, account_id=AccountId(account), by=reading)

    async with asyncio.TaskGroup() as submits:
        for number in range(READERS - 1):  # one reader is left
            await reader._readers._turns._enter(number)
        for account in "aaaaab":
            submits.create_task(submit(account))
        await asyncio.sleep(0)
        begin.set()
    assert "".join(order) == "aabaaa"  # the first had its turn before anybody waited
