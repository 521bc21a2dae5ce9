"""What a start loads: only what every Klingel needs from its first moment on. The rest comes when somebody wants it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.sqlite_alone

# Each is tenths of a second, or megabytes, and of no use to most.
FOR_SOME = {
    "aiohttp",
    "aiormq",
    "apprise",
    "asyncpg",
    "av",
    "cyclopts",
    "httpcore",
    "jinja2",
    "jsonschema",
    "mqtt5",
    "nats",
    "obstore",
    "opentelemetry",
    "PIL",
    "redis",
    "service.api.description",
    "service.dashboard.routes",
    "swagger_ui_bundle",
}

STARTED = """
import asyncio, sys
import service.cli
from service.app import create_app
from service.settings import load_settings

async def run():
    app = create_app(load_settings())
    async with app.router.lifespan_context(app):
        print("\\n".join(sys.modules))

asyncio.run(run())
"""


def test_a_start_loads_nothing_that_only_some_need(tmp_path: Path) -> None:
    settings = {
        "KLINGEL_DATA_DIR": str(tmp_path),
        "KLINGEL_PROVIDER": "cometapi",
        "KLINGEL_PROVIDER_KEY": "sk-1",
        "KLINGEL_STORE_URL": "none:",
    }
    run = subprocess.run(
        [sys.executable, "-c", STARTED],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2]), **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "service.app" in run.stdout.split()
    assert FOR_SOME & set(run.stdout.split()) == set()
