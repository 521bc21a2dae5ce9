"""What the site has besides the pages as they are written: pages made from other files, folders in the navigation, a drawing."""

import re
from html import escape
from pathlib import Path
from typing import Any, Final

from properdocs.structure.files import File, Files

from service.domain.lifecycle import TERMINAL, TRANSITIONS, Status

ROOT: Final = Path(__file__).resolve().parents[2]
PLACES: Final = {
    Status.QUEUED: (90, 200),
    Status.UNCONFIRMED: (90, 380),
    Status.SUBMITTED: (360, 290),
    Status.PROCESSING: (600, 290),
    Status.SUCCEEDED: (860, 200),
    Status.FAILED: (860, 380),
    Status.REJECTED: (360, 60),
}
BOX: Final = (116, 36)
# Where the site has what stands in files beside docs/.
MADE: Final = {
    "../README.md#settings": "settings.md",
    "../README.md#not-verified-against-the-real-provider": "limits.md",
    "../CHANGELOG.md": "changes.md",
}
SHADES: Final = {Status.SUCCEEDED: "#2e7d32", Status.FAILED: "#c62828", Status.REJECTED: "#c62828"}


def on_config(config: Any, **_: Any) -> Any:
    config["nav"] = [_expanded(entry, Path(config["docs_dir"])) for entry in config["nav"]]
    return config


def _expanded(entry: Any, docs: Path) -> Any:
    """A folder becomes its pages."""
    if not isinstance(entry, dict):
        return entry
    [(title, target)] = entry.items()
    if isinstance(target, list):
        return {title: [_expanded(each, docs) for each in target]}
    if not target.endswith("/"):
        return entry
    pages = sorted((docs / target).glob("*.md"), key=lambda page: (page.name != "README.md", page.name))
    return {title: [f"{target}{page.name}" for page in pages]}


def on_files(files: Files, *, config: Any, **_: Any) -> Files:
    readme = (ROOT / "README.md").read_text()
    faults = re.search(r"^\*\*Known faults.*?(?=\n\n)", readme, re.DOTALL | re.MULTILINE)
    made = {
        "settings.md": "# Settings\n" + _section(readme, "## Settings"),
        "limits.md": "# Not verified against the real provider\n"
        + _section(readme, "## Not verified against the real provider")
        + ("" if faults is None else f"\n\n{faults[0]}\n"),
        "changes.md": (ROOT / "CHANGELOG.md").read_text(),
    }
    for name, text in made.items():
        content = re.sub(r"\]\(docs/", "](", text)
        files.append(File.generated(config, name, content=content))
    return files


def _section(text: str, heading: str) -> str:
    return text.split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0]


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    above = "../" * page.file.src_uri.count("/")
    for there, name in MADE.items():
        markdown = markdown.replace(f"]({above}{there})", f"]({above}{name})")
    if page.file.src_uri == "states.md":
        return re.sub(r"```mermaid\n.*?```", lambda _found: drawing(), markdown, flags=re.DOTALL)
    return markdown


def drawing() -> str:
    """The table of transitions as a picture: one arrow for each pair of statuses, with its signals."""
    signals: dict[tuple[Status, Status], list[str]] = {}
    for (before, signal), after in TRANSITIONS.items():
        signals.setdefault((before, after), []).append(str(signal))
    shapes = [_arrow(*pair, ", ".join(words)) for pair, words in signals.items()]
    shapes += [_box(status) for status in PLACES]
    title = "States of a task: " + "; ".join(
        f"{before} to {after}: {', '.join(words)}" for (before, after), words in signals.items()
    )
    return (
        '<svg viewBox="0 0 960 520" role="img" xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" '
        f'font-size="12" style="max-width:100%"><title>{escape(title)}</title><defs><marker id="tip" viewBox="0 0 10 10" '
        'refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto-start-reverse">'
        '<path d="M0 0 10 5 0 10z" fill="#888"/></marker></defs>' + "".join(shapes) + "</svg>"
    )


def _arrow(before: Status, after: Status, label: str) -> str:
    (x1, y1), (x2, y2) = PLACES[before], PLACES[after]
    reach = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
    # Long ways bend around what lies between.
    bend = 0.0 if reach < 330 else (-1 if (y1 + y2) / 2 < 290 else 1) * reach * 0.2
    if {before, after} == {Status.QUEUED, Status.FAILED} or {before, after} == {
        Status.UNCONFIRMED,
        Status.SUCCEEDED,
    }:
        bend *= 1.35
    middle_x, middle_y = (x1 + x2) / 2, (y1 + y2) / 2 + bend
    start = _edge(before, (middle_x, middle_y))
    end = _edge(after, (middle_x, middle_y))
    # Nearer to the start: arrows that end at the same box come apart there.
    t = 0.42
    text_x = (1 - t) ** 2 * start[0] + 2 * t * (1 - t) * middle_x + t**2 * end[0]
    text_y = (1 - t) ** 2 * start[1] + 2 * t * (1 - t) * middle_y + t**2 * end[1]
    return (
        f'<path d="M{start[0]:.0f} {start[1]:.0f} Q{middle_x:.0f} {middle_y:.0f} {end[0]:.0f} {end[1]:.0f}" fill="none" '
        'stroke="#888" stroke-width="1.3" marker-end="url(#tip)"/>'
        f'<text x="{text_x:.0f}" y="{text_y - 4:.0f}" text-anchor="middle" fill="currentColor" '
        'paint-order="stroke" stroke="var(--bs-body-bg, #fff)" stroke-width="4" '
        f'font-size="11">{escape(label)}</text>'
    )


def _edge(status: Status, towards: tuple[float, float]) -> tuple[float, float]:
    """Where the line from a box's middle leaves it."""
    x, y = PLACES[status]
    dx, dy = towards[0] - x, towards[1] - y
    scale = min(
        (BOX[0] / 2 + 3) / abs(dx) if dx else float("inf"), (BOX[1] / 2 + 3) / abs(dy) if dy else float("inf")
    )
    return x + dx * scale, y + dy * scale


def _box(status: Status) -> str:
    x, y = PLACES[status]
    shade = SHADES.get(status, "#1565c0")
    width = 3 if status in TERMINAL else 1.5
    return (
        f'<rect x="{x - BOX[0] / 2:.0f}" y="{y - BOX[1] / 2:.0f}" width="{BOX[0]}" height="{BOX[1]}" rx="8" fill="{shade}" '
        f'fill-opacity="0.15" stroke="{shade}" stroke-width="{width}"/>'
        f'<text x="{x}" y="{y + 4}" text-anchor="middle" fill="currentColor">{status}</text>'
    )
