"""Several things that may take equally long, and one timer for all of them."""

import asyncio
from datetime import timedelta

import pytest

from service.patience import Patience

MOMENT = timedelta(milliseconds=20)
LONG = timedelta(hours=1)


async def forever(patience: Patience) -> None:
    with patience.limited():
        await asyncio.Event().wait()


async def test_what_takes_too_long_is_cut_off() -> None:
    with pytest.raises(TimeoutError):
        await forever(Patience(MOMENT))


async def test_each_is_cut_off_at_its_own_time_also_after_others_have_ended_in_theirs() -> None:
    patience, loop = Patience(MOMENT), asyncio.get_running_loop()

    async def measured() -> float:
        began = loop.time()
        with pytest.raises(TimeoutError):
            await forever(patience)
        return loop.time() - began

    with patience.limited():
        first = asyncio.create_task(measured())
        await asyncio.sleep(0)
    took = [await first, await measured(), *await asyncio.gather(measured(), measured())]
    assert min(took) >= MOMENT.total_seconds()


async def test_what_ends_in_time_is_let_be() -> None:
    patience = Patience(MOMENT)
    with patience.limited():
        pass
    with pytest.raises(TimeoutError):  # the timer that was set for the first is long past when this ends
        await forever(patience)


async def test_an_error_stays_what_it_is() -> None:
    with pytest.raises(KeyError), Patience(LONG).limited():
        raise KeyError


async def test_who_is_cancelled_by_somebody_else_is_cancelled() -> None:
    task = asyncio.create_task(forever(Patience(LONG)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_is_cancelled_by_somebody_else_as_well_is_cancelled() -> None:
    async def late() -> None:
        with Patience(MOMENT).limited():
            try:
                await asyncio.Event().wait()
            finally:
                task.cancel()

    task = asyncio.create_task(late())
    with pytest.raises(asyncio.CancelledError):
        await task
