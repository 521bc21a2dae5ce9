"""Apprise: the bridge to the services that Klingel has no kind of its own for."""

import asyncio
import ipaddress
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Final
from weakref import WeakValueDictionary

import structlog
from pydantic import Field

from handlers.messages import Message, Mood, message_of
from handlers.sinks.confinement import Confinement, confined
from handlers.sinks.credentials import MASK, MASKED, seal, unseal
from service.domain.deliveries import AttemptOutcome, Duty, Reply
from service.domain.endpoints import Endpoint
from service.domain.errors import Fault, Unavailable
from service.domain.faults import InvalidFields, accept, collecting
from service.domain.ids import AccountId, DeliveryId, EndpointId
from service.domain.models import StrictModel
from service.domain.secrets import Vault
from service.network.dialler import Guard

if TYPE_CHECKING:
    from apprise import AppriseAsset, NotifyBase

NOT_INSTALLED: Final = (
    "Apprise is not installed beside this Klingel: pip install 'klingel[apprise]' (in a clone: '.[apprise]')."
)
MOST_URLS: Final = 10
THREADS: Final = 16
THREADS_PER_ENDPOINT: Final = 2  # one that hangs leaves room for the others
THREADS_PER_ACCOUNT: Final = 4
# A thread cannot be ended from outside: its sockets end it, which are shut down at the last of these at the latest.
LONGEST_CONNECT_S: Final = 4.0
LONGEST_READ_S: Final = 8.0  # for the next byte
LONGEST_S: Final = 12.0  # for all of it; before the attempt's deadline, so that what happened can be told
REMEMBERED: Final = 4096  # deliveries that some of an endpoint's services have and others have not

_UNPROVEN: Final = "Apprise reports success whatever {} answers, so nothing could be promised."
_LOCAL: Final = "It would reach the machine that Klingel runs on, not a service."
_KEY_FILE: Final = "It reads a key file from the machine that Klingel runs on."
_THREADED: Final = "It works in threads of its own, out of sight of the guard."
# By the plugin's module, so that a service's own https:// URLs are recognised too.
REFUSED: Final[Mapping[str, str]] = {
    "feishu": _UNPROVEN.format("Feishu"),
    "lark": _UNPROVEN.format("Lark"),
    "dingtalk": _UNPROVEN.format("DingTalk"),
    "wecombot": _UNPROVEN.format("WeCom"),
    "rsyslog": "Nobody acknowledges what is sent there.",
    "dbus": _LOCAL,
    "glib": _LOCAL,
    "gnome": _LOCAL,
    "macosx": _LOCAL,
    "windows": _LOCAL,
    "syslog": _LOCAL,
    "blink1": _LOCAL,
    "fcm": _KEY_FILE,
    "vapid": _KEY_FILE + " There is a kind for this: web_push.",
    "mqtt": _THREADED,
    "xmpp": _THREADED,
}
NOTIFY_TYPES: Final[Mapping[Mood, str]] = {
    Mood.WORKING: "info",
    Mood.GOOD: "success",
    Mood.BAD: "failure",
    Mood.WARNING: "warning",
    Mood.NOTE: "info",
}

log = structlog.get_logger()


class AppriseConfig(StrictModel):
    """The URLs carry passwords and tokens, so they are kept sealed; readers see their schemes only."""

    urls: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=4096)]], Field(min_length=1, max_length=MOST_URLS)
    ]


class AppriseSink:
    """Delivers to endpoints of kind `apprise`."""

    def __init__(self, guard: Guard, vault: Vault) -> None:
        self._guard = guard
        self._vault = vault
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="apprise")
        self._gates: WeakValueDictionary[EndpointId | AccountId, asyncio.Semaphore] = WeakValueDictionary()
        self._under_way: set[Confinement] = set()
        # Which of its endpoint's services have a delivery: a retry goes to the others only. Forgotten at a restart.
        self._sent: OrderedDict[DeliveryId, set[int]] = OrderedDict()

    def close(self) -> None:
        """What is under way ends, or the process would not."""
        for confinement in self._under_way:
            confinement.cut()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def load(self) -> "_Library":
        """Apprise, once it is loaded."""
        return await asyncio.wrap_future(_loading())

    def configure(
        self, raw: object, *, pointer: str, before: Endpoint | None = None
    ) -> tuple[Mapping[str, Any], str | None]:
        """
        Raises:
            InvalidFields: also where Apprise is not installed.
            Unavailable: it is still being loaded.
        """
        if not _is_installed():
            raise InvalidFields([Fault(NOT_INSTALLED, pointer)])
        if not _loading().done():
            raise Unavailable(
                "Apprise is being loaded, as once after each start. Try again in a few seconds."
            )
        library = _loading().result()
        if before is not None and isinstance(raw, dict):
            raw = {"urls": before.config["urls"]} | raw
            raw["urls"] = _unmasked(raw["urls"], before.config["urls"], unseal(self._vault, before)["urls"])
        schemes: list[str] = []
        faults: list[Fault] = []
        config: AppriseConfig | None = None
        with collecting(faults):
            config = accept(AppriseConfig, raw, pointer=pointer)
        refused = {fault.pointer for fault in faults}
        urls = raw.get("urls") if isinstance(raw, dict) else None
        for index, url in enumerate(urls[:MOST_URLS] if isinstance(urls, list) else []):
            place = f"{pointer}/urls/{index}"
            if isinstance(url, str) and place not in refused:
                try:
                    schemes.append(self._scheme(library, url))
                except _Unusable as error:
                    faults.append(Fault(str(error), place))
        if faults or config is None:
            raise InvalidFields(faults)
        return {"urls": [f"{scheme}://{MASK}" for scheme in schemes]}, seal(
            self._vault, {"urls": config.urls}
        )

    def _scheme(self, library: "_Library", url: str) -> str:
        """
        Raises:
            _Unusable: with the reason.
        """
        if url.endswith(f"://{MASK}"):
            raise _Unusable(MASKED)
        with confined(None):
            scheme = library.scheme(url)
            plugin = library.plugin(url)
        with suppress(ValueError):
            literal = ipaddress.ip_address(str(getattr(plugin, "host", "")).strip("[]"))
            if self._guard.refusal(literal) is not None:
                raise _Unusable("Its host is not at a public address.")
        return scheme

    async def send(self, duty: Duty, *, now: datetime) -> Reply:  # noqa: ARG002 - a sink is told the time
        if not _is_installed():
            return Reply(status_code=None, reason=NOT_INSTALLED)
        library = await self.load()
        message = message_of(duty.event)
        urls = unseal(self._vault, duty.endpoint)["urls"]
        sent = self._sent_of(duty.id)
        failed: list[_Told] = []
        for index, url in enumerate(urls):
            if index not in sent:
                told = await self._in_thread(duty.endpoint, self._tell, library, url, message, sent, index)
                if told.problem is not None:
                    failed.append(told)
        if not failed:
            self._sent.pop(duty.id, None)
            return Reply(status_code=None, reason="sent", ending=AttemptOutcome.DELIVERED)
        return Reply(
            status_code=failed[0].status_code,
            reason="; ".join(f"{told.scheme}: {told.problem}" for told in failed),
            ending=AttemptOutcome.RETRY,
        )

    def _sent_of(self, id: DeliveryId) -> set[int]:
        sent = self._sent.setdefault(id, set())
        self._sent.move_to_end(id)
        if len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)
        return sent

    async def _in_thread(
        self, endpoint: Endpoint, function: Callable[..., "_Told"], *arguments: Any
    ) -> "_Told":
        """What it gives. Its places are free again when the thread has ended, which it does soon after nobody waits
        for it any more.
        """
        loop = asyncio.get_running_loop()
        confinement = Confinement(self._guard)
        gates = (
            self._gate(endpoint.id, THREADS_PER_ENDPOINT),
            self._gate(endpoint.account_id, THREADS_PER_ACCOUNT),
        )
        async with AsyncExitStack() as entering:
            for gate in gates:
                await entering.enter_async_context(gate)
            running = self._threads.submit(function, confinement, *arguments)
            entering.pop_all()  # to be left when it has ended
        self._under_way.add(confinement)

        def leave() -> None:
            self._under_way.discard(confinement)
            for gate in gates:
                gate.release()

        def ended(_running: "Future[_Told]") -> None:
            with suppress(RuntimeError):  # the loop is closed: there is nobody to make room for
                loop.call_soon_threadsafe(leave)

        running.add_done_callback(ended)
        deadline = loop.call_later(LONGEST_S, confinement.cut)
        try:
            return await asyncio.wrap_future(running)
        except asyncio.CancelledError:
            confinement.cut()
            raise
        finally:
            deadline.cancel()

    def _gate(self, id: EndpointId | AccountId, places: int) -> asyncio.Semaphore:
        return self._gates.setdefault(id, asyncio.Semaphore(places))

    def _tell(
        self,
        confinement: Confinement,
        library: "_Library",
        url: str,
        message: Message,
        sent: set[int],
        index: int,
    ) -> "_Told":
        scheme = "?"
        with confined(confinement), _EAR.listening() as heard:
            try:
                scheme = library.scheme(url)
                plugin = library.plugin(url)
                plugin.socket_connect_timeout = min(plugin.socket_connect_timeout, LONGEST_CONNECT_S)
                plugin.socket_read_timeout = min(plugin.socket_read_timeout, LONGEST_READ_S)
                _pause_as_allowed(plugin, confinement)
                taken = plugin.notify(
                    title=message.title,
                    body=message.body if message.link is None else f"{message.body}\n{message.link}",
                    notify_type=NOTIFY_TYPES[message.mood],
                    body_format="text",
                )
            except _Unusable as error:
                return _Told(scheme, problem=str(error))
            except Exception as error:  # noqa: BLE001 - somebody else's code, in hundreds of modules
                if confinement.refusal is not None:
                    return _Told(scheme, problem=confinement.refusal)
                log.warning("apprise.broke", scheme=scheme, error=type(error).__name__)
                return _Told(scheme, problem=f"Apprise broke: {type(error).__name__}")
        if taken and not confinement.is_cut:  # cut off, an answer may look like a whole one
            sent.add(index)
            return _Told(scheme)
        if heard:
            return _Told(scheme, problem=f"refused with {heard[-1]}", status_code=heard[-1])
        return _Told(scheme, problem=confinement.refusal or "not sent")


@dataclass(frozen=True, slots=True)
class _Told:
    """What became of one service's notification."""

    scheme: str
    problem: str | None = None
    status_code: int | None = None


class _Unusable(Exception):
    """Nothing is sent to such a URL; the message says why, and not what the URL is."""


class _Ear(logging.Handler):
    """Apprise tells what was answered only to its log, which names hosts and users: the status is heard, no more."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._here = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        heard: list[int] | None = getattr(self._here, "heard", None)
        if heard is not None:
            heard += [int(code) for code in re.findall(r"error=(\d{3})\b", record.getMessage())]

    @contextmanager
    def listening(self) -> Iterator[list[int]]:
        """The statuses that are told in this thread until the block ends."""
        heard: list[int] = []
        self._here.heard = heard
        try:
            yield heard
        finally:
            del self._here.heard


_EAR: Final = _Ear()


class _Library:
    """Apprise itself, kept from following redirects, writing files and logging."""

    def __init__(self) -> None:
        import apprise  # noqa: PLC0415 - an extra, and slow to load
        from apprise.manager_plugins import NotificationManager  # noqa: PLC0415

        logger = logging.getLogger("apprise")
        logger.propagate = False
        logger.addHandler(_EAR)
        self._instantiate = apprise.Apprise.instantiate
        self._read = apprise.plugins.url_to_dict
        self._plugins = NotificationManager()  # type: ignore[no-untyped-call]
        self._plugins.load_modules()  # type: ignore[no-untyped-call]
        self._asset: AppriseAsset = apprise.AppriseAsset(
            http_redirects=False,
            storage_mode=apprise.PersistentStoreMode.MEMORY,
            pgp_autogen=False,
            pem_autogen=False,
            secure_logging=True,
        )

    def scheme(self, url: str) -> str:
        """Of the plugin that the URL is for, also where it is a service's own https:// URL.

        Raises:
            _Unusable: Apprise does not know it, or Klingel does not take it.
        """
        read = self._read(url)  # type: ignore[no-untyped-call]
        if read is None:
            raise _Unusable("Apprise knows no service by this URL, or it lacks something.")
        scheme = str(read["schema"])
        plugin = self._plugins[scheme]
        module = plugin.__module__.removeprefix("apprise.plugins.").partition(".")[0]
        if not plugin.__module__.startswith("apprise.plugins."):
            raise _Unusable("Only services that Apprise brings itself are taken.")
        if module in REFUSED:
            raise _Unusable(f"{scheme}:// is not taken. {REFUSED[module]}")
        if not plugin.enabled:
            raise _Unusable(f"{scheme}:// needs a library that is not installed here.")
        return scheme

    def plugin(self, url: str) -> "NotifyBase":
        """
        Raises:
            _Unusable: the URL lacks something.
        """
        plugin = self._instantiate(url, asset=self._asset)
        if plugin is None:
            raise _Unusable("Apprise cannot use this URL: it lacks something, or has too much.")
        plugin.redirects = False  # whatever the URL asks for
        return plugin


def _pause_as_allowed(plugin: "NotifyBase", confinement: Confinement) -> None:
    """It sleeps between requests, some services as long as the other side tells it to."""
    throttle = plugin.throttle

    def pause(last_io: datetime | None = None, wait: float | None = None) -> None:
        confinement.pause(plugin.request_rate_per_sec if wait is None else wait)
        throttle(last_io=last_io, wait=wait)  # type: ignore[no-untyped-call]

    plugin.throttle = pause  # type: ignore[method-assign]


def _is_installed() -> bool:
    return find_spec("apprise") is not None


@cache
def _loading() -> "Future[_Library]":
    """Once for the process: it takes seconds, in which others want to be served."""
    loader = ThreadPoolExecutor(1, thread_name_prefix="apprise-loader")
    loading = loader.submit(_Library)
    loader.shutdown(wait=False)
    return loading


def _unmasked(given: object, shown: Sequence[str], kept: Sequence[str]) -> object:
    """As they were read, sent back: each masked URL is the next stored one of its scheme."""
    if not isinstance(given, list):
        return given
    left = list(zip(shown, kept, strict=True))
    urls: list[object] = []
    for entry in given:
        match = next((pair for pair in left if pair[0] == entry), None)
        if match is not None:
            left.remove(match)
        urls.append(entry if match is None else match[1])
    return urls
