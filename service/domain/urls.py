"""URLs of parties that are called by HTTP."""

from urllib.parse import urlsplit


def is_http_url(text: str) -> bool:
    """Whether it is an absolute http(s) URL: with a host, and where it names a port, one that there can be."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # brackets that hold no IPv6 address, a port that is no number up to 65535
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and port != 0
