"""An empty SQLite database as the migrations leave it: made once in a process, then copied, which costs a tenth."""

from pathlib import Path
from tempfile import TemporaryDirectory

from storage.sqlite import open_sqlite

_laid_out: bytes | None = None


async def lay_out(path: Path) -> None:
    """At this path, unless there is a database already."""
    global _laid_out  # noqa: PLW0603 - made in a loop that runs, where no cache of functools can wait
    if _laid_out is None:
        with TemporaryDirectory() as folder:
            made = Path(folder) / "klingel.db"
            async with open_sqlite(made):
                pass
            _laid_out = _read(made)
    _put(path, _laid_out)


def _read(path: Path) -> bytes:
    return path.read_bytes()


def _put(path: Path, content: bytes) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o600)
    path.write_bytes(content)
