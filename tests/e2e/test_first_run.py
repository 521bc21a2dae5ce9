"""The first minute: start it, copy what it prints, see a task succeed."""

import json
from pathlib import Path

import httpx

from tests.e2e.parties import first_submit, free_port, running_klingel, types
from tests.e2e.processes import ROOT, run


def test_with_no_settings_the_first_submit_works_as_it_is_printed(tmp_path: Path) -> None:
    port = free_port()
    with running_klingel(tmp_path, PORT=str(port)) as klingel:
        printed = "\n".join(klingel.process.output)
        assert klingel.url == f"http://127.0.0.1:{port}"
        assert f"Admin key, shown this once: {klingel.key}\n" in printed
        assert "Provider: SANDBOX." in printed
        assert "may be dialled" not in printed  # for nobody asked for it

        submitted = run("bash", "-c", first_submit(klingel.process), folder=tmp_path)

        assert submitted.returncode == 0, submitted.stderr
        task = json.loads(submitted.stdout)
        assert task["status"] in {"submitted", "processing"}
        events = klingel.events(task["id"])
        assert types(events) == ["task.submitted", "task.processing", "task.succeeded"]
        [film] = events[-1]["data"]["task"]["outputs"]
        content = httpx.get(film["url"], timeout=30, trust_env=False).raise_for_status().content
        assert content[4:8] == b"ftyp"
        assert klingel.key not in "\n".join(klingel.process.errors)


def test_make_run_starts_it() -> None:
    planned = run("make", "-n", "run", folder=ROOT)

    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.splitlines()[-1] == ".venv/bin/klingel serve"
