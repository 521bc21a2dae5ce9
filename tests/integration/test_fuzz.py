"""The real app behind its real server, asked whatever its description allows, and much that it does not."""

import asyncio
import copy
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiodns
import httpx
import pytest
import requests
import schemathesis
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants
from pydantic_core import to_json
from schemathesis.checks import ignored_auth, negative_data_rejection
from schemathesis.config import (
    CoveragePhaseConfig,
    GenerationConfig,
    PhasesConfig,
    ProjectConfig,
    ProjectsConfig,
    SchemathesisConfig,
)
from structlog.testing import LogCapture

from handlers.callbacks import LARGEST_CALLBACK
from handlers.chat.mattermost import MattermostBot
from handlers.sinks.webhook import WebhookConfig
from service.api.description.document import describe
from service.app import Controls, create_app
from service.domain.lifecycle import Verdict
from service.network.dialler import GuardedResolver
from service.server import make_server
from storage.statements import Dialect
from tests.integration.klingel import (
    ADMIN_KEY,
    IMAGE_INPUT,
    VIDEO_INPUT,
    FakeKling,
    ManualClock,
    picture,
    settings_for,
    succeed,
)
from tests.places import Places, places_of

EXAMPLES = 4  # made up for each operation, which costs most; besides those that the schemas' own edges give
BEARER = {"Authorization": f"Bearer {ADMIN_KEY}"}
NOT_FOUND = (404, "text/plain; charset=utf-8", b"Not found\n")

# The server's thread draws its jitter from `random`, which Hypothesis takes for the strategy's doing.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning"
)

bounded = settings(
    max_examples=30,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass
class Served:
    """A Klingel in a thread of its own, for callers that are no coroutines."""

    http: httpx.Client
    kling: FakeKling
    places: Places
    folder: Path

    @property
    def url(self) -> str:
        return str(self.http.base_url).rstrip("/")

    def submit(self) -> tuple[dict[str, Any], str]:
        """A task that the provider has, and the path of its callback URL."""
        response = self.http.post(
            "/v1/tasks", json={"type": "kling.multi-image-to-image", "input": IMAGE_INPUT}
        )
        assert response.status_code == 201, response.text
        create = json.loads(self.kling.requests[-1].content)
        return response.json(), httpx.URL(create["callback_url"]).path

    def call_back(self, path: str, content: bytes) -> httpx.Response:
        return self.http.post(path, content=content, headers={"authorization": ""})

    def made(self, kind: str) -> str:
        """The id of a new one."""
        match kind:
            case "tasks":
                return str(self.submit()[0]["id"])
            case "events":
                task = self.made("tasks")
                return str(self.http.get(f"/v1/tasks/{task}/events").json()["items"][0]["id"])
            case "keys":
                return str(self.http.post("/v1/keys", json={"name": "a"}).json()["id"])
            case "endpoints":
                self._make_room("endpoints")
                body = {"config": {"url": "http://nowhere.test/"}, "types": ["endpoint.test"]}
                return str(self.http.post("/v1/endpoints", json=body).json()["id"])
            case "bots":
                self._make_room("bots")
                config = {"server": "http://nowhere.test/", "command_token": "t"}
                body = {"platform": "mattermost", "config": config}
                return str(self.http.post("/v1/bots", json=body).json()["id"])
            case _:
                response = self.http.post(f"/v1/endpoints/{self.made('endpoints')}/test")
                return str(response.json()["delivery"]["id"])

    def _make_room(self, kind: str) -> None:
        """An account has only so many of them, and far more are made up here."""
        there = self.http.get(f"/v1/{kind}", params={"limit": "200"}).json()["items"]
        for one in there if len(there) > 40 else []:
            self.http.delete(f"/v1/{kind}/{one['id']}")

    def rows(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        return self.places.rows(self.folder, statement, *parameters)


async def _no_names(resolver: Any, host: str, *where: Any, look_up: Any = GuardedResolver._look_up) -> Any:
    """No name leads anywhere: what is made up here must not be dialled."""
    if host != "127.0.0.1":
        raise aiodns.error.DNSError(4, "there are no names here")
    return await look_up(resolver, host, *where)


@contextmanager
def serving(folder: Path, places: Places, **settings: Any) -> Iterator[Served]:
    kling, controls, listening = FakeKling(), Controls(), threading.Event()
    app = create_app(
        settings_for(folder, asyncio.run(places.at(folder)), **settings),
        provider_transport=httpx.MockTransport(kling),
        clock=ManualClock(),
        controls=controls,
    )
    server = make_server(
        app,
        host="127.0.0.1",
        port=0,
        on_listening=listening.set,
        on_stopping=lambda: controls.stop_streams(),  # noqa: PLW0108 - the app sets it later
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert listening.wait(60)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        with httpx.Client(base_url=url, headers=BEARER, timeout=60, trust_env=False) as http:
            yield Served(http, kling, places, folder)
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def _surroundings() -> Iterator[None]:
    """No name is looked up, and whatever is answered, nothing goes wrong behind it.

    Hypothesis mixes in constants of the modules that happen to be loaded: what is tried would depend on the tests before.
    """
    before, errors = structlog.get_config(), LogCapture()
    structlog.configure(
        processors=[errors], wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GuardedResolver, "_look_up", _no_names)
        patch.setattr(providers, "_get_local_constants", Constants)
        providers.CONSTANTS_CACHE.cache.clear()
        yield
        providers.CONSTANTS_CACHE.cache.clear()
    structlog.configure(**before)
    assert errors.entries == []


@pytest.fixture(scope="module")
def places(request: pytest.FixtureRequest) -> Iterator[Places]:
    yield from places_of(request)


@pytest.fixture(scope="module")
def served(_surroundings: None, places: Places, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    # Of what is made up some is in line behind what never ends: its answer is not waited for.
    with serving(tmp_path_factory.mktemp("served"), places, submit_wait=1) as served:
        yield served


@pytest.fixture(scope="module")
def fresh(_surroundings: None, places: Places, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Another one, whose events go to none of the many endpoints that were made up for the first."""
    with serving(tmp_path_factory.mktemp("fresh"), places) as fresh:
        yield fresh


# What the description allows


# Of the types of task a few stand for all: in others, fields must agree with one another, which no schema says, and each
# of their limits is tried elsewhere.
FEW_TYPES = ("kling.multi-image-to-image", "kling.multi-image-to-video", "kling.text-to-audio")
FEW_PATHS = "images/multi-image2image|videos/multi-image2video|audio/text-to-audio"


@cache
def _described() -> Mapping[str, Any]:
    document: dict[str, Any] = json.loads(
        to_json(describe({"webhook": WebhookConfig}, {"mattermost": MattermostBot}))
    )
    submit = document["components"]["schemas"]["SubmitBody"]
    mapping = {name: submit["discriminator"]["mapping"][name] for name in FEW_TYPES}
    submit["discriminator"]["mapping"] = mapping
    submit["oneOf"] = [{"$ref": reference} for reference in mapping.values()]
    return document


@pytest.fixture
def description(request: pytest.FixtureRequest, places: Places) -> Any:
    """On PostgreSQL less is tried, and not the schemas' edges: what reaches its statements matters there, not the shapes."""
    everything = places.dialect is Dialect.SQLITE
    request.node._nodeid = request.node.nodeid  # where Schemathesis looks for it, and pytest keeps it no more
    return schemathesis.openapi.from_dict(
        copy.deepcopy(dict(_described())),
        config=SchemathesisConfig(
            seed=1,
            projects=ProjectsConfig(
                default=ProjectConfig(
                    generation=GenerationConfig(
                        max_examples=EXAMPLES if everything else EXAMPLES // 2,
                        deterministic=True,
                        database="none",
                        with_security_parameters=False,
                    ),
                    phases=PhasesConfig(coverage=CoveragePhaseConfig(enabled=everything)),
                )
            ),
        ),
    )


# The cases are made when the test runs: while tests are collected, every worker would make all of them.
# Of the drop-in paths, which are made of one table, a few stand for all.
DESCRIPTION = schemathesis.pytest.from_fixture("description").exclude(
    path_regex=f"^/kling/v1/(?!{FEW_PATHS})"
)


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """One connection for all."""
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.fixture(scope="module")
def asked(places: Places) -> set[str]:
    """The valid requests so far: many differ only in what is then replaced by something plausible."""
    return set()


@pytest.mark.timeout(600)  # for all operations together
@DESCRIPTION.parametrize()
def test_whatever_is_asked_is_answered_as_it_is_described(
    case: schemathesis.Case, served: Served, session: requests.Session, asked: set[str]
) -> None:
    """No 5xx, no status, media type, header or body that is not described; what is valid is taken, what is not, not."""
    if case.meta is not None and not case.meta.generation.mode.is_negative:
        _make_plausible(case)
        request = repr(
            (case.operation.label, case.path_parameters, case.query, dict(case.headers), case.body)
        )
        if request in asked:
            return
        asked.add(request)
        _lead_to_what_is_there(case, served)
    # So many wrong keys would be taken for guesses; the next test tries some.
    excluded = [ignored_auth]
    if any(name.startswith("metadata") for name in case.query):
        excluded.append(negative_data_rejection)  # a number that should be text is text on its way
    case.call_and_validate(base_url=served.url, session=session, headers=BEARER, excluded_checks=excluded)


def _lead_to_what_is_there(case: schemathesis.Case, served: Served) -> None:
    if "id" in case.path_parameters:
        kind = "tasks" if case.path.startswith("/kling/") else case.path.split("/")[2]
        case.path_parameters["id"] = served.made(kind)


def _make_plausible(case: schemathesis.Case) -> None:
    """What a schema cannot say of a valid request: URLs, filters, secrets, a key used once."""
    if "id" in case.path_parameters:
        case.path_parameters["id"] = "of what is there"
    case.headers.pop("Idempotency-Key", None)
    case.query.pop("to", None)  # not before the other end of a span
    if isinstance(case.body, dict):
        case.body = _plausible(copy.deepcopy(case.body))


FOLLOW_UP: Mapping[str, Any] = {
    "on": "task.failed",
    "submit": {
        "type": "kling.multi-image-to-video",
        "input": {**VIDEO_INPUT, "prompt": "{{ data.task.id }}"},
    },
}


def _plausible(value: Any) -> Any:
    match value:
        case dict():
            changed = {name: _plausible(each) for name, each in value.items()}
            replaced = {
                "url": "http://nowhere.test/",
                "callback_url": "http://nowhere.test/",
                "filter": "data.task",
                "secret": None,
                "external_task_id": None,
                "provider": None,
                "limit": "1000000",  # what is submitted later must not be beyond it
                "headers": {"x-a": "b"},
                "scence_image": None,
                "server": "http://nowhere.test/",
                "command_token": "t",
                "allow": [{"user": "u"}],
                "follow_ups": [FOLLOW_UP],
                **dict.fromkeys(("image", "subject_image", "scene_image", "style_image"), picture()),
                **dict.fromkeys(("mask", "static_mask"), picture()),
            }
            if "server" in changed:  # a bot's: one of two tokens is needed
                changed["command_token"] = "t"
            return changed | {name: replaced[name] for name in changed.keys() & replaced.keys()}
        case list():
            return [_plausible(each) for each in value]
        case _:
            return value


def operations() -> Iterator[tuple[str, str]]:
    for path, item in _described()["paths"].items():
        for method, operation in item.items():
            if "security" not in operation:
                yield method.upper(), path


@pytest.mark.parametrize("key", [None, "wrong"])
def test_without_a_known_key_nothing_is_answered_but_401(served: Served, key: str | None) -> None:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    asked = list(operations())
    assert len(asked) > 20
    with httpx.Client(base_url=served.url, headers=headers, timeout=60, trust_env=False) as stranger:
        for method, path in asked:
            response = stranger.request(method, path.replace("{id}", "x"), content=b"{}")
            told = response.json()
            assert response.status_code == 401
            assert told.get("type") == "/problems/unauthenticated" or told["code"] == (1002 if key else 1001)
            assert ("code" in told) == path.startswith("/kling/")


# And what it does not


texts = st.text(st.characters(exclude_categories=[]), max_size=30)
numbers = st.one_of(
    st.integers(),
    st.integers(-(10**30), 10**30),
    st.sampled_from([2**31, 2**53, 2**63, 2**64, -(2**63) - 1, 10**400]),
    st.floats(allow_nan=False, allow_infinity=False),
)
words = st.sampled_from(
    [
        "submitted", "processing", "succeed", "failed", "succeeded", "", "0", "\0", "1e999", "2026-11-22T05:30:00Z",
        "https://example.com/a.png", "http://[", "task_0", "kling.multi-image-to-image", "webhook", "*", "@", "data:",
    ]
)  # fmt: skip
leaves = st.one_of(st.none(), st.booleans(), numbers, texts, words)


def documents(names: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Any JSON, also such as Python alone writes: with half surrogate pairs."""
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | texts, inner, max_size=6),
        max_leaves=10,
    )


CALLBACK_NAMES = st.sampled_from(
    [
        "task_id", "id", "task_status", "status", "task_status_msg", "message", "created_at", "updated_at", "data",
        "task_info", "external_task_id", "task_result", "outputs", "images", "videos", "audios", "index", "url", "type",
        "duration", "watermark_url", "code",
    ]
)  # fmt: skip
SUBMIT_NAMES = st.sampled_from(
    [
        "type", "input", "external_task_id", "metadata", "callback_url", "endpoints", "deadline_s", "kind", "config",
        "follow_ups", "on", "submit", "$",
        "url", "headers", "filter", "types", "secret", "prompt", "image_list", "image", "subject_image_list",
        "subject_image", "n", "cfg_scale", "duration", "dynamic_masks", "mask", "trajectories", "x", "y",
    ]
)  # fmt: skip


@st.composite
def changed(draw: st.DrawFn, whole: Any, names: st.SearchStrategy[str]) -> Any:
    """A document of which a part is something else."""
    match whole:
        case dict() if whole and draw(st.integers(0, 3)):
            name = draw(st.sampled_from(sorted(whole)) | names)
            return {**whole, name: draw(changed(whole.get(name), names))}
        case list() if whole and draw(st.integers(0, 3)):
            place = draw(st.integers(0, len(whole) - 1))
            return [*whole[:place], draw(changed(whole[place], names)), *whole[place + 1 :]]
        case _:
            return draw(documents(names))


@bounded
@given(st.binary(max_size=200))
def test_bytes_at_a_callback_url_are_kept_and_change_nothing(fresh: Served, content: bytes) -> None:
    task, path = fresh.submit()
    response = fresh.call_back(path, content)
    assert (response.status_code, response.text[:27]) == (400, "This is not a callback: it ")
    assert _callbacks(fresh, task["id"]) == [("unreadable", content)]
    assert fresh.http.get(f"/v1/tasks/{task['id']}").json()["status"] == "submitted"


@bounded
@given(st.data())
def test_json_at_a_callback_url_leaves_a_task_that_can_be_told(fresh: Served, data: st.DataObject) -> None:
    """Whatever it says is kept, and is either not read at all or moves the task by the rules."""
    task, path = fresh.submit()
    document = data.draw(changed(succeed(task), CALLBACK_NAMES) | documents(CALLBACK_NAMES))
    content = json.dumps(document, ensure_ascii=data.draw(st.booleans())).encode(errors="surrogatepass")
    response = fresh.call_back(path, content)
    assert response.status_code in {200, 400}
    [(verdict, body)] = _callbacks(fresh, task["id"])
    assert body == content
    assert (verdict == Verdict.UNREADABLE) == (response.status_code == 400)
    shown = fresh.http.get(f"/v1/tasks/{task['id']}").json()
    events = fresh.http.get(f"/v1/tasks/{task['id']}/events").json()["items"]
    [row] = fresh.rows("select * from tasks where id = ?", task["id"])
    assert (
        row["status"]
        == shown["status"]
        == shown["transitions"][-1]["to"]
        == events[-1]["data"]["task"]["status"]
    )
    assert [event["sequence"] for event in events] == list(range(1, row["sequence"] + 1))
    assert (len(events) == 2) == (verdict == Verdict.ADVANCED)
    assert (shown["status"] in {"failed", "rejected"}) == (shown["error"] is not None)
    listed = fresh.http.get("/v1/tasks", params={"external_task_id": task["external_task_id"]}).json()[
        "items"
    ]
    assert [one["id"] for one in listed] == [task["id"]]


def _callbacks(fresh: Served, task_id: str) -> list[tuple[str, bytes]]:
    shown = fresh.http.get(f"/v1/tasks/{task_id}/callbacks").json()["items"]
    rows = fresh.rows("select verdict, body from callbacks where task_id = ? order by id", task_id)
    assert [one["verdict"] for one in shown] == [row["verdict"] for row in rows]
    return [(row["verdict"], row["body"]) for row in rows]


@pytest.mark.parametrize(
    "content", [b"", b"x" * LARGEST_CALLBACK, b"[" * LARGEST_CALLBACK, b'{"a":' * 200_000]
)
def test_a_senseless_callback_of_any_size_up_to_the_limit_is_refused_as_unreadable(
    fresh: Served, content: bytes
) -> None:
    _, path = fresh.submit()
    assert fresh.call_back(path, content).status_code == 400
    assert fresh.call_back(path, content.ljust(LARGEST_CALLBACK + 1)).status_code == 413


@pytest.mark.parametrize("size", [70_000, 300_000, 900_000])
def test_a_large_body_is_not_taken_for_a_large_head(fresh: Served, size: int) -> None:
    """It was answered 431 when its last piece on the wire was larger than a head may be."""
    _, path = fresh.submit()
    assert [fresh.call_back(path, b"x" * size).status_code for _ in range(20)] == [400] * 20


@bounded
@given(
    path=st.one_of(
        texts,
        st.tuples(st.sampled_from(["cometapi", "kling", "..", ""]) | texts, texts, texts).map("/".join),
    )
)
def test_every_path_below_callbacks_that_is_not_ours_is_the_same_404(fresh: Served, path: str) -> None:
    quoted = quote(path.encode(errors="replace"), safe="/").replace(".", "%2E")
    response = fresh.call_back(f"/callbacks/{quoted}", b"{}")
    assert (response.status_code, response.headers["content-type"], response.content) == NOT_FOUND


@bounded
@given(
    token=st.text(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", min_size=43, max_size=43
    )
)
def test_a_token_of_the_right_form_is_the_same_404(fresh: Served, token: str) -> None:
    [row] = fresh.rows("select id from tasks order by id limit 1") or [{"id": fresh.submit()[0]["id"]}]
    response = fresh.call_back(f"/callbacks/cometapi/{row['id']}/{token}", b"{}")
    assert (response.status_code, response.headers["content-type"], response.content) == NOT_FOUND


WHOLE_SUBMITS: tuple[Mapping[str, Any], ...] = (
    {
        "type": "kling.multi-image-to-image",
        "input": dict(IMAGE_INPUT) | {"n": 2, "aspect_ratio": "1:1", "style_image": picture()},
        "metadata": {"a": {"b": [1, "x"]}},
        "deadline_s": 60,
    },
    {
        "type": "kling.multi-image-to-video",
        "input": dict(VIDEO_INPUT)
        | {
            "cfg_scale": 0.5,
            "duration": 5,
            "dynamic_masks": [{"mask": picture(), "trajectories": [{"x": 0, "y": 0}, {"x": 1, "y": 2}]}],
        },
        "callback_url": "http://nowhere.test/",
        "endpoints": [
            {
                "kind": "webhook",
                "config": {"url": "http://nowhere.test/", "headers": {"x-a": "b"}},
                "types": ["task.*"],
                "filter": "data.task.metadata",
            }
        ],
    },
)


@bounded
@given(st.data())
def test_json_as_a_submit_is_taken_or_refused_and_never_breaks(fresh: Served, data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from(WHOLE_SUBMITS))
    document = data.draw(changed(whole, SUBMIT_NAMES) | documents(SUBMIT_NAMES))
    content = json.dumps(document, ensure_ascii=data.draw(st.booleans())).encode(errors="surrogatepass")
    response = fresh.http.post("/v1/tasks", content=content)
    if response.status_code in {201, 202}:
        _can_be_told(fresh, response.json())
        return
    assert response.status_code in {400, 409, 422}, response.text
    assert response.headers["content-type"] == "application/problem+json"
    for fault in response.json().get("errors", []):
        assert fault["detail"]
        httpx.URL(fault["pointer"])


DROP_IN_PATHS = tuple(f"/kling/v1/{path}" for path in FEW_PATHS.split("|"))


@bounded
@given(st.data())
def test_json_at_a_drop_in_path_is_taken_or_refused_in_an_envelope(
    fresh: Served, data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from(DROP_IN_PATHS))
    whole = VIDEO_INPUT if "videos" in path else IMAGE_INPUT
    document = data.draw(changed(whole, SUBMIT_NAMES) | documents(SUBMIT_NAMES))
    content = json.dumps(document, ensure_ascii=data.draw(st.booleans())).encode(errors="surrogatepass")
    response = fresh.http.post(path, content=content)
    told = response.json()
    assert response.headers["content-type"] == "application/json"
    assert told["request_id"] == response.headers["x-request-id"]
    if response.status_code == 200:
        task = fresh.http.get(f"{path}/{told['data']['task_id']}").json()["data"]
        assert task.items() >= told["data"].items()
        known = _described()["components"]["schemas"][f"KlingBody.{path.rpartition('/')[2]}"]["properties"]
        sent = json.loads(fresh.kling.requests[-1].content)
        for name in document.keys() - known.keys():
            assert sent[name] == document[name]
        return
    assert (response.status_code, told["code"]) in {(400, 1200), (400, 1201)}, response.text
    assert told["message"]


def _can_be_told(fresh: Served, task: Mapping[str, Any]) -> None:
    """In lists, in its event, and to who is subscribed to it."""
    assert fresh.http.get(f"/v1/tasks/{task['id']}").json()["metadata"] == task["metadata"]
    assert fresh.http.get("/v1/tasks", params={"limit": "1"}).json()["items"][0]["id"] == task["id"]
    [event] = fresh.http.get(f"/v1/tasks/{task['id']}/events").json()["items"]
    assert event["data"]["task"]["metadata"] == task["metadata"]


URLS = st.one_of(
    texts,
    st.builds(
        "{}://{}{}{}".format,
        st.sampled_from(["http", "https", "HTTP", "ftp"]),
        st.one_of(
            texts,
            st.text("abcz0123456789-äß.", max_size=12).map("xn--{}".format),
            st.text("0123456789abcdef:.[]%", max_size=20),
        ),
        st.one_of(st.just(""), st.integers(-1, 70_000).map(":{}".format), texts),
        st.one_of(st.just(""), texts.map("/{}".format)),
    ),
)
FILTERS = st.text("ab.[]{}()*@&|`'\"<>=!,:?0123456789-\\ ", max_size=20) | texts


@bounded
@given(
    url=URLS,
    filter=st.none() | FILTERS,
    headers=st.dictionaries(texts | st.text("abc-", min_size=1, max_size=5), texts, max_size=2),
    description=st.none() | texts,
)
def test_text_in_an_endpoint_is_taken_or_refused_and_never_breaks(fresh: Served, **fields: Any) -> None:
    """One that is taken can be shown, changed, and gets its events or a reason why not."""
    config = {"url": fields.pop("url"), "headers": fields.pop("headers")}
    sound = {"config": {"url": "http://nowhere.test/"}, "types": ["task.*"]}
    sound["id"] = fresh.http.post("/v1/endpoints", json=sound).json()["id"]
    for body in (
        {"config": config},
        sound | fields,
        *({"config": {name: part}} for name, part in config.items()),
    ):
        content = json.dumps({name: each for name, each in body.items() if name != "id"})
        made = fresh.http.post("/v1/endpoints", content=content)
        changed = fresh.http.patch(f"/v1/endpoints/{sound['id']}", content=content)
        assert made.status_code in {201, 400, 422}, made.text
        assert changed.status_code in {200, 400, 422}, changed.text
        if made.status_code == 201:
            where = made.headers["location"]
            assert fresh.http.get(where).json()["filter"] == body.get("filter")
            assert fresh.http.post(f"{where}/test").status_code == 202
            assert fresh.http.delete(where).status_code == 204
    fresh.submit()
    assert fresh.http.delete(f"/v1/endpoints/{sound['id']}").status_code == 204


@pytest.mark.parametrize("host", ["xn--a", "a.xn--a.b", "ä" * 300, "[::ffff"])
def test_a_host_name_that_is_none_never_breaks_a_request(fresh: Served, host: str) -> None:
    response = fresh.http.post("/v1/endpoints", json={"config": {"url": f"http://{host}/"}})
    assert response.status_code == 422
    assert [fault["pointer"] for fault in response.json()["errors"]] == ["#/config/url"]


@pytest.mark.parametrize("moment", ["2026-11-22t05:30:00z", "2026-11-22T05:30:00.123456789-23:59"])
def test_moments_may_be_written_in_all_ways_of_rfc_3339(fresh: Served, moment: str) -> None:
    """Section 5.6: `T` and `Z` may be lower case."""
    assert fresh.http.get("/v1/tasks", params={"created_after": moment}).status_code == 200


@pytest.mark.parametrize("limit", ["000199", "0" * 4300 + "1", "9" * 5000, "+1", "1_0", "１", "1e1"])
def test_a_limit_is_a_plain_number_up_to_its_maximum(fresh: Served, limit: str) -> None:
    """Leading zeros once hid any number behind them, also one that no database takes."""
    response = fresh.http.get("/v1/tasks", params={"limit": limit})
    assert response.status_code == 422
    assert [fault["pointer"] for fault in response.json()["errors"]] == ["#/query/limit"]


def test_faults_of_oddly_named_parameters_are_pointed_to_in_valid_pointers(fresh: Served) -> None:
    """RFC 6901, section 6: in a URI fragment, all that is not allowed there is percent-encoded."""
    response = fresh.http.get("/v1/tasks", params={"ü /~": "1"})
    assert [fault["pointer"] for fault in response.json()["errors"]] == ["#/query/%C3%BC%20~1~0"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/tasks", "GET, HEAD, POST"),
        ("/v1/endpoints/x", "DELETE, GET, HEAD, PATCH"),
        ("/callbacks/cometapi/x/y", "POST"),
        ("/metrics", "GET, HEAD"),
    ],
)
def test_a_method_that_is_not_possible_is_told_all_that_are(fresh: Served, path: str, allowed: str) -> None:
    """RFC 9110, section 15.5.6; Starlette alone names those of the first route to the path."""
    response = fresh.http.put(path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    assert response.headers["content-type"] == "application/problem+json"
