"""What stands between Klingel and its work, found before a task finds it: each fault with how to mend it."""

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import httpx

from handlers.providers.kling import authorization_for
from service.configuration import load_server_settings
from service.domain.errors import ConfigurationError
from service.domain.times import Clock, utc_now
from service.providers import ConfiguredProvider, provider_hint, providers_of
from service.settings import ProviderName, Settings, environment
from storage.database import Inspected, shown
from storage.opening import inspect_database

TIMEOUT_S: Final = 20.0
WHERE: Final = {"host", "port", "public_url"}  # the settings of which one says where Klingel is reached
LEAST_FREE: Final = 512 * 1024 * 1024
SLOW_SYNC_S: Final = 0.1
LARGEST_SKEW: Final = timedelta(seconds=30)
# A JWT of ours is valid from 5 s ago on: with a clock that is ahead by more than that, the provider refuses it.
LARGEST_SKEW_SIGNED: Final = timedelta(seconds=5)
# Reads that need the key and concern no task. CometAPI "How to list available models" names the one as needing
# authentication; the other is Kling's "Account information", at most one request a second.
HARMLESS: Final[Mapping[ProviderName, str]] = {
    ProviderName.COMETAPI: "/v1/models",
    ProviderName.KLING: "/account/costs",
}


class CheckVerdict(StrEnum):
    OK = "ok"
    UNKNOWN = "unknown"  # could not be checked
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """
    Args:
        remedy: what to do; for what could not be checked, what would let it be.
    """

    check: str
    verdict: CheckVerdict
    detail: str
    remedy: str | None = None


def ok(check: str, detail: str) -> CheckResult:
    return CheckResult(check, CheckVerdict.OK, detail)


def fault(check: str, detail: str, remedy: str) -> CheckResult:
    return CheckResult(check, CheckVerdict.FAULT, detail, remedy)


def unknown(check: str, detail: str, remedy: str) -> CheckResult:
    return CheckResult(check, CheckVerdict.UNKNOWN, detail, remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doctor:
    """
    Args:
        url: of the running Klingel.
        url_is_given: by a person; else it follows from the settings, and the key goes to this machine alone, lest the
            `.env` of some folder lead it elsewhere.
        key: an admin key of it; without one it is not told to call itself.
        ask_provider: whether the provider may be asked the one question that costs nothing.
        transport: of every request; httpx's own by default.
    """

    settings: Settings
    url: str
    url_is_given: bool
    key: str | None
    ask_provider: bool = True
    transport: httpx.BaseTransport | None = None
    clock: Clock = utc_now

    def findings(self) -> Iterator[CheckResult]:
        """One after the other, as they are found."""
        providers = yield from self._settings()
        yield from self._disk()
        yield from self._database()
        with httpx.Client(transport=self.transport, timeout=TIMEOUT_S, trust_env=False) as client:
            running = self._server(client)
            yield running
            yield self._public_url(client, running, providers)
            for provider in providers:
                yield from self._provider(client, provider, is_alone=len(providers) == 1)

    def _settings(self) -> Generator[CheckResult, None, Sequence[ConfiguredProvider]]:
        """Returns which providers they name; none where they are faulty."""
        settings = self.settings
        providers: Sequence[ConfiguredProvider] = ()
        try:
            providers = providers_of(settings, environment()).all
            for provider in providers:
                if provider.key is not None:
                    authorization_for(provider.key.get_secret_value(), self.clock)
        except ConfigurationError as error:
            yield fault("settings", str(error), "Change it in the environment or in .env, and start again.")
            return providers
        if not _is_here(settings.host):
            yield fault("settings", f"HOST={settings.host} is no address of this machine", "Change HOST.")
            return providers
        named = f"provider{'' if len(providers) == 1 else 's'} {', '.join(each.name for each in providers)}"
        yield ok("settings", f"{named}, data in {settings.data_dir.absolute()}")
        return providers

    def _disk(self) -> Iterator[CheckResult]:
        folder = _nearest(self.settings.data_dir)
        try:
            free = shutil.disk_usage(folder).free
            took = _sync(folder)
        except OSError as error:
            yield fault(
                "disk",
                f"{folder}: {error.strerror}",
                "Make it writable for whoever runs Klingel, or choose another with KLINGEL_DATA_DIR.",
            )
            return
        room = f"{free / 1024**3:.1f} GiB free in {folder.absolute()}"
        if free < LEAST_FREE:
            yield fault(
                "disk", room, "Make room, or let less be kept: KLINGEL_RETENTION_DAYS, KLINGEL_STORE_URL."
            )
        else:
            yield ok("disk", room)
        took_ms = f"a write is on disk after {took * 1000:.1f} ms"
        if took > SLOW_SYNC_S:
            yield fault(
                "fsync", took_ms, "Each commit waits for this: put KLINGEL_DATA_DIR on a faster disk."
            )
        else:
            yield ok("fsync", took_ms)

    def _database(self) -> Iterator[CheckResult]:
        at, name = self.settings.database_at, shown(self.settings.database_at)
        if isinstance(at, Path) and not at.exists():
            yield unknown("database", f"{name} is not there yet", "`klingel serve` makes it.")
            return
        try:
            found = inspect_database(at)
        except ConfigurationError as error:
            yield fault("database", str(error), "Restore a backup, or name another in KLINGEL_DATABASE_URL.")
            return
        yield _version(name, found)
        if found.processes:
            yield _shared(found.processes, found.dispatchers or 0)

    def _server(self, client: httpx.Client) -> CheckResult:
        try:
            answer = client.get(f"{self.url}/readyz")
            ready = answer.json()
            checks = {str(name): str(state) for name, state in ready["checks"].items()}
        except httpx.HTTPError as error:
            return fault(
                "server",
                f"{self.url} does not answer: {_said(error)}",
                "Start it with `klingel serve`, or say with KLINGEL_URL where it is.",
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return fault("server", f"what answers at {self.url} is not Klingel", "Change KLINGEL_URL.")
        if wrong := [f"{name} {state}" for name, state in checks.items() if state != "ok"]:
            return fault(
                "server", f"{self.url} is not ready: {', '.join(wrong)}", "Its log says why; then restart it."
            )
        return ok("server", f"{self.url} is ready: {', '.join(checks)}")

    def _public_url(
        self, client: httpx.Client, running: CheckResult, providers: Sequence[ConfiguredProvider]
    ) -> CheckResult:
        check = "public URL"
        settings = self.settings
        is_far = any(not _is_local(provider.base_url) for provider in providers)
        if _is_local(settings.reachable_url) and is_far:
            return fault(
                check,
                f"the provider is told to call back at {settings.reachable_url}, which only this machine reaches",
                "Set KLINGEL_PUBLIC_URL to the address of a reverse proxy or tunnel that leads here.",
            )
        if running.verdict is not CheckVerdict.OK:
            return unknown(check, "Klingel has to run for it", "Mend `server` first.")
        if self.key is None or not (self.url_is_given or _is_here(settings.host)):
            return unknown(check, "it takes an admin key", "Set KLINGEL_API_KEY.")
        try:
            answer = client.post(f"{self.url}/v1/probe", headers={"authorization": f"Bearer {self.key}"})
        except httpx.HTTPError as error:
            return unknown(check, f"the running Klingel could not be asked: {_said(error)}", "Try again.")
        if answer.status_code in {401, 403}:
            return unknown(check, "the key in KLINGEL_API_KEY is no admin key", "Use one that is.")
        if answer.status_code != 200:
            return unknown(check, f"the running Klingel answered {answer.status_code}", "Update it.")
        probed = answer.json()
        says_where = settings.port != 0 and not WHERE.isdisjoint(settings.model_fields_set)
        if says_where and probed["public_url"] != settings.reachable_url:
            return fault(
                check,
                f"the running Klingel uses {probed['public_url']}, the settings here say {settings.reachable_url}",
                "Restart Klingel, or run this where its settings are.",
            )
        are_paid = any(provider.kind is not ProviderName.SANDBOX for provider in providers)
        return _reached(check, probed, tasks_are_paid=are_paid)

    def _provider(
        self, client: httpx.Client, provider: ConfiguredProvider, *, is_alone: bool
    ) -> Iterator[CheckResult]:
        """The key, and by the moment at which the provider answers, the clock."""
        check = "provider key" if is_alone else f"key of {provider.name}"
        clock = "clock" if is_alone else f"clock of {provider.name}"
        if provider.kind not in HARMLESS or provider.key is None:
            yield unknown(check, "the sandbox needs none", provider_hint(self.settings))
            yield unknown(clock, "the sandbox has this machine's", "It is compared with a real provider's.")
            return
        if not self.ask_provider:
            yield unknown(check, "the provider was not asked", "Leave out --no-provider.")
            yield unknown(clock, "the provider was not asked", "Leave out --no-provider.")
            return
        key = provider.key.get_secret_value()
        now = self.clock()
        day = {"start_time": _milliseconds(now - timedelta(days=1)), "end_time": _milliseconds(now)}
        query = day if provider.kind is ProviderName.KLING else {}
        path = HARMLESS[provider.kind]
        asked = f"GET {provider.base_url}{path}"
        try:
            answer = client.get(
                provider.base_url + path,
                params=query,
                headers={"authorization": authorization_for(key, self.clock)()},
            )
        except ConfigurationError as error:
            yield fault(check, str(error), "Set its key anew.")
            return
        except httpx.HTTPError as error:
            yield fault(
                check,
                f"{asked}: {_said(error)}",
                "Look at its URL, and whether this machine may connect to it.",
            )
            yield unknown(clock, "the provider did not answer", f"Mend `{check}` first.")
            return
        yield _key(check, asked, answer)
        yield self._clock(clock, answer, signed=":" in key)

    def _clock(self, check: str, answer: httpx.Response, *, signed: bool) -> CheckResult:
        now = self.clock()
        try:
            theirs = parsedate_to_datetime(answer.headers["date"])
        except (KeyError, ValueError):
            return unknown(check, "the provider's answer has no date", "Compare it by hand: date -u")
        skew = now - (theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC))
        least = -1.0 if skew < timedelta() else 1.0
        # Their date is in whole seconds, and the answer took a moment: up to a second is none.
        off = max(abs(skew.total_seconds()) - 1, 0) * least
        if abs(off) > (LARGEST_SKEW_SIGNED if signed else LARGEST_SKEW).total_seconds():
            word = "ahead of" if off > 0 else "behind"
            return fault(
                check,
                f"{abs(off):.0f} s {word} the provider's",
                "Let it be set by NTP: timedatectl set-ntp true",
            )
        return ok(check, "agrees with the provider's")


def find_settings() -> tuple[Settings | None, Sequence[CheckResult]]:
    """Or, where they cannot be read, what is wrong with them."""
    try:
        return load_server_settings(), ()
    except ConfigurationError as error:
        return None, [fault("settings", str(error), "Change them in the environment or in .env.")]


def _reached(check: str, probed: Mapping[str, Any], *, tasks_are_paid: bool) -> CheckResult:
    where = probed["public_url"]
    if probed["reached"]:
        took = f"{probed['duration_ms']} ms"
        if tasks_are_paid and str(where).startswith("http://") and not _is_local(str(where)):
            return fault(
                check,
                f"{where} leads here ({took}), in the clear",
                "Put TLS in front: whoever listens learns callback URLs and results.",
            )
        return ok(check, f"a callback through {where} arrived here after {took}")
    return fault(
        check,
        f"a callback through {where} did not arrive: {probed['problem']}",
        "Let the proxy or tunnel pass POST /callbacks/… on unchanged, and set KLINGEL_PUBLIC_URL to its address. "
        "Where a network lets nobody out and in again, try from elsewhere: anything but 404 to "
        f"`curl -X POST {where}/callbacks/x/x/x` is not Klingel.",
    )


def _key(check: str, asked: str, answer: httpx.Response) -> CheckResult:
    if answer.status_code in {401, 403}:
        return fault(
            check,
            f"{asked} answered {answer.status_code}",
            "Take a valid key from the provider's console; it may be for another region or have been revoked.",
        )
    if answer.is_success:
        return ok(check, f"{asked} answered {answer.status_code}")
    return unknown(check, f"{asked} answered {answer.status_code}", "The first task will tell.")


def _version(name: str, found: Inspected) -> CheckResult:
    if found.version > found.newest:
        return fault(
            "database",
            f"{name} is of version {found.version}, this Klingel knows {found.newest}",
            "Update Klingel: a newer one has written it.",
        )
    if found.version == 0:
        return unknown("database", f"{name} is empty", "`klingel serve` or `klingel migrate` fills it.")
    if found.version < found.newest:
        return fault(
            "database",
            f"{name} is of version {found.version}, this Klingel needs {found.newest}",
            "Run `klingel migrate`, with Klingel stopped; `klingel serve` does it at its start, too.",
        )
    return ok("database", f"{name} opens and is of version {found.version}, the newest")


def _shared(processes: int, dispatchers: int) -> CheckResult:
    check = "processes"
    if not dispatchers:
        return fault(
            check,
            f"{processes} {'shares' if processes == 1 else 'share'} the database, and none dispatches: nothing is sent "
            "or delivered",
            "Start one more: KLINGEL_ROLES=dispatch klingel serve",
        )
    return ok(
        check,
        f"{processes} {'shares' if processes == 1 else 'share'} the database, {dispatchers} of them dispatch",
    )


def _nearest(folder: Path) -> Path:
    """This folder, or the nearest above it that there is: Klingel makes the rest."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _sync(folder: Path) -> float:
    """Seconds until a small write is on disk, at best of five: whatever else the machine does only makes it slower."""
    took = []
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".klingel-doctor-") as file:
        for _ in range(5):
            started = time.monotonic()
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
            took.append(time.monotonic() - started)
    return min(took)


def _is_here(host: str) -> bool:
    """Whether this machine could listen there."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _is_local(url: str) -> bool:
    return httpx.URL(url).host in {"127.0.0.1", "::1", "localhost"}


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
