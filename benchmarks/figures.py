"""Where measured figures are kept: between two marks of docs/reliability.md."""

from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[1] / "docs" / "reliability.md"


def keep(name: str, figures: str) -> None:
    """Puts them in place of the former ones."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = PAGE.read_text().partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(f"{before}{begin}\n{figures}\n{end}{after}")
