"""Whoever collects the log may stop to: Klingel goes on, and ends when it is told to."""

import os
from pathlib import Path

import httpx

from tests.e2e.parties import ADMIN_KEY, WEB
from tests.e2e.processes import PATIENCE_S, running
from tests.ports import free_port

PIPE_BYTES = 64 * 1024  # that the system keeps for a reader of a pipe


def test_a_log_that_nobody_reads_holds_up_neither_requests_nor_the_end(tmp_path: Path) -> None:
    pipe = tmp_path / "log"
    os.mkfifo(pipe)
    held = os.open(pipe, os.O_RDWR)  # open, and never read
    settings = {"PORT": str(free_port()), "KLINGEL_API_KEY": ADMIN_KEY, "KLINGEL_LOG": "json"}
    try:
        with running(
            "sh", "-c", f'exec "$@" 2> {pipe}', "sh", *WEB, folder=tmp_path, environment=settings
        ) as process:
            url = process.says(r"^Klingel rings at (\S+)$")[1]
            with httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE_S) as http:
                path = "/healthz/" + "x" * 8000  # which its line shows
                for _ in range(2 * PIPE_BYTES // len(path)):
                    assert http.get(path).status_code == 404
                assert http.get("/healthz").status_code == 200
            assert process.stop() == 0
    finally:
        os.close(held)
