"""Other people's programs that tests talk to: from the system's packages or the npm registry, none of them ours."""

import os
import shutil
from pathlib import Path
from typing import Final

import pytest

NODE_MODULES: Final = Path(__file__).resolve().parents[1] / ".node" / "node_modules"
# Debian keeps servers where an ordinary user's path does not lead.
PLACES: Final = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])


def program(name: str) -> str:
    """Where this command is. Without it the test is skipped, but not where a merge depends on it."""
    found = shutil.which(name, path=PLACES)
    if found is None:
        go_without(f"{name} is not installed")
    return str(found)


def node_package(name: str) -> Path:
    """The folder of an npm package, as `make test` installs it where there is Node.js."""
    folder = NODE_MODULES / name
    if not folder.is_dir():
        go_without(f"{name} is not installed: `make test` does it where there is npm")
    return folder


def go_without(reason: str) -> None:
    if "CI" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)
