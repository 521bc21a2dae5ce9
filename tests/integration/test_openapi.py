"""`/openapi.json`: valid, complete, and what the code really answers."""

import copy
import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import schemathesis
from starlette.routing import Route

from handlers.callbacks import LARGEST_CALLBACK
from service.api import tasks
from service.api.description.answers import BUDGET_EVENTS, ENDPOINT_EVENTS, OUTPUT_EVENTS, TASK_EVENTS
from service.api.dropin import DOORS
from service.app import HEALTH, ROUTES
from service.domain.events import EventType
from service.domain.times import rfc3339
from service.doors.guesses import KEYS, TOKENS
from tests.fakes.mattermost import FakeMattermost
from tests.integration.cdn import running_cdn, sends
from tests.integration.chat import FORM, bot_body
from tests.integration.klingel import (
    IMAGE_INPUT,
    VIDEO_INPUT,
    Klingel,
    callback,
    png,
    refused,
    running_klingel,
    succeed,
)

Document = Mapping[str, Any]

# Answers POST with the 404 of an unknown callback URL, whatever it is called with.
# Take what the described ones would take, but for a slash in it.
CATCH_ALL = re.compile(r"\{\w+:(anything|something)\}$")
# Described, but not to be had from a Klingel that is well, or never by these tests alone.
CHAT = "/chat/{platform}/{bot_id}"
NOT_IN_THE_STORY = {
    ("GET", "/readyz", "503"),
    *((method, CHAT, status) for method in ("GET", "POST") for status in ("400", "503")),
    ("GET", CHAT, "200"),  # of a platform that checks addresses
    # Nothing is kept in it: these have a story of their own.
    ("GET", "/v1/files/{name}", "200"),
    ("GET", "/v1/files/{name}", "206"),
    ("GET", "/v1/files/{name}", "304"),
}

FORMATS = jsonschema.FormatChecker(formats=[])


@FORMATS.checks("date-time", raises=ValueError)
def _is_our_moment(value: object) -> bool:
    """UTC with three digits, as all of ours are."""
    if not isinstance(value, str):
        return True
    return value == rfc3339(datetime.fromisoformat(value))


@FORMATS.checks("uri-reference")
def _is_uri_reference(value: object) -> bool:
    return (
        not isinstance(value, str) or re.fullmatch(r"([!#$&-;=?-\[\]_a-z~]|%[0-9A-F]{2})*", value) is not None
    )


@pytest.fixture
async def document(klingel: Klingel) -> Document:
    response = await klingel.client(None).get("/openapi.json")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    document: Document = response.json()
    return document


class Description:
    """Holds exchanges against the document; of described objects, no field may be there that is not described."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.seen: set[tuple[str, str, str]] = set()
        self._components = _closed(document["components"])

    def validate(self, schema: Mapping[str, Any], value: object) -> None:
        whole = {**_closed(schema), "components": self._components}
        validator = jsonschema.Draft202012Validator(whole, format_checker=FORMATS)
        errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
        assert not errors, (errors, value)

    async def check(self, response: httpx.Response) -> None:
        """An event hook of httpx."""
        request = response.request
        path, item = next(
            (path, item)
            for path, item in self.document["paths"].items()
            if re.fullmatch(re.sub(r"\\{.*?\\}", "[^/]+", re.escape(path)), request.url.path)
        )
        answers = item[request.method.lower()]["responses"]
        status = str(response.status_code)
        assert status in answers, (request.method, path, status)
        self.seen.add((request.method, path, status))
        described = answers[status]
        for name in described.get("headers", {}):
            if name in {"Location", "WWW-Authenticate", "Retry-After"}:
                assert name in response.headers, (request.method, path, status, name)
        assert response.headers["x-request-id"]
        if "content" not in described:
            assert await response.aread() == b""
            return
        media_type = response.headers["content-type"].split(";")[0]
        schema = described["content"][media_type]["schema"]
        if media_type == "text/event-stream" or schema == {}:
            return
        body = await response.aread()
        self.validate(schema, json.loads(body) if media_type.endswith("json") else body.decode())


def _closed(schema: Any) -> Any:
    """Described objects take no other fields than the described ones."""
    match schema:
        case {"type": "object", "properties": _} if "additionalProperties" not in schema:
            return {name: _closed(each) for name, each in schema.items()} | {"additionalProperties": False}
        case dict():
            return {name: _closed(each) for name, each in schema.items()}
        case list():
            return [_closed(each) for each in schema]
        case _:
            return schema


@pytest.fixture
def description(klingel: Klingel, document: Document) -> Description:
    """From now on every answer that this Klingel gives is held against the document."""
    description = Description(document)
    klingel.http.event_hooks = {"response": [description.check]}
    return description


def examples(node: Any) -> Iterator[tuple[Mapping[str, Any], Any]]:
    """Each schema that has examples, with each of them."""
    match node:
        case dict():
            if isinstance(node.get("examples"), list):
                for example in node["examples"]:
                    yield node, example
            for name, each in node.items():
                if name != "examples":
                    yield from examples(each)
        case list():
            for each in node:
                yield from examples(each)


async def test_the_description_is_valid_openapi(document: Document) -> None:
    """By the meta-schema of 3.1, and each schema by that of JSON Schema 2020-12."""
    schemathesis.openapi.from_dict(copy.deepcopy(dict(document))).validate()
    assert document["openapi"].startswith("3.1")
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


async def test_every_reference_in_the_description_leads_somewhere(document: Document) -> None:
    text = json.dumps(document)
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert named - document["components"]["schemas"].keys() == set()
    # and nothing is described that nobody refers to
    assert document["components"]["schemas"].keys() - named == set()


async def test_every_route_is_described_and_nothing_else_is(document: Document) -> None:
    routes = {
        (method, route.path)
        for route in (*HEALTH, *ROUTES)
        if isinstance(route, Route) and not CATCH_ALL.search(route.path)
        for method in (route.methods or set()) - {"HEAD"}
    }
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert described == routes


async def test_path_parameters_are_those_of_the_path_and_operation_ids_are_unique(document: Document) -> None:
    operations = [(path, each) for path, item in document["paths"].items() for each in item.values()]
    for path, operation in operations:
        named = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
        assert named == set(re.findall(r"\{(\w+)\}", path))
    ids = [operation["operationId"] for _, operation in operations]
    assert len(ids) == len(set(ids))


async def test_the_examples_are_valid(document: Document) -> None:
    description = Description(document)
    found = list(examples(document))
    assert len(found) > 20
    for schema, example in found:
        description.validate(schema, example)


async def test_what_is_asked_for_in_the_examples_is_accepted(
    klingel: Klingel, document: Document, description: Description
) -> None:
    schemas = document["components"]["schemas"]
    for name in ("kling.multi-image-to-image", "kling.multi-image-to-video"):
        for example in schemas[f"SubmitBody.{name}"]["examples"]:
            assert (await klingel.http.post("/v1/tasks", json=example)).status_code == 201
    ntfy, webhook = (schemas[f"EndpointBody.{kind}"]["examples"] for kind in ("ntfy", "webhook"))
    for example in [*ntfy, *webhook]:
        endpoint = await klingel.http.post("/v1/endpoints", json=example)
        assert endpoint.status_code == 201
        where = endpoint.headers["location"]
        replay = schemas["ReplayBody"]["examples"][0]
        assert (await klingel.http.post(f"{where}/replay", json=replay)).status_code == 202
        patch = schemas["EndpointPatch"]["examples"][0]
        assert (await klingel.http.patch(where, json=patch)).status_code == 200
    for named in schemas["BotBody"]["oneOf"]:
        for example in schemas[named["$ref"].rpartition("/")[2]].get("examples", []):
            bot = await klingel.http.post("/v1/bots", json=example)
            assert bot.status_code == 201
            patch = schemas["BotPatch"]["examples"][0]
            assert (await klingel.http.patch(bot.headers["location"], json=patch)).status_code == 200
    key = schemas["KeyBody"]["examples"][0]
    assert (await klingel.http.post("/v1/keys", json=key)).status_code == 201


async def test_the_kinds_of_endpoint_described_are_those_that_are_taken(
    klingel: Klingel, document: Document
) -> None:
    response = await klingel.http.post("/v1/endpoints", json={"kind": "none", "config": {}})
    [fault] = response.json()["errors"]
    described = [
        name.removeprefix("EndpointBody.")
        for name in document["components"]["schemas"]
        if name.startswith("EndpointBody.")
    ]
    assert fault["detail"].endswith(f"There are: {', '.join(sorted(described))}.")


def test_every_event_is_described() -> None:
    assert set(EventType) == {*TASK_EVENTS, *OUTPUT_EVENTS, *ENDPOINT_EVENTS, *BUDGET_EVENTS}


async def test_kept_files_and_what_is_said_of_them_are_as_they_are_described(
    tmp_path: Path, document: Document
) -> None:
    description = Description(document)
    async with running_klingel(tmp_path / "kept", store_url=None) as klingel, running_cdn() as cdn:
        klingel.http.event_hooks = {"response": [description.check]}
        task = await klingel.submit()
        urls = [cdn.at("/kept.png", sends(png())), cdn.at("/gone.png", sends(b"", "410 Gone"))]
        images = [{"index": index, "url": url} for index, url in enumerate(urls)]
        now = round(klingel.clock().timestamp() * 1000)
        await klingel.call_back(callback(task, "succeed", task_result={"images": images}, updated_at=now))
        [delivery] = await klingel.until_deliveries("dead", kind="archive")
        await klingel.attempts(delivery["id"])
        klingel.clock.advance(days=28)

        async def told() -> bool:
            return (await klingel.event_types(task["id"]))[-2:] == ["output.stored", "output.expiring"]

        await klingel.until(told)
        await klingel.http.get("/v1/events")
        path = httpx.URL((await klingel.task(task["id"]))["outputs"][0]["stored_url"]).path
        tag = (await klingel.http.get(path)).headers["etag"]
        for headers in ({"range": "bytes=0-9"}, {"range": "bytes=999999-"}, {"if-none-match": tag}):
            await klingel.http.get(path, headers=headers)
        await klingel.http.get(path, params={"expires": "1", "signature": "x"})
        await klingel.http.get("/v1/files/" + "0" * 40 + ".png")
    file = ("GET", "/v1/files/{name}")
    assert {(*file, status) for status in ("200", "206", "304", "403", "404", "416")} <= description.seen


async def test_every_answer_of_a_long_story_is_as_it_is_described(
    klingel: Klingel, description: Description
) -> None:
    await _tasks(klingel)
    await _refusals(klingel)
    await _dropin(klingel)
    await _lists(klingel)
    await _endpoints(klingel)
    await _deliveries(klingel)
    await _bots(klingel)
    await _keys(klingel)
    await _usage(klingel)
    await _upkeep(klingel)
    await _streams(klingel, description)
    await _guesses(klingel)
    answers = {
        (method.upper(), path, status)
        for path, item in description.document["paths"].items()
        for method, operation in item.items()
        for status, answer in operation["responses"].items()
        if list(answer.get("content", {})) != ["application/problem+json"]
        and "KlingRefusal" not in str(answer)
    }
    unseen = answers - description.seen - NOT_IN_THE_STORY
    # Told under the path without the slash.
    assert {each for each in unseen if not each[1].endswith("/")} == set()
    statuses = {status for _, _, status in description.seen}
    assert statuses >= {"400", "401", "402", "403", "404", "409", "413", "422", "429", "502", "503"}


async def _tasks(klingel: Klingel) -> None:
    """Submits, callbacks, refreshes."""
    http = klingel.http
    once = {"idempotency-key": "one", "prefer": "respond-async"}
    body = {"type": "kling.multi-image-to-image", "input": IMAGE_INPUT, "external_task_id": "job-1"}
    assert (await http.post("/v1/tasks", json=body, headers=once)).status_code == 202
    assert (await http.post("/v1/tasks", json=body, headers=once)).headers["idempotent-replayed"] == "true"
    assert (await http.post("/v1/tasks", json={}, headers=[(b"idempotency-key", b"\xfc")])).status_code == 422
    assert (await http.post("/v1/tasks", json=body | {"metadata": {"a": 1}}, headers=once)).status_code == 422
    assert (await http.post("/v1/tasks", json=body)).status_code == 409
    task = await klingel.submit(
        "kling.multi-image-to-video",
        input=VIDEO_INPUT,
        callback_url=klingel.receiver.url,
        metadata={"customer": {"id": 7}},
    )
    assert task["endpoints"]
    klingel.kling.answers(
        _status(task, "processing"), refused(500, 5000), refused(401, 1000), refused(429, 1101)
    )
    assert (await http.post(f"/v1/tasks/{task['id']}/refresh")).json()["refresh"] == "advanced"
    for status in (503, 502, 402):
        assert (await http.post(f"/v1/tasks/{task['id']}/refresh")).status_code == status
    assert (await http.post(klingel.callback_path(), content=b"\xff")).status_code == 400
    assert (
        await http.post(klingel.callback_path(), content=b" " * (LARGEST_CALLBACK + 1))
    ).status_code == 413
    assert (await klingel.call_back(succeed(task))).status_code == 200
    assert (await klingel.call_back(callback(task, "failed"))).status_code == 200
    assert (await http.post("/callbacks/cometapi/task_1/x", json={})).status_code == 404
    assert (await http.post(f"/v1/tasks/{task['id']}/refresh")).status_code == 409
    assert (await http.get(f"/v1/tasks/{task['id']}/callbacks", params={"limit": "1"})).json()["next_cursor"]
    assert (await http.get(f"/v1/tasks/{task['id']}/events", params={"limit": "1"})).json()["next_cursor"]
    failed = await klingel.submit()
    assert (
        await klingel.call_back(callback(failed, "failed", task_status_msg="too dark"))
    ).status_code == 200
    assert (await klingel.task(failed["id"]))["error"]["message"] == "too dark"
    await klingel.submit()
    klingel.clock.advance(hours=2)
    await klingel.receiver.until(3)


def _status(task: Mapping[str, Any], status: str) -> httpx.Response:
    data = callback(task, status)
    return httpx.Response(200, json={"code": 0, "message": "SUCCEED", "request_id": "r", "data": data})


async def _refusals(klingel: Klingel) -> None:
    http = klingel.http
    body = {"type": "kling.multi-image-to-image", "input": IMAGE_INPUT}
    klingel.kling.answers(refused(400, 1201), refused(429, 1101), refused(401, 1000))
    for status in (422, 402, 502):
        response = await http.post("/v1/tasks", json=body)
        assert response.status_code == status
        assert response.json()["task"]["status"] == "rejected"
    nobody = klingel.client(None)
    nobody.event_hooks = http.event_hooks
    assert (await nobody.get("/v1/tasks")).status_code == 401
    for path in ("/v1/tasks", "/v1/endpoints", "/v1/bots", "/v1/keys"):
        for content in (b"", b"{", b"\xff", b'"\\ud800"', b"[" * 300):
            assert (await http.post(path, content=content)).status_code == 400
        assert (await http.post(path, json={"a/ü~": 1})).status_code == 422
        length = str(tasks.LARGEST_SUBMIT + 1)
        assert (await http.post(path, content=b"{}", headers={"content-length": length})).status_code == 413


async def _dropin(klingel: Klingel) -> None:
    http = klingel.http
    for door in DOORS:
        path, sold = door.path, door.sold[-1]
        body = sold.input_model.model_json_schema()["examples"][0]
        made = (await http.post(path, json={**body, "external_task_id": path.replace("/", "-")})).json()[
            "data"
        ]
        kind = f"{sold.task_type.makes}s"
        urls = dict.fromkeys(("url", "url_mp3", "url_wav"), "https://example.com/1")
        output = {"id": "1", **urls, "watermark_url": "https://example.com/2"}
        task = await klingel.task(made["task_id"])
        assert (
            await klingel.call_back(callback(task, "succeed", task_result={kind: [output]}))
        ).status_code == 200
        assert (await http.get(f"{path}/{made['task_id']}")).json()["data"]["task_result"][kind]
        assert (await http.get(path)).json()["data"]
        for status, code in ((400, 1301), (401, 1000), (403, 1103), (404, 1203), (429, 1101)):
            klingel.kling.answers(refused(status, code))
            assert (await http.post(path, json=body)).json()["code"] == code
        assert (await http.post(path, json={})).status_code == 400
        length = str(tasks.LARGEST_SUBMIT + 1)
        assert (await http.post(path, content=b"{}", headers={"content-length": length})).status_code == 413
        assert (await http.get(path, params={"pageNum": "0"})).status_code == 400
        assert (await http.get(f"{path}/x")).status_code == 404
        for address in (path, f"{path}/x"):
            assert (await http.get(address, headers={"authorization": "Bearer x"})).status_code == 401


async def _lists(klingel: Klingel) -> None:
    http = klingel.http
    assert (await http.get("/v1/task-types")).status_code == 200
    await klingel.endpoint()
    key = (await http.post("/v1/keys", json={"name": "a"})).json()
    for path in ("/v1/tasks", "/v1/events", "/v1/deliveries", "/v1/endpoints", "/v1/keys"):
        first = (await http.get(path, params={"limit": "1"})).json()
        if first["next_cursor"] is not None:
            query = {"limit": "200", "cursor": first["next_cursor"]}
            assert (await http.get(path, params=query)).status_code == 200
        for query in ({"limit": "0"}, {"cursor": "x"}, {"ü /~": "1"}):
            assert (await http.get(path, params=query)).status_code == 422
    filters = {
        "status": "succeeded",
        "type": "kling.multi-image-to-video",
        "external_task_id": "job",
        "created_after": "2026-01-01T00:00:00Z",
        "created_before": "2027-01-01T00:00:00+01:00",
        "metadata.customer": "7",
    }
    assert (await http.get("/v1/tasks", params=filters)).json()["items"] == []
    assert (await http.get("/v1/events", params={"type": "task.overdue", "order": "asc"})).json()["items"]
    for event in (await http.get("/v1/events")).json()["items"]:
        assert (await http.get(f"/v1/events/{event['id']}")).json() == event
        assert (await http.get(f"/v1/events/{event['id']}/explain")).json()["items"]
    assert (await http.delete(f"/v1/keys/{key['id']}")).status_code == 204


async def _endpoints(klingel: Klingel) -> None:
    http = klingel.http
    secrets = {
        "url": klingel.receiver.url,
        "headers": {"x-a": "b"},
        "basic_auth": {"username": "u", "password": "p"},
    }
    endpoint = await klingel.endpoint(config=secrets, description="d", filter="data.task", types=["*"])
    where = f"/v1/endpoints/{endpoint['id']}"
    assert (await http.get(where)).status_code == 200
    assert (await http.get("/v1/web-push/key")).status_code == 200
    assert (await http.patch(where, json={"filter": None})).status_code == 200
    assert (await http.patch(where, json={"filter": "["})).status_code == 422
    assert (await http.patch(where, content=b"{")).status_code == 400
    public = await klingel.endpoint(config={"url": klingel.receiver.url, "signature": "v1a"}, enabled=False)
    assert (await http.post(f"/v1/endpoints/{public['id']}/rotate-secret")).json()["public_key"]
    assert (await http.post(f"{where}/test")).status_code == 202
    await klingel.receiver.until(4)
    assert (await http.post(f"{where}/rotate-secret")).status_code == 200
    replay = {"since": "2026-01-01T00:00:00Z", "only": "all"}
    assert (await http.post(f"{where}/replay", json=replay)).status_code == 202
    assert (await http.post(f"{where}/replay", json={"since": "now"})).status_code == 422
    await klingel.until(lambda: _nothing_pending(klingel))
    klingel.receiver.answers(410)
    assert (await http.post(f"{where}/test")).status_code == 202
    await klingel.until_deliveries("dead", endpoint_id=endpoint["id"], status="dead")
    assert (await http.get(where)).json()["disabled_reason"]
    assert (await http.get("/v1/events", params={"type": "endpoint.disabled"})).json()["items"]
    assert (await http.post(f"{where}/replay", json=replay)).status_code == 409
    [dead] = await klingel.deliveries(endpoint_id=endpoint["id"], status="dead")
    assert (await http.post(f"/v1/deliveries/{dead['id']}/replay")).status_code == 409
    assert (await http.delete(where)).status_code == 204
    for method, path in (
        ("GET", where),
        ("DELETE", where),
        ("POST", f"{where}/test"),
        ("POST", f"{where}/rotate-secret"),
        ("GET", "/v1/tasks/x"),
        ("GET", "/v1/tasks/x/events"),
        ("GET", "/v1/tasks/x/callbacks"),
        ("POST", "/v1/tasks/x/refresh"),
        ("GET", "/v1/deliveries/x"),
        ("POST", "/v1/deliveries/x/replay"),
        ("DELETE", "/v1/keys/x"),
    ):
        assert (await http.request(method, path)).status_code == 404
    assert (await http.patch(where, json={})).status_code == 404
    assert (await http.post(f"{where}/replay", json=replay)).status_code == 404


async def _nothing_pending(klingel: Klingel) -> bool:
    return not await klingel.deliveries(status="pending")


async def _deliveries(klingel: Klingel) -> None:
    klingel.receiver.answers(500)
    await klingel.submit()
    [failing] = await klingel.until_deliveries("pending", status="pending")
    await klingel.until_attempts(failing["id"], 1)
    where = f"/v1/deliveries/{failing['id']}"
    assert (await klingel.http.get(where)).json()["attempt_count"] == 1
    assert (await klingel.http.post(f"{where}/replay")).status_code == 202


async def _bots(klingel: Klingel) -> None:
    http = klingel.http
    for body in ({}, {"platform": "nowhere"}, bot_body("http://10.0.0.1"), bot_body("https://x", allow=[{}])):
        assert (await http.post("/v1/bots", json=body)).status_code == 422
    made = await http.post("/v1/bots", json=bot_body("https://chat.example.com"))
    assert made.status_code == 201
    where, listens_at = made.headers["location"], httpx.URL(made.json()["url"]).path
    assert (await http.get(where)).json() == made.json()
    assert (await http.get("/v1/bots", params={"limit": "1"})).json()["items"] == [made.json()]
    assert (await http.get("/v1/bots", params={"limit": "x"})).status_code == 422
    for patch in ({"open_tasks": 5}, {"config": {"bot_token": "another"}}, {"allow": [], "description": "a"}):
        assert (await http.patch(where, json=patch)).status_code == 200
    assert (await http.patch(where, json={"open_tasks": 0})).status_code == 422
    help = FakeMattermost().command("help", user_id="stranger")
    assert (await http.post(listens_at, content=help, headers=FORM)).status_code == 200
    assert (await http.post(listens_at, content=b"", headers=FORM)).status_code == 401
    assert (await http.post(listens_at, content=b" " * 1024 * 1025, headers=FORM)).status_code == 413
    assert (await http.get(listens_at, headers=FORM)).status_code == 401
    assert (await http.delete(where)).status_code == 204
    for method in ("GET", "POST"):
        assert (await http.request(method, listens_at, headers=FORM)).status_code == 404
    for method in ("GET", "PATCH", "DELETE"):
        assert (await http.request(method, where, json={})).status_code == 404


async def _keys(klingel: Klingel) -> None:
    http = klingel.http
    admin = (await http.get("/v1/keys")).json()["items"][-1]
    assert (await http.delete(f"/v1/keys/{admin['id']}")).status_code == 409
    async with klingel.another_account() as member:
        member.event_hooks = http.event_hooks
        assert (await member.post("/v1/keys", json={"name": "a"})).status_code == 403
        assert (await member.get("/v1/keys")).status_code == 403
        assert (await member.post("/v1/prune")).status_code == 403
        assert (await member.post("/v1/probe")).status_code == 403


async def _usage(klingel: Klingel) -> None:
    http = klingel.http
    task = await klingel.submit(metadata={"order": "1"})
    await klingel.call_back(succeed(task, final_unit_deduction="4.5"))
    for by in ("day", "type", "provider", "metadata.order"):
        assert (await http.get("/v1/usage", params={"by": by})).json()["items"]
    assert (await http.put("/v1/budgets", json={"limit": "4"})).status_code == 200
    body = {"type": "kling.multi-image-to-image", "input": dict(IMAGE_INPUT)}
    assert (await http.post("/v1/tasks", json=body)).status_code == 402
    assert (await http.get("/v1/events", params={"type": "budget.exceeded"})).json()["items"]
    assert (await http.get("/v1/budgets")).json()["items"]
    assert (await http.put("/v1/budgets", json={"limit": None})).status_code == 204


async def _upkeep(klingel: Klingel) -> None:
    assert (await klingel.http.post("/v1/prune")).status_code == 200
    assert (await klingel.http.post("/v1/probe")).status_code == 200
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert (await klingel.http.get(path)).status_code == 200


async def _streams(klingel: Klingel, description: Description) -> None:
    task = await klingel.submit()
    await klingel.call_back(succeed(task))
    async with klingel.served() as http:
        http.event_hooks = klingel.http.event_hooks
        http.headers["accept"] = "text/event-stream"
        async with http.stream("GET", f"/v1/tasks/{task['id']}/events") as response:
            told = [
                line.removeprefix("data: ")
                async for line in response.aiter_lines()
                if line.startswith("data")
            ]
        assert [json.loads(data)["type"] for data in told] == ["task.submitted", "task.succeeded"]
        for data in told:
            description.validate({"$ref": "#/components/schemas/TaskEvent"}, json.loads(data))
        lost = {"last-event-id": "evt_0"}
        assert (await http.get("/v1/events", headers=lost)).status_code == 404


async def _guesses(klingel: Klingel) -> None:
    nobody = klingel.client(None)
    nobody.event_hooks = klingel.http.event_hooks
    for number in range(KEYS):
        await nobody.get("/v1/tasks", headers={"authorization": f"Bearer {number}"})
    assert (await nobody.get("/v1/tasks", headers={"authorization": "Bearer x"})).status_code == 429
    # On a busy machine some are forgiven before the last one comes.
    told = [await nobody.post(f"/callbacks/cometapi/task_1/{number}") for number in range(TOKENS + 50)]
    assert told[-1].status_code == 429


async def test_what_is_delivered_is_as_the_webhook_is_described(
    klingel: Klingel, document: Document, description: Description
) -> None:
    """Bodies and headers of all kinds of events, as a receiver gets them."""
    endpoint = await klingel.endpoint(types=["*"])
    task = await klingel.submit(metadata={"a": [1, None]}, callback_url=klingel.receiver.url)
    await klingel.call_back(callback(task, "processing"))
    await klingel.call_back(succeed(task))
    failing = await klingel.submit()
    await klingel.call_back(callback(failing, "failed"))
    klingel.kling.answers(refused(400, 1201), refused(500, 5000))
    await klingel.http.post("/v1/tasks", json={"type": "kling.multi-image-to-image", "input": IMAGE_INPUT})
    await klingel.submit(headers={"prefer": "respond-async"})
    await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/rotate-secret")
    await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/test")
    await klingel.receiver.until(11)
    klingel.clock.advance(hours=2)
    received = await klingel.receiver.until(12)
    webhook = document["webhooks"]["event"]["post"]
    schema = webhook["requestBody"]["content"]["application/json"]["schema"]
    for one in received:
        description.validate(schema, one.event)
        assert one.headers["content-type"] in webhook["requestBody"]["content"]
        for header in webhook["parameters"]:
            assert header["in"] == "header"
            if header["name"] not in one.headers:
                assert not header.get("required")
                continue
            description.validate(header["schema"], one.headers[header["name"]])
    assert {one.event["type"] for one in received} >= {
        "task.submitted",
        "task.processing",
        "task.succeeded",
        "task.failed",
        "task.rejected",
        "task.unconfirmed",
        "task.overdue",
        "endpoint.test",
    }
