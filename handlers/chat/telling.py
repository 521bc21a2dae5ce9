"""A line from a bot to the person who asked it, after its answer to the request."""

import asyncio
from datetime import datetime, timedelta
from typing import Final

import structlog

from handlers.chat.configuration import opened
from handlers.chat.platform import Address, Destination, Platform
from service.domain.bots import Bot
from service.domain.secrets import Vault
from service.domain.times import Clock

DEADLINE: Final = timedelta(seconds=15)

log = structlog.get_logger()


class Teller:
    def __init__(self, *, vault: Vault, clock: Clock) -> None:
        self._vault = vault
        self._clock = clock

    async def tell(
        self, platform: Platform, bot: Bot, address: Address, text: str, *, asked_at: datetime
    ) -> None:
        """Tries once: a person who hears nothing asks again."""
        to = Destination(
            config=bot.config,
            secrets=opened(self._vault, bot.credentials),
            address=address,
            asked_at=asked_at,
        )
        try:
            async with asyncio.timeout(DEADLINE.total_seconds()):
                reason = (await platform.tell(to, text, now=self._clock())).reason
        except TimeoutError:
            reason = "no answer in time"
        log.info("chat.told", platform=platform.name, bot_id=bot.id, reason=reason)
