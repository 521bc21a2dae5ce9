"""Who takes part: Klingel as the Procfile starts it, a sandbox beside it, and somebody's receiver."""

import base64
import io
import json
import shlex
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from honcho.environ import parse_procfile
from httpx_sse import connect_sse
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from standardwebhooks import Webhook

from tests.e2e.processes import PATIENCE_S, ROOT, Process, running, until
from tests.ports import free_port

PROCFILE: Final = parse_procfile((ROOT / "Procfile").read_text()).processes
WEB: Final = shlex.split(PROCFILE["web"])
RELEASE: Final = shlex.split(PROCFILE["release"])
STEP_S: Final = 0.05  # between the states of a sandbox task
ADMIN_KEY: Final = "an-admin-key-for-e2e"

Json = dict[str, Any]


@dataclass(frozen=True)
class Received:
    """One request that a receiver got."""

    path: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    answered: int

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> Json:
        event: Json = json.loads(self.body)
        return event

    def verified(self, secret: str) -> Json:
        """The event, its signature checked as the official library does it."""
        event: Json = Webhook(secret).verify(self.body, dict(self.headers))
        return event


class Receiver:
    def __init__(self, process: Process, file: Path) -> None:
        self._process = process
        self._file = file
        self._origin = f"http://127.0.0.1:{process.says(r'^[0-9]+$')[0]}"

    def url(self, path: str) -> str:
        return self._origin + path

    def received(self, path: str) -> list[Received]:
        """At this path, in the order in which it came."""
        written = self._file.read_text() if self._file.exists() else ""
        lines = written.rpartition("\n")[0].splitlines()  # the last may be half written
        all = [Received(**one | {"body": base64.b64decode(one["body"])}) for one in map(json.loads, lines)]
        return [one for one in all if one.path == path]

    def until(self, path: str, holds: Callable[[list[Received]], object]) -> list[Received]:
        """What came at this path, once that is as it should be."""

        def reached() -> list[Received] | None:
            got = self.received(path)
            return got if holds(got) else None

        return self._process.until(reached, f"requests at {path}; there are {self.received(path)}")

    def until_type(self, path: str, type: str) -> list[Received]:
        return self.until(path, lambda got: any(one.event["type"] == type for one in got))

    def answers(self, status: int, retry_after_s: int | None = None) -> None:
        line = f"{status} {retry_after_s or ''}".strip()
        said = f"answers {line}"
        before = self._process.output.count(said)  # it may have been told so by an earlier test
        self._process.tell(line)
        self._process.until(lambda: self._process.output.count(said) > before, said)


@contextmanager
def running_receiver(folder: Path) -> Iterator[Receiver]:
    file = folder / "requests.jsonl"
    with running(sys.executable, Path(__file__).with_name("receiver.py"), file, folder=folder) as process:
        yield Receiver(process, file)


class Sandbox:
    """What its own log says: the provider's side of the story."""

    def __init__(self, url: str) -> None:
        self.url = url

    def log(self) -> Json:
        log: Json = (
            httpx.get(f"{self.url}/log", timeout=PATIENCE_S, trust_env=False).raise_for_status().json()
        )
        return log

    def calls(self, task: Json) -> list[str]:
        """The kind of each request that it got about a task: `create`, `query`, `list`."""
        ours = {*_names(task), task["provider_task_id"]} - {None}
        return [
            call["kind"]
            for call in self.log()["calls"]
            if ours & {call["external_task_id"], call["task_id"]} or call["kind"] == "list"
        ]

    def tasks_made(self, task: Json) -> int:
        """Each of them is paid for."""
        return sum(made["external_task_id"] in _names(task) for made in self.log()["created"])

    def until_called_back(self, task: Json, number: int) -> list[int]:
        """What was answered to each callback about a task, once there are so many."""

        def answered() -> list[int] | None:
            sent = [
                sent["http_status"]
                for sent in self.log()["callbacks"]
                if sent["external_task_id"] in _names(task)
            ]
            return sent if len(sent) >= number else None

        return until(answered, f"{number} callbacks about {task['id']}")


@contextmanager
def running_sandbox(folder: Path) -> Iterator[Sandbox]:
    port = free_port()
    # A network that is opened closes none: it calls back to this machine all the same.
    opened = ("--allow-network", "10.0.0.0/8")
    command = ("klingel", "sandbox", "--port", str(port), "--step", str(STEP_S), *opened)
    with running(*command, folder=folder) as process:
        until(lambda: is_open(port) or process.has_ended, "a listening sandbox")
        assert not process.has_ended, process.errors
        yield Sandbox(f"http://127.0.0.1:{port}")


class Klingel:
    """One running Klingel, seen with one of its keys."""

    def __init__(self, process: Process, folder: Path, url: str, key: str) -> None:
        self.process = process
        self.folder = folder
        self.url = url
        self.key = key
        self.http = httpx.Client(
            base_url=url,
            headers={"authorization": f"Bearer {key}"},
            timeout=PATIENCE_S,
            trust_env=False,
        )

    @property
    def environment(self) -> Mapping[str, str]:
        """For the client commands."""
        return {"KLINGEL_URL": self.url, "KLINGEL_API_KEY": self.key}

    def call(self, method: str, path: str, body: object = None, *, answers: int = 200) -> Any:
        response = self.http.request(method, f"/v1{path}", json=body)
        assert response.status_code == answers, response.text
        return response.json() if response.content else None

    def submit(self, type: str, input: Json, **body: Any) -> Json:
        """A task that the provider has accepted."""
        task: Json = self.call("POST", "/tasks", {"type": type, "input": input, **body}, answers=201)
        return task

    def task(self, id: str) -> Json:
        task: Json = self.call("GET", f"/tasks/{id}")
        return task

    def events(self, id: str) -> list[Json]:
        """A task's events to its terminal one, read from the live stream, which then ends."""
        with connect_sse(self.http, "GET", f"/v1/tasks/{id}/events") as source:
            return [json.loads(event.data) for event in source.iter_sse() if event.data]

    def deliveries(self, **query: str) -> list[Json]:
        """Oldest first."""
        response = self.http.get("/v1/deliveries", params={"limit": "200", **query})
        items: list[Json] = response.raise_for_status().json()["items"]
        return items[::-1]

    def until_delivered(self, number: int, **query: str) -> list[Json]:
        """The deliveries, once there are so many and none has to be attempted any more."""

        def settled() -> list[Json] | None:
            found = self.deliveries(**query)
            pending = any(one["status"] == "pending" for one in found)
            return found if len(found) >= number and not pending else None

        return until(settled, f"{number} ended deliveries of {query}")

    def metrics(self) -> Mapping[str, float]:
        """By name and labels as the exposition text has them: `klingel_tasks{status="succeeded"}`."""
        text = self.http.get("/metrics").raise_for_status().text
        return {
            _sample(sample.name, sample.labels): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@contextmanager
def running_klingel(folder: Path, *, key: str | None = None, **settings: str) -> Iterator[Klingel]:
    """As the Procfile says, in a working directory of its own, on a free port.

    Args:
        key: for the test's own requests, where neither the settings name one nor a first start prints one.
        settings: besides `PORT`, all that it is told.
    """
    with running(*WEB, folder=folder, environment={"PORT": str(free_port()), **settings}) as process:
        url = process.says(r"^Klingel rings at (\S+)$")[1]
        process.until(lambda: "Try it:" in process.output and process.output[-1] == "", "all of its greeting")
        key = (
            key or settings.get("KLINGEL_API_KEY") or process.says(r"shown until it is first used: (\S+)$")[1]
        )
        klingel = Klingel(process, folder, url, key)
        try:
            yield klingel
        finally:
            klingel.http.close()


def first_submit(process: Process) -> str:
    """What a starting Klingel prints under `Try it:`, as it is."""
    lines = process.output[process.output.index("Try it:") + 1 :]
    return "\n".join(lines[: lines.index("")])


def settings_with(sandbox: Sandbox) -> dict[str, str]:
    """What the operator sets so that this sandbox is the provider, and receivers here may be dialled."""
    return {
        "KLINGEL_PROVIDER": "sandbox",
        "KLINGEL_PROVIDER_URL": sandbox.url,
        "KLINGEL_ALLOW_NETWORKS": "127.0.0.0/8",
        "KLINGEL_DATA_DIR": "data",
    }


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def picture(colour: str) -> bytes:
    """A PNG that the provider takes."""
    file = io.BytesIO()
    Image.new("RGB", (400, 300), colour).save(file, "PNG")
    return file.getvalue()


def image_input(prompt: str) -> Json:
    """As in CometAPI, "Multi-Image to Image", with pictures as Base64."""
    pictures = [base64.b64encode(picture(colour)).decode() for colour in ("teal", "gold")]
    return {"prompt": prompt, "subject_image_list": [{"subject_image": text} for text in pictures]}


def video_input(prompt: str) -> Json:
    """As in CometAPI, "Multi-Image to Video", with pictures by URL."""
    urls = ["https://example.com/cat.png", "https://example.com/hat.png"]
    return {"prompt": prompt, "image_list": [{"image": url} for url in urls]}


def types(events: Sequence[Json]) -> list[str]:
    return [event["type"] for event in events]


def _names(task: Json) -> set[str]:
    """By which a provider may know it: the first account's ids go there as they are, all others' stay here."""
    return {task["external_task_id"], task["id"]}


def _sample(name: str, labels: Mapping[str, str]) -> str:
    listed = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{listed}}}" if listed else name
