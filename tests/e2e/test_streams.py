"""Live streams, heard by other people's clients."""

from pathlib import Path

from tests.e2e.parties import ADMIN_KEY, Klingel, Sandbox, running_klingel, settings_with, video_input
from tests.e2e.processes import running
from tests.ports import free_port
from tests.tools import NODE_MODULES, node_package, program

LISTENER = Path(__file__).with_name("node") / "listen.cjs"


def log(klingel: Klingel) -> list[str]:
    listed = klingel.http.get("/v1/events", params={"order": "asc", "limit": "200"}).raise_for_status()
    return [f"{event['id']} {event['type']}" for event in listed.json()["items"]]


def test_an_eventsource_hears_every_event_once_across_a_restart(tmp_path: Path, sandbox: Sandbox) -> None:
    """Its own reconnect with `Last-Event-ID`, as every browser does it."""
    node_package("eventsource")
    port = free_port()
    settings = {
        **settings_with(sandbox),
        "PORT": str(port),
        "KLINGEL_API_KEY": ADMIN_KEY,
        "KLINGEL_STORE_URL": "none:",  # so that a task's story ends with its success
    }
    url = f"http://127.0.0.1:{port}/v1/events"
    with running_klingel(tmp_path, **settings) as klingel:
        listener = running(
            program("node"),
            LISTENER,
            url,
            ADMIN_KEY,
            folder=tmp_path,
            environment={"NODE_PATH": str(NODE_MODULES)},
        )
        with listener as node:
            node.says("^open$")
            before = klingel.submit("kling.multi-image-to-video", video_input("before"))
            klingel.events(before["id"])
            node.says("task.succeeded$")
            klingel.process.stop()
            with running_klingel(tmp_path, **settings) as again:
                for name in ("after", "and again"):
                    task = again.submit("kling.multi-image-to-video", video_input(name))
                    again.events(task["id"])
                node.until(lambda: sum("task.succeeded" in line for line in node.output) == 3, "three films")
                heard = [line for line in node.output if line != "open"]
                assert heard == log(again)
                assert len(heard) == 9
