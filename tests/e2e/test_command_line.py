"""The `klingel` command as a person at a terminal, or a script, has it."""

import io
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.e2e.parties import ADMIN_KEY, Klingel, Receiver, Sandbox, image_input, picture, video_input
from tests.e2e.processes import run, running, until
from tests.ports import free_port

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """Names of files in the working directory."""
    names = ["a.png", "b.png"]
    for name, colour in zip(names, ("teal", "gold"), strict=True):
        (tmp_path / name).write_bytes(picture(colour))
    return names


@pytest.fixture
def command(klingel: Klingel, tmp_path: Path) -> Command:
    """Runs `klingel` with these arguments against the running one."""

    def run_it(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return run("klingel", *arguments, folder=tmp_path, environment=klingel.environment)

    return run_it


def test_submit_with_local_files_follows_the_task_to_its_outputs(
    command: Command, pictures: list[str], sandbox: Sandbox
) -> None:
    a, b = pictures
    done = command(
        *("submit", "--type", "image", "--image", a, "--image", b),
        *("--prompt", "A cat in a hat", "--n", "2", "--metadata", "order=1234", "--watch"),
    )

    assert done.returncode == 0, done.stderr
    urls = done.stdout.split()
    assert len(urls) == 2
    for url in urls:
        answer = httpx.get(url, timeout=90, trust_env=False).raise_for_status()
        with Image.open(io.BytesIO(answer.content)) as made:
            assert made.format == "PNG"
    words = re.findall(r":\d\d  (\w+)\n", done.stderr)
    assert words == ["submitted", "processing", "succeeded"]

    [task] = json.loads(command("tasks", "--metadata", "order=1234", "--json").stdout)["items"]
    assert [output["url"] for output in task["outputs"]] == urls
    assert sandbox.calls(task) == ["create"]
    listed = command("tasks")
    assert task["id"] in listed.stdout
    assert "succeeded" in listed.stdout
    watched_again = command("watch", task["id"])
    assert (watched_again.returncode, watched_again.stdout) == (0, done.stdout)


def test_a_failed_task_fails_the_command_and_says_why(command: Command, pictures: list[str]) -> None:
    a, b = pictures
    done = command(
        *("submit", "--type", "video", "--image", a, "--image", b),
        *("--prompt", "A cat puts on a hat sandbox:fail", "--watch"),
    )

    assert done.returncode == 1
    assert done.stdout == ""
    assert re.search(r"task_[0-9a-f]+ failed: .*did not pass the platform's risk control", done.stderr)


def test_watch_shows_a_task_under_way_as_it_advances(klingel: Klingel, tmp_path: Path) -> None:
    task = klingel.submit("kling.multi-image-to-video", video_input("A cat puts on a hat sandbox:never"))
    with running(
        "klingel", "watch", task["id"], folder=tmp_path, environment=klingel.environment
    ) as watching:

        def words() -> list[str]:
            return [word for line in watching.errors for word in re.findall(r":\d\d  (\w+)$", line)]

        watching.until(lambda: words() == ["submitted"], "what was already known")
        until(
            lambda: klingel.call("POST", f"/tasks/{task['id']}/refresh")["status"] == "succeeded",
            "the provider's success",
        )

        assert watching.ends() == 0
        assert words()[-1] == "succeeded"
        assert watching.output == [output["url"] for output in klingel.task(task["id"])["outputs"]]


def test_an_endpoint_made_by_the_command_receives_signed_events(
    command: Command, klingel: Klingel, receiver: Receiver, hook: str
) -> None:
    made = command("endpoints", "create", "--url", receiver.url(hook), "--types", "task.succeeded")
    assert made.returncode == 0, made.stderr
    [secret] = re.findall(r"whsec_\S+", made.stdout)
    [id] = re.findall(r"end_[0-9a-f]{32}", made.stdout)
    listed = command("endpoints", "list")
    assert id in listed.stdout
    assert receiver.url(hook) in listed.stdout
    assert secret not in listed.stdout

    task = klingel.submit("kling.multi-image-to-image", image_input("A cat in a hat"))

    [received] = receiver.until(hook, len)
    event = received.verified(secret)
    assert (event["type"], event["data"]["task"]["id"]) == ("task.succeeded", task["id"])


def test_keys_are_made_used_listed_and_revoked(command: Command, klingel: Klingel, tmp_path: Path) -> None:
    made = command("keys", "create", "--name", "laptop")
    key = made.stdout.strip()
    [id] = re.findall(r"key_[0-9a-f]{32}", made.stderr)

    def with_the_key() -> "subprocess.CompletedProcess[str]":
        environment = {**klingel.environment, "KLINGEL_API_KEY": key}
        return run("klingel", "tasks", folder=tmp_path, environment=environment)

    assert with_the_key().returncode == 0
    listed = command("keys", "list")
    assert id in listed.stdout
    assert key not in listed.stdout

    assert command("keys", "revoke", id).returncode == 0
    refused = with_the_key()
    assert refused.returncode == 3
    assert "revoked" in refused.stderr


def test_a_command_without_a_server_says_so(tmp_path: Path) -> None:
    environment = {"KLINGEL_URL": f"http://127.0.0.1:{free_port()}", "KLINGEL_API_KEY": ADMIN_KEY}
    refused = run("klingel", "tasks", folder=tmp_path, environment=environment)
    assert refused.returncode == 4
    assert environment["KLINGEL_URL"] in refused.stderr
