"""The first minute: start it, copy what it prints, see a task succeed."""

import json
import socket
from pathlib import Path

import httpx

from tests.e2e.parties import first_submit, running_klingel, types
from tests.e2e.processes import BIN, ROOT, run
from tests.ports import free_port


def test_with_no_settings_the_first_submit_works_as_it_is_printed(tmp_path: Path) -> None:
    port = free_port()
    with running_klingel(tmp_path, PORT=str(port)) as klingel:
        printed = "\n".join(klingel.process.output)
        assert klingel.url == f"http://127.0.0.1:{port}"
        assert f"Admin key, shown until it is first used: {klingel.key}\n" in printed
        assert "Provider: SANDBOX." in printed
        assert "may be dialled" not in printed  # for nobody asked for it

        submitted = run("bash", "-c", first_submit(klingel.process), folder=tmp_path)

        assert submitted.returncode == 0, submitted.stderr
        task = json.loads(submitted.stdout)
        assert task["status"] in {"submitted", "processing"}
        events = klingel.events(task["id"])
        assert types(events) == ["task.submitted", "task.processing", "task.succeeded"]
        [film] = events[-1]["data"]["task"]["outputs"]
        content = httpx.get(film["url"], timeout=90, trust_env=False).raise_for_status().content
        assert content[4:8] == b"ftyp"
        assert klingel.key not in "\n".join(klingel.process.errors)


def test_the_first_key_is_not_lost_with_a_start_that_fails(tmp_path: Path) -> None:
    """The port is taken: the key was made before that is known. It is printed until somebody uses it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        failed = run(BIN / "klingel", "serve", folder=tmp_path, environment={"PORT": port})
    assert failed.returncode != 0
    assert "Choose another with PORT" in " ".join(failed.stderr.split())
    keys = []
    for _ in range(2):
        with running_klingel(tmp_path, PORT="0") as klingel:
            keys.append(klingel.key)
    assert keys[0] == keys[1]
    with running_klingel(tmp_path, PORT="0") as klingel:
        klingel.call("GET", "/tasks")
    with running_klingel(tmp_path, key=keys[0], PORT="0") as klingel:
        assert not any("Admin key" in line for line in klingel.process.output)


def test_a_process_that_would_store_and_never_send_does_not_start(tmp_path: Path) -> None:
    """`KLINGEL_ROLES=web` on SQLite: it says what to do instead."""
    refused = run(
        BIN / "klingel", "serve", folder=tmp_path, environment={"PORT": "0", "KLINGEL_ROLES": "web"}
    )
    assert refused.returncode != 0
    assert "set it to web,dispatch" in " ".join(refused.stderr.split())
    assert not (tmp_path / "klingel.db").exists()


def test_make_run_starts_it() -> None:
    planned = run("make", "-n", "run", folder=ROOT)

    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.splitlines()[-1] == ".venv/bin/klingel serve"


def test_the_readme_s_story_runs_as_it_is_written(tmp_path: Path) -> None:
    """With free ports in place of 8000 and 9000, and the key that was printed in place of the dots."""
    story = (ROOT / "README.md").read_text().split("## From submit to webhook", 1)[1]
    script = story.split("```sh\n", 1)[1].split("```", 1)[0]
    klingel_port, receiver_port = free_port(), free_port()
    with running_klingel(tmp_path, PORT=str(klingel_port), KLINGEL_ALLOW_NETWORKS="127.0.0.0/8") as klingel:
        script = (
            script.replace("kl_...", klingel.key)
            .replace("8000", str(klingel_port))
            .replace("9000", str(receiver_port))
            # What takes a second, or three, takes longer on a busy machine.
            .replace(
                "sleep 1\n",
                f"until (: > /dev/tcp/127.0.0.1/{receiver_port}) 2> refused; do sleep 0.1; done\n",
            )
        )
        until_all = "for _ in $(seq 600); do [ $(grep -c ^evt_ told) -ge 3 ] && break; sleep 0.1; done"
        (tmp_path / "story.sh").write_text(f"exec > told\n{script}\n{until_all}\nkill %1\n")
        ended = run("bash", "story.sh", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    told = (tmp_path / "told").read_text().splitlines()
    rung = [json.loads(line.split(" ", 1)[1]) for line in told if line.startswith("evt_")]
    assert [event["type"] for event in rung] == ["task.submitted", "task.processing", "task.succeeded"]
    assert rung[-1]["data"]["task"]["outputs"][0]["kind"] == "video"
