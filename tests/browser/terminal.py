"""Records the README's story as a terminal shows it, and draws that as an SVG whose lines come when they came."""

import re
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from tests.e2e.parties import running_klingel
from tests.e2e.processes import ROOT, running
from tests.ports import free_port

COLUMNS: Final = 112  # what is longer goes on beyond the edge
LINE_PX: Final = 18
CHARACTER_PX: Final = 7.8
MARGIN_PX: Final = 16
LONGEST_S: Final = 3600


@dataclass(frozen=True, slots=True)
class Line:
    at_s: float
    text: str

    @property
    def is_typed(self) -> bool:
        return self.text.startswith(("$ ", "> "))


def story() -> str:
    """The shell block under its heading."""
    return (
        (ROOT / "README.md")
        .read_text()
        .split("## From submit to webhook", 1)[1]
        .split("```sh\n", 1)[1]
        .split("```", 1)[0]
    )


def record(folder: Path) -> Path:
    """The SVG, made in this folder by really running it."""
    script = story()
    klingel_port, receiver_port = free_port(), free_port()
    with running_klingel(
        folder, PORT=str(klingel_port), KLINGEL_ALLOW_NETWORKS="127.0.0.0/8", KLINGEL_SANDBOX_STEP="1"
    ) as klingel:
        played = (
            script.replace("kl_...", klingel.key)
            .replace("8000", str(klingel_port))
            .replace("9000", str(receiver_port))
            .replace("python3 ", f"{shlex.quote(sys.executable)} ")
        )
        (folder / "story.sh").write_text(f"{played}\nread\nkill %1\n")  # it ends when it is told
        lines: list[Line] = []
        began = time.monotonic()
        with running("bash", "-c", "exec bash story.sh 2>&1", folder=folder, environment={}) as shell:
            for count in range(1, LONGEST_S):
                shell.until(lambda count=count: len(shell.output) >= count, f"{count} lines")  # type: ignore[misc]
                lines.append(Line(time.monotonic() - began, shell.output[count - 1]))
                if len(lines) > 1 and "task.succeeded" in lines[-2].text:
                    break
            shell.tell("")
            shell.ends()
        printed = [
            Line(line.at_s, line.text.replace(str(klingel_port), "8000").replace(klingel.key, "kl_..."))
            for line in lines
        ]
    typed = [
        Line(0.0, f"{'>' if number else '$'} {line}")
        for number, line in enumerate(script.rstrip().splitlines())
    ]
    file = folder / "story.svg"
    file.write_text(svg([*typed, Line(0.0, ""), *printed]))
    return file


def svg(lines: list[Line]) -> str:
    width = round(COLUMNS * CHARACTER_PX + 2 * MARGIN_PX)
    height = len(lines) * LINE_PX + 2 * MARGIN_PX
    drawn = "\n".join(_drawn(line, number) for number, line in enumerate(lines))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="A terminal: the story of the README, with the three webhooks that it ends with">
<style>
rect {{ fill: #1c1b29; }}
text {{ font: 13px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #d9d9e3; white-space: pre; }}
.typed {{ fill: #a9a0ff; }}
.event {{ fill: #6fd7a4; }}
@media (prefers-reduced-motion: no-preference) {{
  text {{ animation: come .01s backwards; }}
  @keyframes come {{ from {{ opacity: 0; }} }}
}}
</style>
<rect width="{width}" height="{height}" rx="10"/>
{drawn}
</svg>
"""


def _drawn(line: Line, number: int) -> str:
    text = line.text if len(line.text) <= COLUMNS else line.text[: COLUMNS - 1] + "…"
    style = "typed" if line.is_typed else "event" if re.match("evt_", text) else "said"
    y = MARGIN_PX + (number + 0.75) * LINE_PX
    return (
        f'<text class="{style}" x="{MARGIN_PX}" y="{y:g}" xml:space="preserve"'
        f' style="animation-delay: {line.at_s:.2f}s">{escape(text)}</text>'
    )
