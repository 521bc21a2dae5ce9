"""Pictures that people attach: fetched from where their platform keeps them."""

import asyncio
import base64
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from handlers.chat.platform import Grown, NotFetched, uncounted
from handlers.sinks.exchange import TAKEN_LATER, USER_AGENT, why
from service.domain.lengths import announced_length
from service.network.connections import Download, NoAnswer
from service.network.dialler import Dialler, Refused

LARGEST_PICTURE: Final = 10 * 1024 * 1024  # what providers take
DEADLINE: Final = timedelta(seconds=30)
SILENCE: Final = timedelta(seconds=10)


async def fetch_picture(
    dialler: Dialler, url: str, *, headers: Mapping[str, str], grown: Grown = uncounted
) -> str:
    """The file at `url`, in Base64. Whether it is a picture is judged where submits are read.

    Args:
        url: at the platform; the caller has seen to that.

    Raises:
        NotFetched.
    """
    return base64.b64encode(await download_picture(dialler, url, headers=headers, grown=grown)).decode()


async def download_picture(
    dialler: Dialler, url: str, *, headers: Mapping[str, str], grown: Grown = uncounted
) -> bytes:
    """
    Raises:
        NotFetched.
    """
    asked = {"user-agent": USER_AGENT, **headers, "accept-encoding": "identity"}
    try:
        async with (
            asyncio.timeout(DEADLINE.total_seconds()),
            dialler.get(url, headers=asked, silence=SILENCE) as download,
        ):
            return await _read(download, grown)
    except Refused as error:
        raise NotFetched(str(error)) from None
    except TimeoutError:
        raise NotFetched("it takes too long to come", may_come=True) from None
    except (NoAnswer, OSError) as error:
        raise NotFetched(why(error), may_come=True) from None


async def _read(download: Download, grown: Grown) -> bytes:
    status = download.status
    if status != 200:
        may_come = status >= 500 or status in TAKEN_LATER
        raise NotFetched(f"the platform answered {status}", may_come=may_come, status=status)
    parts: list[bytes] = []
    size = announced_length(download.headers.get("content-length", "")) or 0
    if size <= LARGEST_PICTURE:
        size = 0
        async for piece in download.pieces:
            size += len(piece)
            if size > LARGEST_PICTURE:
                break
            grown(size)
            parts.append(piece)
    if size > LARGEST_PICTURE:
        raise NotFetched(f"it is larger than {LARGEST_PICTURE // (1024 * 1024)} MB")
    return b"".join(parts)
