"""What every command is given, and how it may end."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Annotated, Final

import httpx
from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from service.cli.client import Api, Refused, find_server
from service.cli.text import as_json, clean

STANDARD_MEMBERS: Final = {"type", "title", "status", "detail", "instance", "errors"}


class Exit(IntEnum):
    """Public: shell scripts branch on these."""

    OK = 0
    TASK_FAILED = 1
    FAULTY = 1  # of `doctor`
    USAGE = 2
    REFUSED = 3
    UNREACHABLE = 4
    INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class UsageError(Exception):
    """The command line asks for something that cannot be done; lists every fault, one a line."""


def pairs(option: str, values: Sequence[str]) -> dict[str, str]:
    """
    Raises:
        UsageError: names every value that is not KEY=VALUE.
    """
    if wrong := [value for value in values if not value.partition("=")[0] or "=" not in value]:
        raise UsageError("\n".join(f"{option} takes KEY=VALUE, not {value}" for value in wrong))
    return dict(value.split("=", 1) for value in values)


@dataclass(kw_only=True)
class Session:
    """One run of the command: where it reads, writes and connects. Tests hand in their own."""

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    out: Console = field(default_factory=lambda: Console(highlight=False))
    err: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    transport: httpx.BaseTransport | None = None
    receiver_transport: httpx.BaseTransport | None = None  # of `listen`
    platform_transport: httpx.BaseTransport | None = None  # of `chat`
    sleep: Callable[[float], None] = time.sleep
    json: bool = False  # whether what is printed is for programs

    @cached_property
    def api(self) -> Api:
        """
        Raises:
            ConfigurationError: the environment does not say where, or as whom.
        """
        return Api(find_server(self.environ), transport=self.transport, sleep=self.sleep)

    def close(self) -> None:
        if "api" in self.__dict__:
            self.api.close()

    def say(self, result: str | Text) -> None:
        """Whole lines: a terminal breaks them, a file or pipe gets them as they are."""
        self.out.print(Text(clean(result)) if isinstance(result, str) else result, soft_wrap=True)

    def note(self, text: str, style: str = "") -> None:
        """What is not the result: to stderr, so that it is in nobody's way."""
        self.err.print(Text(clean(text), style), soft_wrap=True)

    def show_refusal(self, refused: Refused) -> None:
        """The problem's title and detail, each fault with its place, and what else it tells: a word, or an object's id.

        For a program also the problem as the API answered it, on one line, as where one goes on line by line.
        """
        problem = refused.problem
        if self.json:
            self.say_json(problem, indent=None)
        title = str(problem.get("title") or f"HTTP {refused.status}")
        self.note(f"{title} ({f'{refused.status} {refused.code}'.rstrip()})", "bold red")
        if detail := problem.get("detail"):
            self.note(str(detail))
        for fault in problem.get("errors") or ():
            self.note(f"  {fault.get('pointer', '')}  {fault.get('detail', '')}")
        for name, value in problem.items():
            word = value.get("id") if isinstance(value, dict) else value
            if name not in STANDARD_MEMBERS and isinstance(word, str | int):
                self.note(f"  {name}: {word}")

    def say_json(self, value: object, *, indent: int | None = 2) -> None:
        self.say(Text(as_json(value, indent=indent, ascii_only="utf" not in self.out.encoding)))


Given = Annotated[Session, Parameter(parse=False)]
Json = Annotated[bool, Parameter(name="--json", help="Print the API's JSON, for programs.")]
