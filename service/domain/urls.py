"""URLs of parties that are called by HTTP."""

import re
from typing import Final
from urllib.parse import urlsplit

ODD_PORT: Final = "its port is not written in digits from 0 to 9, at most five of them"

_PLACE: Final = re.compile(r"(?:\[[^\]]*\]|[^:]*)(?::[0-9]{0,5})?")


def has_plain_port(url: str) -> bool:
    """Whether its port, if it names one, is what everybody reads. Some take the digits of every script, and any number of
    zeros before them.

    Raises:
        ValueError: no URL at all.
    """
    return _PLACE.fullmatch(urlsplit(url).netloc.rpartition("@")[2]) is not None


def is_http_url(text: str) -> bool:
    """Whether it is an absolute http(s) URL: with a host, and where it names a port, one that there can be."""
    try:
        parts = urlsplit(text)
        usable = has_plain_port(text) and parts.port != 0
    except ValueError:  # brackets that hold no IPv6 address, a port that is no number up to 65535
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and usable
