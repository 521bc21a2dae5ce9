"""What somebody has asked for in words, wherever a type of task keeps it."""

from collections.abc import Mapping
from typing import Any, Final

NAMES: Final = ("prompt", "text", "sound_effect_prompt", "bgm_prompt", "effect_scene")
DEEPEST: Final = 4  # levels: of a path and body of the caller's own nobody knows what is in it


def prompt_of(input: Mapping[str, Any]) -> str | None:
    """The first words of an input, from the outside in: None where it has none."""
    level: list[Any] = [input]
    for _ in range(DEEPEST):
        for node in level:
            for name in NAMES if isinstance(node, Mapping) else ():
                if isinstance(said := node.get(name), str) and said.strip():
                    return said
        level = [child for node in level for child in _children(node)]
    return None


def _children(node: Any) -> list[Any]:
    match node:
        case Mapping():
            return [*node.values()]
        case list():
            return node
        case _:
            return []
