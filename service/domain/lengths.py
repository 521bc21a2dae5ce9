"""How long a body is to be, as its head says."""

_DIGITS = 18  # of any length that there can be


def announced_length(value: str) -> int | None:
    """Bytes that a `content-length` announces (RFC 9110, 8.6); None for what is no length.

    Of one with more digits than there can be, the first say that it is too large. Python reads no number of more than
    4,300, and zeros may stand before any number.
    """
    if not (value.isascii() and value.isdigit()):
        return None
    return int(value.lstrip("0")[:_DIGITS] or "0")
