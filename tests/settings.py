"""Settings for tests that are about them: read in a folder and an environment in which there are none."""

import os
from pathlib import Path

import pytest


def without_settings(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Nothing set, and no `.env` in sight."""
    for name in os.environ:
        if name.startswith("KLINGEL_") or name in {"HOST", "PORT", "COMETAPI_KEY"}:
            monkeypatch.delenv(name)
    monkeypatch.chdir(folder)
