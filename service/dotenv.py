"""The file that stands in for the environment: a server's settings, or what a client command needs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from service.domain.errors import ConfigurationError

DOTENV: Final = Path(".env")


@contextmanager
def reading(file: Path = DOTENV) -> Iterator[None]:
    """
    Raises:
        ConfigurationError: it is there, and cannot be read.
    """
    try:
        yield
    except UnicodeDecodeError:
        raise ConfigurationError(f"The file {file} is not UTF-8: save it as text of this encoding.") from None
    except OSError as error:
        raise ConfigurationError(f"The file {file} cannot be read: {error.strerror}.") from None
