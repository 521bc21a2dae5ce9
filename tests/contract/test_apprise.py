"""Endpoints of kind `apprise`: the real library, against services that answer as they like."""

import asyncio
import importlib.metadata
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from handlers.sinks.apprise import REFUSED, THREADS, THREADS_PER_ACCOUNT, AppriseSink
from service.domain.deliveries import AttemptOutcome, Reply, result
from service.domain.endpoints import Endpoint
from service.domain.events import EventType
from service.domain.faults import InvalidFields
from service.domain.ids import AccountId, EndpointId
from service.domain.values import replace
from service.network.dialler import Guard
from tests.contract.push_services import (
    LOOPBACK,
    NOW,
    VAULT,
    Service,
    duty_of,
    endpoint_of,
    event_of,
    video,
)
from tests.ports import free_port
from tests.servers import start_server

MASK = "••••"
# Of its hundreds of modules some use what Python will lose.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class FakeJson(Service):
    """What `json://` posts to: Apprise's own format."""

    def __init__(self) -> None:
        super().__init__()
        self.notified: list[dict[str, Any]] = []

    @property
    def apprise_url(self) -> str:
        return self.url.replace("http://", "json://user:pass-word@")

    def judge(self, request: web.Request, body: bytes) -> web.Response:
        if request.method != "POST" or "authorization" not in request.headers:
            return web.Response(status=401)
        self.notified.append(json.loads(body))
        return web.Response()


@pytest.fixture
async def sink(anyio_backend: str) -> AsyncIterator[AppriseSink]:
    sink = AppriseSink(LOOPBACK, VAULT)
    await sink.load()
    yield sink
    sink.close()


@pytest.fixture
async def service(anyio_backend: str) -> AsyncIterator[FakeJson]:
    service = FakeJson()
    async with service.running():
        yield service


def configured(sink: AppriseSink, *urls: str) -> Endpoint:
    return endpoint_of("apprise", sink.configure({"urls": list(urls)}, pointer="#"))


def outcome(reply: Reply) -> AttemptOutcome:
    return result(reply, attempt=1, now=NOW).outcome


async def test_a_service_is_told_with_the_link(sink: AppriseSink, service: FakeJson) -> None:
    made = video()
    endpoint = configured(sink, service.apprise_url)
    reply = await sink.send(duty_of(endpoint, event_of(outputs=[made])), now=NOW)
    assert outcome(reply) is AttemptOutcome.DELIVERED
    [told] = service.notified
    assert (told["title"], told["type"]) == ("Video ready", "success")
    assert told["message"].splitlines() == ["order-1042 · kling.multi-image-to-video", made.url]


async def test_a_failure_is_told_as_one(sink: AppriseSink, service: FakeJson) -> None:
    await sink.send(duty_of(configured(sink, service.apprise_url), event_of(EventType.TASK_FAILED)), now=NOW)
    assert service.notified[0]["type"] == "failure"


@pytest.mark.parametrize("status", [401, 429, 500])
async def test_what_is_refused_is_tried_again_as_apprise_tells_no_more(
    sink: AppriseSink, service: FakeJson, status: int
) -> None:
    service.answers(status, retry_after="600")
    reply = await sink.send(duty_of(configured(sink, service.apprise_url)), now=NOW)
    assert (outcome(reply), reply.status_code) == (AttemptOutcome.RETRY, status)
    assert reply.reason == f"json: refused with {status}"


async def test_a_service_that_is_not_there_is_tried_again(sink: AppriseSink) -> None:
    url = f"json://127.0.0.1:{free_port()}"
    reply = await sink.send(duty_of(configured(sink, url)), now=NOW)
    assert (outcome(reply), reply.reason) == (AttemptOutcome.RETRY, "json: not sent")


async def test_a_retry_goes_to_those_services_only_that_have_not_got_it(
    sink: AppriseSink, service: FakeJson
) -> None:
    """One that fails for a day must not make the others ring nine times."""
    other = FakeJson()
    async with other.running():
        endpoint = configured(sink, service.apprise_url, other.apprise_url)
        other.answers(500)
        assert outcome(await sink.send(duty_of(endpoint), now=NOW)) is AttemptOutcome.RETRY
        assert outcome(await sink.send(duty_of(endpoint), now=NOW)) is AttemptOutcome.DELIVERED
        assert (len(service.notified), len(other.notified)) == (1, 1)
        await sink.send(duty_of(endpoint, id="dlv_2"), now=NOW)
        assert (len(service.notified), len(other.notified)) == (2, 2)


@pytest.fixture
def _is_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that who hangs does so until the test's end."""
    monkeypatch.setattr("handlers.sinks.apprise.LONGEST_READ_S", 60.0)
    monkeypatch.setattr("handlers.sinks.apprise.LONGEST_S", 60.0)


@pytest.mark.usefixtures("_is_patient")
async def test_a_service_that_hangs_holds_up_its_own_endpoint_only(
    sink: AppriseSink, service: FakeJson
) -> None:
    service.gate = asyncio.Event()
    hanging = configured(sink, service.apprise_url)
    async with asyncio.TaskGroup() as attempts:
        for number in range(4):
            attempts.create_task(sink.send(duty_of(hanging, id=f"dlv_{number}"), now=NOW))
        await service.until(2)
        quick = FakeJson()
        async with quick.running():
            other = replace(configured(sink, quick.apprise_url), id=EndpointId("end_2"))
            assert outcome(await sink.send(duty_of(other), now=NOW)) is AttemptOutcome.DELIVERED
        assert len(service.requests) == 2  # what the hanging one may take of the threads
        service.gate.set()


@pytest.mark.usefixtures("_is_patient")
async def test_an_account_has_four_threads_and_others_have_theirs(
    sink: AppriseSink, service: FakeJson
) -> None:
    service.gate = asyncio.Event()
    hanging = configured(sink, service.apprise_url)
    async with asyncio.TaskGroup() as attempts:
        for number in range(8):
            endpoint = replace(hanging, id=EndpointId(f"end_{number}"))
            attempts.create_task(sink.send(duty_of(endpoint, id=f"dlv_{number}"), now=NOW))
        await service.until(THREADS_PER_ACCOUNT)
        quick = FakeJson()
        async with quick.running():
            other = replace(configured(sink, quick.apprise_url), account_id=AccountId("acc_2"))
            assert outcome(await sink.send(duty_of(other), now=NOW)) is AttemptOutcome.DELIVERED
        assert len(service.requests) == THREADS_PER_ACCOUNT
        service.gate.set()


# Those that never end


class Dripping:
    """Answers with a byte now and then, well within what may pass until the next one, and without end."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self.held = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        server = await start_server(self._drip, "127.0.0.1", 0)
        async with server:
            yield f"json://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _drip(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await self._count(1)
        writer.write(self._head)
        while not reader.at_eof():
            writer.write(b"x")
            with suppress(TimeoutError):
                await asyncio.wait_for(reader.read(4096), 0.05)
        await self._count(-1)
        writer.close()

    async def _count(self, more: int) -> None:
        async with self._changed:
            self.held += more
            self._changed.notify_all()

    async def until(self, held: int) -> None:
        """That many hold a connection."""
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(lambda: self.held == held)


SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
UNSIZED = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("head", [SIZED, UNSIZED])
async def test_a_service_that_drips_is_cut_off_at_the_deadline_of_all(
    sink: AppriseSink, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    """Each byte came in time, and the thread was held for ever."""
    monkeypatch.setattr("handlers.sinks.apprise.LONGEST_S", 0.3)
    dripping = Dripping(head)
    async with dripping.running() as url:
        reply = await sink.send(duty_of(configured(sink, url)), now=NOW)
        assert outcome(reply) is AttemptOutcome.RETRY
        assert reply.reason == "json: it took too long"
        await dripping.until(0)


async def test_a_thread_ends_when_nobody_waits_for_it_any_more(sink: AppriseSink) -> None:
    dripping = Dripping(SIZED)
    async with dripping.running() as url:
        endpoint = configured(sink, url)
        for number in range(2 * THREADS):
            attempt = asyncio.create_task(sink.send(duty_of(endpoint, id=f"dlv_{number}"), now=NOW))
            await dripping.until(1)
            attempt.cancel()
            await dripping.until(0)


def test_a_process_with_a_dripping_service_ends_when_it_is_told_to() -> None:
    """Python waits for threads at its end: it never came."""
    program = """
import asyncio, signal
from handlers.sinks.apprise import AppriseSink
from tests.contract.push_services import LOOPBACK, NOW, VAULT, duty_of
from tests.contract.test_apprise import SIZED, Dripping, configured

async def main():
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    sink, dripping = AppriseSink(LOOPBACK, VAULT), Dripping(SIZED)
    await sink.load()
    async with dripping.running() as url:
        attempt = asyncio.create_task(sink.send(duty_of(configured(sink, url)), now=NOW))
        await dripping.until(1)
        print("held", flush=True)
        await told.wait()
        sink.close()
        await dripping.until(0)
        await attempt

asyncio.run(main())
print("ended")
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.terminate()
        try:
            assert process.communicate(timeout=60)[0] == "ended\n"
        finally:
            process.kill()
    assert process.returncode == 0


# The guard


async def test_a_private_address_is_not_dialled(service: FakeJson, anyio_backend: str) -> None:
    """Judged where it is dialled, whatever the name was resolved to before."""
    sink = AppriseSink(Guard(), VAULT)
    await sink.load()
    with pytest.raises(InvalidFields) as caught:
        configured(sink, service.apprise_url)
    assert [fault.pointer for fault in caught.value.faults] == ["#/urls/0"]
    named = service.apprise_url.replace("127.0.0.1", "localhost")
    reply = await sink.send(duty_of(configured(sink, named)), now=NOW)
    assert (outcome(reply), reply.reason) == (
        AttemptOutcome.RETRY,
        "json: it leads to an address that is not dialled",
    )
    assert service.requests == []
    sink.close()


async def test_a_redirect_is_not_followed(sink: AppriseSink, service: FakeJson) -> None:
    service.answers(307, location=service.url)
    reply = await sink.send(duty_of(configured(sink, service.apprise_url + "?redirect=yes")), now=NOW)
    assert outcome(reply) is AttemptOutcome.RETRY
    assert len(service.requests) == 1


async def test_no_file_of_this_machine_is_read(sink: AppriseSink, tmp_path: Path) -> None:
    """Discord's template is a file; whoever holds a key of an account would have it sent to himself."""
    secret = tmp_path / "secret.json"
    secret.write_text('{"content": "root:x:0:0"}')
    url = f"discord://1234567890/{'a' * 68}?template={secret}"
    reply = await sink.send(duty_of(configured(sink, url)), now=NOW)
    assert outcome(reply) is AttemptOutcome.RETRY
    assert "it wants a file of this machine" in reply.reason


@pytest.mark.parametrize(
    "url",
    [
        "feishu://abcdefabcdefabcdef", "lark://abcdefabcdefabcdef", "dingtalk://abcdefabcdef", "wecombot://abcdefabcdef",
        "https://open.larksuite.com/open-apis/bot/v2/hook/abcdef-abcdef", "syslog://", "rsyslog://example.com", "dbus://",
        "glib://", "gnome://", "macosx://", "windows://", "blink1://", "mqtt://example.com/a", "mqtts://example.com/a",
        "xmpp://u:p@example.com", "fcm://project@key/device", "vapid://a@example.com/b",
    ],
)  # fmt: skip
async def test_what_cannot_be_promised_or_guarded_is_not_taken(sink: AppriseSink, url: str) -> None:
    with pytest.raises(InvalidFields, match="is not taken"):
        configured(sink, url)


def test_what_is_not_taken_is_named_as_apprise_names_it() -> None:
    shipped = {str(file) for file in importlib.metadata.files("apprise") or ()}
    for module in REFUSED:
        assert {f"apprise/plugins/{module}.py", f"apprise/plugins/{module}/__init__.py"} & shipped, module


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "https://example.com/", "@notify", "notify://x", "nonsense", "json://"]
)
async def test_what_apprise_does_not_know_is_refused_without_repeating_it(
    sink: AppriseSink, url: str
) -> None:
    with pytest.raises(InvalidFields) as caught:
        configured(sink, f"{url}")
    assert [fault.pointer for fault in caught.value.faults] == ["#/urls/0"]


# Configuration and secrets


@pytest.mark.parametrize(
    "raw", [None, {}, {"urls": []}, {"urls": "json://a"}, {"urls": [7]}, {"urls": ["json://a"] * 11}]
)
async def test_what_is_no_configuration_is_refused(sink: AppriseSink, raw: object) -> None:
    with pytest.raises(InvalidFields):
        sink.configure(raw, pointer="#")


async def test_all_faults_of_a_configuration_are_told_at_once(sink: AppriseSink) -> None:
    urls = ["json://example.com", "nonsense", 7, "", f"json://{MASK}", "json://" + "a" * 4096]
    with pytest.raises(InvalidFields) as caught:
        sink.configure({"urls": urls, "surprise": 1}, pointer="#")
    assert sorted(str(fault.pointer) for fault in caught.value.faults) == [
        "#/surprise",
        *(f"#/urls/{index}" for index in range(1, 6)),
    ]


async def test_urls_are_sealed_and_masked_and_can_be_sent_back(sink: AppriseSink) -> None:
    urls = [
        "json://u:pass-word-1@example.com/1",
        "mailto://u:pass-word-2@gmail.com",
        "json://u:pass-word-3@example.com/3",
    ]
    before = configured(sink, *urls)
    assert before.config == {"urls": [f"json://{MASK}", f"mailto://{MASK}", f"json://{MASK}"]}
    assert before.credentials is not None
    assert "pass-word-1" not in before.credentials
    raw = {"urls": [*before.config["urls"], "json://u:pass-word-4@example.com"]}
    _, sealed = sink.configure(raw, pointer="#", before=before)
    assert sealed is not None
    assert json.loads(VAULT.open(sealed))["urls"] == [*urls, "json://u:pass-word-4@example.com"]
    assert sink.configure({}, pointer="#", before=before)[0] == before.config
    with pytest.raises(InvalidFields):
        sink.configure({"urls": [f"json://{MASK}"] * 3}, pointer="#", before=before)


class Sink(logging.Handler):
    """Where an operator's logs end up."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name}: {record.getMessage()}")


@pytest.fixture
def log() -> Iterator[list[str]]:
    root, handler = logging.getLogger(), Sink()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler.lines
    root.setLevel(level)
    root.removeHandler(handler)


async def test_no_secret_is_told_in_a_reason_or_logged(
    sink: AppriseSink, service: FakeJson, log: list[str]
) -> None:
    """Apprise logs what it does, with hosts, answers and parts of URLs."""
    secret = "pass-word"
    with capture_logs() as logged:
        endpoint = configured(sink, service.apprise_url)
        service.answers(401, secret)
        reply = await sink.send(duty_of(endpoint), now=NOW)
        with pytest.raises(InvalidFields) as caught:
            configured(sink, f"json://u:{secret}@", f"feishu://{secret}")
    for told in (repr(reply), repr(logged), *log, repr(endpoint), str(caught.value)):
        assert secret not in told
    assert not [line for line in log if line.startswith("apprise")]


async def test_without_the_library_it_says_what_to_install(
    sink: AppriseSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = configured(sink, "json://example.com")
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(InvalidFields, match=r"klingel\[apprise\]"):
        configured(sink, "json://example.com")
    reply = await sink.send(duty_of(endpoint), now=NOW)
    assert (outcome(reply), "klingel[apprise]" in reply.reason) == (AttemptOutcome.RETRY, True)


def test_nobody_waits_while_it_is_loaded() -> None:
    """Which takes seconds, once in a process: so in one of its own."""
    program = """
import asyncio
from handlers.sinks.apprise import AppriseSink
from service.domain.errors import Unavailable
from service.domain.secrets import Vault
from service.network.dialler import Guard

async def main():
    sink = AppriseSink(Guard(), Vault(["a-secret-for-tests-0123456789"]))
    try:
        sink.configure({"urls": ["json://example.com"]}, pointer="#")
    except Unavailable as error:
        print("first", error)
    await sink.load()
    print("then", sink.configure({"urls": ["json://example.com"]}, pointer="#")[0])
    sink.close()

asyncio.run(main())
"""
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    first, then = told.splitlines()
    assert first.startswith("first Apprise is being loaded")
    assert then == f"then {{'urls': ['json://{MASK}']}}"
