"""The composition root: the one module that imports every concrete thing, and puts the house together."""

import asyncio
import os
import resource
import socket
import sys
from collections import ChainMap
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import httpx
import structlog
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.callbacks import CallbackReader, CallbackReceiver
from handlers.chat.commands import CommandLoop
from handlers.chat.desk import Desk
from handlers.chat.drafting import Drafter
from handlers.chat.platforms import LISTENING, SPEAKING, open_platforms, open_voices
from handlers.chat.sink import ChatSink, endpoint_model
from handlers.chat.telling import Teller
from handlers.providers.kling import KlingProvider, authorization_for, callback_readers
from handlers.providers.transport import LateTransport
from handlers.sinks.amqp import AmqpConfig, AmqpSink
from handlers.sinks.apprise import AppriseConfig, AppriseSink
from handlers.sinks.archive import DEADLINE as ARCHIVE_DEADLINE
from handlers.sinks.archive import ArchiveSink, Origins
from handlers.sinks.brokers import open_brokers
from handlers.sinks.followup import FollowUpConfig, FollowUpSink
from handlers.sinks.mqtt import MqttConfig, MqttSink
from handlers.sinks.nats import NatsConfig, NatsSink
from handlers.sinks.ntfy import NtfyConfig, NtfySink
from handlers.sinks.redis import RedisConfig, RedisSink
from handlers.sinks.web_push import WebPushConfig, WebPushSink
from handlers.sinks.webhook import WebhookConfig, WebhookSink
from service.admin_keys import check_named_key, ensure_admin_key
from service.api import (
    bots,
    deliveries,
    dropin,
    endpoints,
    events,
    files,
    health,
    keys,
    openapi,
    probing,
    task_types,
    tasks,
    usage,
    web_push,
)
from service.api.problems import EXCEPTION_HANDLERS
from service.api.pruning import prune
from service.api.requests import Exchanges
from service.api.state import Part, State
from service.batching import Batcher
from service.dashboard.sessions import Sessions
from service.deadlines import Deadlines
from service.delivery import Deliverer, Sink
from service.domain.errors import ConfigurationError
from service.domain.ids import AccountId, KeyId
from service.domain.kept import ARCHIVE
from service.domain.links import Links
from service.domain.secrets import (
    CallbackTokens,
    FileSignatures,
    PushKeys,
    SessionSignatures,
    Vault,
    sandbox_key,
)
from service.domain.task_types import SHOWN
from service.domain.tasks import OutputKind
from service.domain.times import Clock, utc_now
from service.doors.guesses import KEYS, Guesses
from service.doors.proxies import TrustedProxies
from service.doors.recognition import KnownKeys
from service.doors.routing import Doors, Plain
from service.doors.sharing import shares_of
from service.endpoint_names import named_endpoint
from service.expiry import Expiry
from service.holdings import Holdings
from service.keeping import Keeper
from service.lanes import Lanes
from service.lines import Lines
from service.network.dialler import EVERYWHERE, Guard, open_dialler
from service.notices import Notices, Topic
from service.observability.logs import configure_logs
from service.observability.metrics import Metrics
from service.observability.tracing import UNTRACED, Tracing, are_traces_wanted
from service.observability.vitals import Vitals
from service.outputs import Outputs
from service.previews import Previews
from service.probing import Probes
from service.processes import EVERY, Presence, boot_seconds
from service.providers import ConfiguredProvider, Providers, provider_hint, providers_of
from service.publication import Publisher
from service.retention import Retention
from service.sending import Provider, TaskSender
from service.server import run_server
from service.settings import ProviderName, Role, Settings, environment
from service.stopping import Stopping
from service.streams import Streams
from service.submission import Submitter
from service.submits import SubmitReader
from service.wakeups import Wakeups
from storage.database import shown
from storage.files import Files
from storage.glances import Glances
from storage.opening import listening_at, open_database

if TYPE_CHECKING:  # loaded where they are used
    from handlers.providers.sandbox import Sandbox
    from storage.store import Store

OPEN_FILES: Final = 65_536

log = structlog.get_logger()


class AppState(State):
    """And what the doors of providers, chats and people need."""

    sessions: Sessions
    callbacks: CallbackReceiver
    desk: Desk


class App(Starlette):
    """With one layer for requests, in the place of Starlette's own."""

    def build_middleware_stack(self) -> ASGIApp:
        app: ASGIApp = Exchanges(self.router, self.exception_handlers)
        for outer in reversed(self.user_middleware):
            app = outer.cls(app, *outer.args, **outer.kwargs)
        return app


class CallbackDoor:
    """As plain ASGI: what Starlette puts around a handler takes as long as the handler needs to read a callback."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await scope["state"]["callbacks"].receive(scope, receive)
        await response(scope, receive, send)


async def turn_callback_away(request: Request[AppState]) -> Response:
    return request.state["callbacks"].turn_away(request)


async def receive_command(request: Request[AppState]) -> Response:
    return await request.state["desk"].receive(request)


# How each kind of endpoint is configured, at the doors for programs and for people.
CONFIGS: Final[Mapping[str, type[BaseModel]]] = {
    "webhook": WebhookConfig,
    "ntfy": NtfyConfig,
    "web_push": WebPushConfig,
    "apprise": AppriseConfig,
    "nats": NatsConfig,
    "mqtt": MqttConfig,
    "redis": RedisConfig,
    "amqp": AmqpConfig,
    "task": FollowUpConfig,
    **{voice.name: endpoint_model(voice) for voice in (*SPEAKING, *LISTENING)},
}

HEALTH: Final[Sequence[BaseRoute]] = (  # also of a process that has no other doors
    Route("/healthz", health.healthz, methods=["GET"]),
    Route("/readyz", health.readyz, methods=["GET"]),
    Route("/metrics", health.metrics, methods=["GET"]),
)
ROUTES: Final[Sequence[BaseRoute]] = (
    *HEALTH,
    Route("/v1/tasks", Plain(tasks.submit), methods=["POST"]),
    Route("/v1/tasks", tasks.index, methods=["GET"]),
    Route("/v1/tasks/{id}", Plain(tasks.show), methods=["GET"]),
    Route("/v1/tasks/{id}/events", Plain(events.of_task), methods=["GET"]),
    Route("/v1/tasks/{id}/callbacks", tasks.callbacks, methods=["GET"]),
    Route("/v1/tasks/{id}/refresh", tasks.refresh, methods=["POST"]),
    Route("/v1/task-types", task_types.index, methods=["GET"]),
    Route("/v1/events", Plain(events.of_account), methods=["GET"]),
    Route("/v1/events/{id}", events.show, methods=["GET"]),
    Route("/v1/events/{id}/explain", events.explain, methods=["GET"]),
    Route("/v1/endpoints", endpoints.create, methods=["POST"]),
    Route("/v1/endpoints", endpoints.index, methods=["GET"]),
    Route("/v1/endpoints/{id}", endpoints.show, methods=["GET"]),
    Route("/v1/endpoints/{id}", endpoints.update, methods=["PATCH"]),
    Route("/v1/endpoints/{id}", endpoints.delete, methods=["DELETE"]),
    Route("/v1/endpoints/{id}/test", endpoints.test, methods=["POST"]),
    Route("/v1/endpoints/{id}/rotate-secret", endpoints.rotate_secret, methods=["POST"]),
    Route("/v1/endpoints/{id}/replay", endpoints.replay, methods=["POST"]),
    Route("/v1/deliveries", deliveries.index, methods=["GET"]),
    Route("/v1/deliveries/{id}", deliveries.show, methods=["GET"]),
    Route("/v1/deliveries/{id}/replay", deliveries.replay, methods=["POST"]),
    Route("/v1/web-push/key", web_push.key, methods=["GET"]),
    Route("/v1/files/{name}", files.show, methods=["GET"]),
    Route("/v1/keys", keys.create, methods=["POST"]),
    Route("/v1/keys", keys.index, methods=["GET"]),
    Route("/v1/keys/{id}", keys.revoke, methods=["DELETE"]),
    Route("/v1/bots", bots.create, methods=["POST"]),
    Route("/v1/bots", bots.index, methods=["GET"]),
    Route("/v1/bots/{id}", bots.show, methods=["GET"]),
    Route("/v1/bots/{id}", bots.update, methods=["PATCH"]),
    Route("/v1/bots/{id}", bots.delete, methods=["DELETE"]),
    Route("/v1/usage", usage.show, methods=["GET"]),
    Route("/v1/budgets", usage.budgets, methods=["GET"]),
    Route("/v1/budgets", usage.put_budget, methods=["PUT"]),
    Route("/v1/prune", prune, methods=["POST"]),
    Route("/v1/probe", probing.probe, methods=["POST"]),
    *dropin.routes(),
    Route("/callbacks/{provider}/{task_id}/{token}", CallbackDoor(), methods=["POST"]),
    Route("/callbacks/{provider}/{task_id}/{token}/", CallbackDoor(), methods=["POST"]),
    Route("/callbacks/{rest:anything}", turn_callback_away, methods=["POST"]),
    Route("/chat/{platform}/{bot_id}", receive_command, methods=["GET", "POST"]),
    Route(
        "/openapi.json",
        openapi.described_with(
            CONFIGS,
            {platform.name: platform.bot_model for platform in LISTENING},
        ),
        methods=["GET"],
    ),
)


@dataclass(frozen=True, slots=True)
class Hooks:
    """Given to the app: what it calls while it runs, and when its heartbeats are due."""

    on_first_key: Callable[[str], None] = lambda _key: None  # the first key of all, until it is used
    on_commit: Callable[[], None] = lambda: None  # after each, for whoever waits for what it wrote
    heartbeat: timedelta = EVERY  # between two, by which this process counts as alive where there are others
    monotonic: Callable[[], float] = boot_seconds  # seconds by which a heartbeat is late


@dataclass(slots=True)
class Controls:
    """Filled in by the app when it starts: what can be done with it from outside while it runs."""

    stop_starting: Callable[[], None] = lambda: None  # no create and no attempt begins any more
    stop_streams: Callable[[], None] = lambda: None  # ends every live stream
    wakeups: Wakeups | None = None  # of its loops, for whoever moves the clock

    def stop(self) -> None:
        """What has begun may end; requests that are being answered are waited for, and then the app is left."""
        self.stop_starting()
        self.stop_streams()


def create_app(
    settings: Settings,
    *,
    provider_transport: httpx.AsyncBaseTransport | None = None,
    clock: Clock = utc_now,
    hooks: Hooks | None = None,
    controls: Controls | None = None,
) -> Starlette:
    """The whole service; tests pass a transport and a clock, production passes neither.

    Args:
        controls: filled in when the app starts.
    """
    hooks, controls = hooks or Hooks(), controls or Controls()
    configured = providers_of(settings, environment())
    sandbox = None if configured.embedded is None else _sandbox(settings, configured.embedded)
    store = None if settings.kept_at is None else _store(settings.kept_at)
    telemetry = _telemetry(settings)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[AppState]:
        async with AsyncExitStack() as stack:  # closes in reverse order, also on error
            secrets = settings.secrets()
            database = await stack.enter_async_context(open_database(settings.database_at))
            vault, tokens, push_keys = Vault(secrets), CallbackTokens(secrets), PushKeys(secrets)
            metrics = Metrics()
            wakeups, stopping = Wakeups(clock), Stopping()
            streams = Streams(database)
            files = Files(settings.inputs_path)
            tracing = await stack.enter_async_context(telemetry)
            dispatches = Role.DISPATCH in settings.roles
            lanes = Lanes(open=dispatches, clock=clock)
            guard = Guard(settings.allow_networks)
            dialler = await stack.enter_async_context(open_dialler(guard))
            brokers = await stack.enter_async_context(open_brokers(guard))
            providers: dict[str, Provider] = {}
            for each in configured.all:
                # One each: a provider that hangs holds its own connections alone.
                client = await stack.enter_async_context(_provider_client(provider_transport))
                providers[each.name] = _provider(each, settings, client, clock, metrics)
            apprise = AppriseSink(guard, vault)
            stack.callback(apprise.close)
            sinks: dict[str, Sink] = {
                "webhook": WebhookSink(dialler, vault),
                "ntfy": NtfySink(dialler, vault),
                "web_push": WebPushSink(dialler, vault, push_keys, reachable_url=settings.reachable_url),
                "apprise": apprise,
                "nats": NatsSink(brokers, vault),
                "mqtt": MqttSink(brokers, vault),
                "redis": RedisSink(brokers, vault),
                "amqp": AmqpSink(brokers, vault),
            }

            def observe(items: int, seconds: float) -> None:
                metrics.committed(items, seconds)
                hooks.on_commit()

            batcher = Batcher(database, observe=observe)
            await stack.enter_async_context(batcher.running())
            presence = Presence(
                database, batcher, roles=settings.roles, every=hooks.heartbeat, monotonic=hooks.monotonic
            )
            notices = Notices(lambda: presence.id, listening_at(settings.database_at))
            holdings = Holdings(
                presence, notices, batcher, sole=database.sole_process, in_use=lanes.is_in_use
            )
            known_keys = KnownKeys()
            sessions = Sessions(SessionSignatures(secrets), secure=settings.is_reached_by_https, clock=clock)
            _hear(notices, presence, wakeups, lanes, streams, known_keys, sessions)
            await ensure_admin_key(
                database,
                named=_named_key(settings),
                vault=vault,
                notices=notices,
                clock=clock,
                tell=hooks.on_first_key,
            )
            database.on_doubt(notices.doubt)
            presence.on_heartbeat(notices.look_again)
            lines = Lines(notices=notices, wakeups=wakeups, clock=clock, accounts=configured.accounts)
            outputs = Outputs(kept=store is not None, expiry=wakeups.expiry, notices=notices, clock=clock)
            publisher = Publisher(
                lanes=lanes,
                holdings=holdings,
                lines=lines,
                outputs=outputs,
                streams=streams,
                notices=notices,
                presence=presence,
                clock=clock,
            )
            sinks |= {
                name: ChatSink(
                    voice,
                    vault=vault,
                    database=database,
                    batcher=batcher,
                    reachable_url=settings.reachable_url,
                )
                for name, voice in open_voices(dialler).items()
            }
            links = Links(FileSignatures(secrets), base_url=settings.reachable_url, clock=clock)
            keeper = Keeper(
                database=database,
                batcher=batcher,
                publisher=publisher,
                store=store,
                links=links,
                previews=Previews(),
                clock=clock,
            )
            provider_dialler = await stack.enter_async_context(open_dialler(Guard(EVERYWHERE)))
            origins = Origins(dialler, provider_dialler, [each.base_url for each in configured.all])
            archive = ArchiveSink(keeper, origins, largest=settings.file_max_bytes)
            deliverer = Deliverer(
                database=database,
                batcher=batcher,
                publisher=publisher,
                lanes=lanes,
                holdings=holdings,
                presence=presence,
                notices=notices,
                sinks=ChainMap(sinks, {ARCHIVE: archive}),  # beside those that people may choose
                wakeups=wakeups,
                stopping=stopping,
                metrics=metrics,
                clock=clock,
                deadlines={ARCHIVE: ARCHIVE_DEADLINE},
                tracing=tracing,
            )
            expiry = Expiry(
                database=database,
                batcher=batcher,
                publisher=publisher,
                links=links,
                wakeups=wakeups,
                clock=clock,
            )
            deadlines = Deadlines(
                database=database, batcher=batcher, publisher=publisher, wakeups=wakeups, clock=clock
            )
            submitter = Submitter(
                database=database,
                batcher=batcher,
                publisher=publisher,
                accounts=configured.accounts,
                deadlines={
                    OutputKind.IMAGE: timedelta(seconds=settings.deadline_image),
                    OutputKind.VIDEO: timedelta(seconds=settings.deadline_video),
                    OutputKind.AUDIO: timedelta(seconds=settings.deadline_audio),
                },
                files=files,
                notices=notices,
                wakeups=wakeups,
                clock=clock,
                tracing=tracing,
            )
            sender = TaskSender(
                database=database,
                batcher=batcher,
                publisher=publisher,
                lines=lines,
                providers=providers,
                files=files,
                tokens=tokens,
                callback_base_url=settings.reachable_url,
                confirm_after=timedelta(seconds=settings.confirm_after),
                queue_max_age=timedelta(seconds=settings.queue_max_age),
                presence=presence,
                notices=notices,
                wakeups=wakeups,
                stopping=stopping,
                clock=clock,
                tracing=tracing,
            )
            sinks["task"] = FollowUpSink(
                submitter=submitter,
                accounts=configured.accounts,
                database=database,
                sinks=sinks,
                vault=vault,
            )
            probes = Probes(
                client=client,
                tokens=tokens,
                provider=configured.default,
                base_url=settings.reachable_url,
                batcher=batcher,
                notices=notices,
            )
            callbacks = CallbackReceiver(
                reader_of=_callback_readers(configured, settings),
                tokens=tokens,
                batcher=batcher,
                publisher=publisher,
                metrics=metrics,
                probes=probes,
                clock=clock,
                tracing=tracing,
            )
            retention = Retention(
                database=database,
                batcher=batcher,
                files=files,
                keeper=keeper,
                keep=timedelta(days=settings.retention_days),
                keep_files=timedelta(days=settings.file_retention_days),
                keep_tasks=timedelta(days=settings.task_retention_days),
                wakeups=wakeups,
                clock=clock,
            )
            submits = SubmitReader(sinks=sinks, vault=vault, accounts=configured.accounts)
            shares = shares_of(streams=settings.account_streams)
            platforms, teller = open_platforms(dialler), Teller(vault=vault, clock=clock)
            desk = Desk(
                platforms=platforms,
                database=database,
                batcher=batcher,
                teller=teller,
                links=links,
                vault=vault,
                notices=notices,
                wakeup=wakeups.commands,
                clock=clock,
            )
            commands = CommandLoop(
                platforms=platforms,
                database=database,
                batcher=batcher,
                drafter=Drafter(
                    database=database, submits=submits, files=files, vault=vault, room=shares.bodies
                ),
                submitter=submitter,
                teller=teller,
                vault=vault,
                presence=presence,
                notices=notices,
                wakeup=wakeups.commands,
                clock=clock,
            )
            if sandbox is not None:
                await stack.enter_async_context(sandbox.running())
            for holder in (deliverer, sender, commands):
                presence.on_reap(holder.inherit)
            await stack.enter_async_context(presence.running())
            dispatching: dict[str, Part] = {
                "deliverer": deliverer,
                "deadlines": deadlines,
                "expiry": expiry,
                "submitter": sender,
                "retention": retention,
                "commands": commands,
            }
            if dispatches:
                for part in dispatching.values():
                    await stack.enter_async_context(part.running())
            await stack.enter_async_context(notices.listening())
            controls.stop_starting, controls.stop_streams = stopping.begin, streams.close
            controls.wakeups = wakeups
            stack.callback(streams.close)
            yield AppState(
                settings=settings,
                clock=clock,
                database=database,
                batcher=batcher,
                publisher=publisher,
                streams=streams,
                notices=notices,
                presence=presence,
                wakeups=wakeups,
                vault=vault,
                push_keys=push_keys,
                sinks=sinks,
                bot_desk=desk,
                desk=desk,
                providers=providers,
                submits=submits,
                submitter=submitter,
                dispatching=dispatching,
                retention=retention,
                keeper=keeper,
                links=links,
                metrics=metrics,
                probes=probes,
                glances=Glances(database),
                vitals=Vitals(database, clock),
                shares=shares,
                key_guesses=Guesses(burst=KEYS),
                known_keys=known_keys,
                callbacks=callbacks,
                sessions=sessions,
            )

    app = App(exception_handlers=EXCEPTION_HANDLERS)
    if settings.trusted_proxies:
        app.add_middleware(TrustedProxies, networks=settings.trusted_proxies)
    app.router = Doors(
        [
            *(ROUTES if Role.WEB in settings.roles else HEALTH),
            *([] if sandbox is None else [Mount("/sandbox", app=sandbox.app)]),
        ],
        load_others=_doors_for_people if Role.WEB in settings.roles else None,
        lifespan=lifespan,
    )
    return app


def _doors_for_people() -> Sequence[BaseRoute]:
    """Loaded when one of them first comes: a tenth of a second, and 5 MB."""
    from service.api import reference  # noqa: PLC0415
    from service.dashboard.routes import routes  # noqa: PLC0415

    return [*reference.ROUTES, *routes(CONFIGS)]


def _telemetry(settings: Settings) -> AbstractAsyncContextManager[Tracing]:
    """
    Raises:
        ConfigurationError: traces were asked of Klingel itself, and it lacks what it needs for that.
    """
    if not are_traces_wanted(settings.traces_url, os.environ):
        return nullcontext(UNTRACED)
    try:
        from service.observability.telemetry import open_telemetry  # noqa: PLC0415 - the libraries may not be there
    except ModuleNotFoundError:
        if settings.traces_url is not None:
            raise ConfigurationError(
                "KLINGEL_TRACES_URL needs more: pip install 'klingel[otel]' (in a clone: '.[otel]')"
            ) from None
        # `OTEL_*` may be there for everything on this machine.
        log.warning("traces.not_installed", install="klingel[otel]")
        return nullcontext(UNTRACED)
    return open_telemetry(settings.traces_url)


def _store(url: str) -> "Store":
    """
    Raises:
        ConfigurationError: it cannot be used.
    """
    from storage.store import open_store  # noqa: PLC0415 - 5 MB, where outputs are kept

    return open_store(url)


def _hear(
    notices: Notices,
    presence: Presence,
    wakeups: Wakeups,
    lanes: Lanes,
    streams: Streams,
    known_keys: KnownKeys,
    sessions: Sessions,
) -> None:
    """What other processes have committed takes effect here too."""
    notices.wake_from_here(wakeups)
    notices.on(Topic.RECALLED, lambda name: lanes.recall(named_endpoint(name)))
    notices.on(Topic.DROPPED, lambda name: lanes.recall_dropped(named_endpoint(name)))
    notices.on(Topic.ROUSED, lambda name: lanes.rouse(named_endpoint(name)))
    notices.on(Topic.EVENTS, lambda account_id: streams.has_grown(AccountId(account_id)))
    notices.on(Topic.KEYS, lambda key_id: streams.revoke(KeyId(key_id)))
    notices.on(Topic.KEYS, lambda _: known_keys.forget())
    notices.on(Topic.SESSIONS, sessions.end)
    notices.on_gap(sessions.may_have_missed)
    notices.on_gap(known_keys.forget)
    notices.on_gap(streams.may_have_missed)
    notices.on_gap(lanes.recall_all)
    presence.on_loss(lanes.abandon)


def _provider_client(transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=transport or LateTransport(), follow_redirects=False, trust_env=False)


def _provider(
    configured: ConfiguredProvider,
    settings: Settings,
    client: httpx.AsyncClient,
    clock: Clock,
    metrics: Metrics,
) -> KlingProvider:
    if configured.key is None or configured.is_embedded:
        key = sandbox_key(settings.secrets())
    else:
        key = configured.key.get_secret_value()
    authorization = authorization_for(key, clock)
    return KlingProvider(
        name=configured.name,
        client=client,
        base_url=configured.base_url,
        layout=configured.account.layout,
        authorization=authorization,
        correct=authorization.correct,
        on_call=metrics.provider_called,
        timeout=timedelta(seconds=settings.provider_timeout),
    )


def _callback_readers(configured: Providers, settings: Settings) -> Callable[[str], CallbackReader]:
    """By a provider's name, also of one that was in use before: tasks may still be with it."""
    # Of a provider that was in use before, Kling itself may sign with a secret that is still listed. A reseller has none to
    # sign with: were a signature asked of it, its callbacks, and results that are paid for, would be lost.
    of_settings = {
        str(name): settings.provider_webhook_secret if name is ProviderName.KLING else ()
        for name in ProviderName
    }
    of_accounts = {each.name: tuple(each.webhook_secrets) for each in configured.all}
    return callback_readers(
        {
            name: [secret.get_secret_value() for secret in secrets]
            for name, secrets in {**of_settings, **of_accounts}.items()
        }
    )


def _sandbox(settings: Settings, embedded: ConfiguredProvider) -> "Sandbox":
    """Signs what it calls back with, where its account says so: it is taken as a real one's callbacks are."""
    from handlers.providers.sandbox import Fault, Sandbox, SandboxSettings  # noqa: PLC0415

    # Whoever has a public URL has a proxy or a tunnel: then others connect, though they seem to be on this machine.
    is_private = settings.is_local and settings.public_url is None
    return Sandbox(
        SandboxSettings(
            step=timedelta(seconds=settings.sandbox_step),
            keys=None if is_private else frozenset({sandbox_key(settings.secrets())}),
            faults=frozenset(Fault(word) for word in settings.sandbox_faults),
            callback_origins=frozenset({settings.reachable_url}),
            webhook_secret=next((secret.get_secret_value() for secret in embedded.webhook_secrets), None),
        )
    )


def migrate(settings: Settings) -> str:
    """Brings the database up to date; what happened, in a line.

    Raises:
        ConfigurationError: it cannot be.
    """
    asyncio.run(_open_once(settings))
    return f"{shown(settings.database_at)} is up to date."


async def _open_once(settings: Settings, *, named_key: str | None = None) -> None:
    async with open_database(settings.database_at) as database:
        if named_key is not None:
            await check_named_key(database, named_key)


def _named_key(settings: Settings) -> str | None:
    return None if settings.api_key is None else settings.api_key.get_secret_value()


def serve(settings: Settings) -> int:
    """Runs until it is stopped. Gives the exit code.

    Raises:
        ConfigurationError: before anything is served.
    """
    configure_logs(settings.log)
    _raise_open_files()
    settings = settings.model_copy(update={"port": _bindable_port(settings.host, settings.port)})
    # Said before uvicorn starts, where it can be said in one line instead of a traceback.
    settings.secrets()
    asyncio.run(_open_once(settings, named_key=_named_key(settings)))
    first_keys: list[str] = []
    controls = Controls()
    app = create_app(settings, hooks=Hooks(on_first_key=first_keys.append), controls=controls)
    started = run_server(
        app,
        host=settings.host,
        port=settings.port,
        on_stopping=controls.stop,
        on_listening=lambda: _greet(settings, first_keys),
    )
    return 0 if started else 1


def _bindable_port(host: str, port: int) -> int:
    """Chosen before the server binds it: the provider must be told where to call before there is a server.

    Raises:
        ConfigurationError: it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family) as probe:
            free: int = probe.getsockname()[1]
    except OSError as error:
        raise ConfigurationError(
            f"Klingel cannot listen on {host}, port {port} ({error.strerror}). Choose another with PORT or HOST."
        ) from None
    return free


def _raise_open_files() -> None:
    """Each live stream and each attempt is an open file; the usual 1,024 are few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _greet(settings: Settings, first_keys: Sequence[str]) -> None:
    """On standard output, for a person: the log goes to standard error."""
    address = settings.local_url
    if Role.WEB not in settings.roles:
        print(f"\nKlingel dispatches; how it is doing: {address}/readyz\n", flush=True)  # noqa: T201 - as below
        return
    lines = ["", f"Klingel rings at {address}"]
    configured = providers_of(settings, environment())
    match configured.all:
        case [ConfiguredProvider(kind=ProviderName.SANDBOX) as only]:
            told = "SANDBOX" if settings.providers is None else f"{only.name}, a SANDBOX"
            told += "" if only.is_embedded else f" at {only.base_url}"
            lines.append(
                f"Provider: {told}. It makes real pictures and videos, but they are not Kling's. "
                f"{provider_hint(settings)}"
            )
        case several:
            lines += [
                f"Provider: {each.name} at {each.base_url}"
                + (", the default" if len(several) > 1 and each.name == configured.default else "")
                for each in several
            ]
            lines.append(f"They call back at {settings.reachable_url}")
    if settings.allow_networks:
        networks = ", ".join(str(network) for network in settings.allow_networks)
        lines.append(f"Receivers in {networks} may be dialled (KLINGEL_ALLOW_NETWORKS).")
    lines.append(f"Dashboard: {address}/, to be signed in to with an API key")
    key = "$KLINGEL_API_KEY"
    if first_keys:
        key = first_keys[0]
        lines.append(f"Admin key, shown until it is first used: {key}")
    lines += [
        "",
        "Try it:",
        f"  curl -sS {address}/v1/tasks \\",
        f"    -H 'Authorization: Bearer {key}' \\"
        if first_keys
        else f'    -H "Authorization: Bearer {key}" \\',
        "    -H 'Content-Type: application/json' \\",
        f'    -d \'{{"type": "{SHOWN.name}", "input": {{"prompt": "A cat puts on a hat",',
        '         "image_list": [{"image": "https://example.com/cat.png"}, {"image": "https://example.com/hat.png"}]}}\'',
        "",
    ]
    print("\n".join(lines), file=sys.stdout, flush=True)  # noqa: T201 - this is the command's output
