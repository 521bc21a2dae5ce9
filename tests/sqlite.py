"""An empty SQLite database as the migrations leave it: made once in a process, then copied, which costs a tenth."""

from pathlib import Path
from tempfile import TemporaryDirectory

from storage.sqlite import open_sqlite

_laid_out: bytes | None = None


async def lay_out(path: Path) -> None:
    """At this path, unless there is a database already."""
    global _laid_out  # noqa: PLW0603 - made in a loop that runs, where no cache of functools can wait
    if path.exists():
        return
    if _laid_out is None:
        with TemporaryDirectory() as folder:
            made = Path(folder) / path.name
            async with open_sqlite(made):
                pass
            _laid_out = made.read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o600)
    path.write_bytes(_laid_out)
