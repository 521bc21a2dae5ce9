"""The dashboard: what a person with a browser sees and does, with and without an account's key."""

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from service.dashboard.routes import routes
from service.domain.task_types import TASK_TYPES, TaskType
from service.doors.guesses import KEYS
from service.doors.sharing import BODIES_BYTES_OF_ONE
from storage.statements import Dialect
from tests.integration.klingel import (
    ADMIN_KEY,
    IMAGE_INPUT,
    PATIENCE_S,
    Klingel,
    callback,
    png,
    refused,
    running_klingel,
    succeed,
)
from tests.integration.test_overdue import until_overdue

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
FULL = refused(429, 1303, "parallel task over resource pack limit")
VIDEO = "/submit/kling.multi-image-to-video"
PAGES = [
    "/",
    "/tasks",
    "/submit",
    VIDEO,
    "/endpoints",
    "/deliveries",
    "/deliveries?status=dead",
    "/usage",
    "/bots",
    "/push",
]


class Browser:
    """Keeps cookies and sends the forms that a page holds, as a browser does."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.http.get(path, headers=headers)

    async def page(self, path: str) -> str:
        response = await self.get(path)
        assert response.status_code == 200, response.text
        return response.text

    async def token(self, path: str) -> str:
        return hidden(await self.page(path), "form_token")

    async def send(
        self, path: str, *, on: str, files: Any = None, follow: bool = False, **fields: Any
    ) -> httpx.Response:
        """The form at `path`, with the token of page `on`."""
        given = {name.replace("__", "."): value for name, value in fields.items()}
        return await self.http.post(
            path,
            data={"form_token": await self.token(on), **given},
            files=files,
            follow_redirects=follow,
        )

    async def sign_in(self, key: str, **fields: str) -> httpx.Response:
        return await self.send("/sign-in", on="/sign-in", key=key, **fields)


def hidden(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found is not None, page
    return unescape(found[1])


@asynccontextmanager
async def browsing(klingel: Klingel) -> AsyncIterator[Browser]:
    """By https, as the public address says."""
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(klingel.app, raise_app_exceptions=False),
        base_url="https://klingel.example.com",
        timeout=PATIENCE_S,
    ) as http:
        yield Browser(http)


@pytest.fixture
async def visitor(klingel: Klingel) -> AsyncIterator[Browser]:
    async with browsing(klingel) as browser:
        yield browser


@pytest.fixture
async def admin(visitor: Browser) -> Browser:
    assert (await visitor.sign_in(ADMIN_KEY)).status_code == 303
    return visitor


@asynccontextmanager
async def signed_in(klingel: Klingel, **key: str) -> AsyncIterator[tuple[Browser, dict[str, Any]]]:
    """Somebody with a key of their own."""
    made = (await klingel.http.post("/v1/keys", json={"name": "a person", **key})).json()
    async with browsing(klingel) as browser:
        assert (await browser.sign_in(made["key"])).status_code == 303
        yield browser, made


# Signing in and out


async def test_a_key_signs_in_and_is_nowhere_in_the_cookie(visitor: Browser) -> None:
    response = await visitor.sign_in(ADMIN_KEY)
    assert (response.status_code, response.headers["location"]) == (303, "/")
    [cookie] = response.headers.get_list("set-cookie")
    assert cookie.startswith("__Host-klingel=")
    for attribute in ("HttpOnly", "SameSite=strict", "Secure", "Path=/"):
        assert attribute in cookie
    assert ADMIN_KEY not in cookie
    assert (await visitor.get("/")).status_code == 200


async def test_by_http_the_cookie_comes_along_too(tmp_path: Path) -> None:
    """A browser keeps no `Secure` cookie of a plain address."""
    async with running_klingel(tmp_path, public_url=None) as klingel, klingel.client(None) as http:
        browser = Browser(http)
        response = await browser.sign_in(ADMIN_KEY)
        assert "Secure" not in response.headers["set-cookie"]
        assert (await browser.get("/tasks")).status_code == 200


@pytest.mark.parametrize("path", [path for path in PAGES if "?" not in path])
async def test_who_is_not_signed_in_is_asked_to_and_comes_back(visitor: Browser, path: str) -> None:
    response = await visitor.get(path)
    assert response.status_code == 303
    assert httpx.URL(response.headers["location"]).params["next"] == path
    back = await visitor.sign_in(ADMIN_KEY, next=path)
    assert back.headers["location"] == path


@pytest.mark.parametrize(
    "next", ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "/\n/x"]
)
async def test_nobody_is_sent_to_another_host(visitor: Browser, next: str) -> None:
    assert (await visitor.sign_in(ADMIN_KEY, next=next)).headers["location"] == "/"


@pytest.mark.parametrize("key", ["", "wrong", ADMIN_KEY[:-1]])
async def test_a_wrong_key_signs_nobody_in(visitor: Browser, key: str) -> None:
    response = await visitor.sign_in(key)
    assert response.status_code == 401
    assert 'role="alert"' in response.text
    assert (await visitor.get("/")).status_code == 303


async def test_guesses_count_with_those_at_the_api(klingel: Klingel, visitor: Browser) -> None:
    async with klingel.client("a-wrong-key") as guesser:
        for _ in range(KEYS):
            assert (await guesser.get("/v1/tasks")).status_code == 401
    response = await visitor.sign_in("another-wrong-key")
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) > 0
    assert (await visitor.sign_in(ADMIN_KEY)).status_code == 303


async def test_a_session_ends(klingel: Klingel, admin: Browser) -> None:
    klingel.clock.advance(hours=11, minutes=59)
    assert (await admin.get("/")).status_code == 200
    klingel.clock.advance(minutes=1)
    assert (await admin.get("/")).status_code == 303


async def test_with_its_key_a_session_ends(klingel: Klingel) -> None:
    async with signed_in(klingel) as (browser, key):
        assert (await browser.get("/tasks")).status_code == 200
        await klingel.http.delete(f"/v1/keys/{key['id']}")
        assert (await browser.get("/tasks")).status_code == 303
        assert (await browser.get("/live")).status_code == 401


async def test_signing_out(admin: Browser) -> None:
    response = await admin.send("/sign-out", on="/")
    assert (response.status_code, response.headers["location"]) == (303, "/sign-in")
    assert (await admin.get("/")).status_code == 303


async def test_a_cookie_that_is_changed_is_none(klingel: Klingel, admin: Browser) -> None:
    [(name, value)] = admin.http.cookies.items()
    async with browsing(klingel) as other:
        for changed in (
            value[:-1] + ("A" if value[-1] != "A" else "B"),
            value.replace("key_", "key_0", 1),
            "a.b.c.d",
            "…",
        ):
            response = await other.http.get("/", headers=[(b"cookie", f"{name}={changed}".encode())])
            assert response.status_code == 303, changed


async def test_a_link_on_another_page_leads_to_where_it_says(visitor: Browser) -> None:
    """A strict cookie does not come along from there; the page is asked for again, from here."""
    response = await visitor.get("/tasks?status=failed", **{"sec-fetch-site": "cross-site"})
    assert response.status_code == 200
    assert 'content="0;url=/tasks?status=failed"' in response.text


# Forms of other pages, and what every page says to browsers


def actions() -> list[str]:
    return [
        route.path
        for route in routes({})
        if "POST" in route.methods and route.path not in {"/sign-in", "/sign-out"}
    ]


@pytest.mark.parametrize("token", [None, "", "wrong", "of another session"])
async def test_a_form_of_somebody_else_is_refused(
    klingel: Klingel, admin: Browser, token: str | None
) -> None:
    """From the dashboard's own list: no action can be forgotten here."""
    if token == "of another session":
        async with signed_in(klingel) as (other, _):
            token = await other.token("/")
    endpoint = await klingel.endpoint()
    before = klingel.rows("select * from endpoints"), klingel.rows("select * from api_keys")
    assert len(actions()) > 10
    for pattern in [*actions(), "/sign-out"]:
        path = (
            pattern.replace("{id}", endpoint["id"]).replace("{kind}", "webhook").replace("{type}", VIDEO[8:])
        )
        fields = {"x": "y"} if token is None else {"form_token": token}
        assert (await admin.http.post(path, data=fields)).status_code == 403, path
    assert (klingel.rows("select * from endpoints"), klingel.rows("select * from api_keys")) == before
    assert (await admin.get("/")).status_code == 200


async def test_without_a_session_no_form_does_anything(klingel: Klingel, visitor: Browser) -> None:
    for pattern in actions():
        response = await visitor.http.post(pattern.replace("{id}", "x").replace("{type}", "x"), data={})
        assert (response.status_code, response.headers["location"]) == (303, "/sign-in")
    response = await visitor.http.post("/sign-in", data={"key": ADMIN_KEY, "form_token": "x"})
    assert response.status_code == 403
    assert (await visitor.get("/")).status_code == 303


async def test_what_every_page_says_to_browsers(klingel: Klingel, admin: Browser) -> None:
    task = await klingel.submit()
    async with browsing(klingel) as nobody:
        responses = [
            *[await admin.get(path) for path in [*PAGES, "/keys", f"/tasks/{task['id']}", "/tasks/task_0"]],
            await nobody.get("/sign-in"),
            await nobody.get("/"),
            await nobody.get("/live"),
            await admin.send("/keys", on="/keys", name=""),
        ]
    for response in responses:
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "same-origin"
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=", response.text)
        if response.headers.get("content-type", "").startswith("text/html"):
            assert response.headers["cache-control"] == "private, no-store"


async def test_static_files_are_for_ever_and_known_by_their_tags(visitor: Browser) -> None:
    page = await visitor.page("/sign-in")
    paths = set(re.findall(r'"(/static/[^"]+)"', page))
    assert len(paths) >= 3
    for path in paths:
        response = await visitor.get(path)
        assert response.status_code == 200
        assert "immutable" in response.headers["cache-control"]
        again = await visitor.get(path, **{"if-none-match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        former = re.sub(r"/static/\w+/", "/static/0123456789abcdef/", path)
        assert (await visitor.get(former)).status_code == 404
    assert (await visitor.get("/service-worker.js")).headers["content-type"].startswith("text/javascript")
    assert (await visitor.get("/favicon.ico")).headers["content-type"] == "image/svg+xml"


async def test_the_dashboard_stands_over_nothing_of_the_api(klingel: Klingel) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/tasks"):
        response = await klingel.http.get(path)
        assert response.status_code == 200
        assert not response.headers["content-type"].startswith("text/html")
    assert (await klingel.http.get("/nothing-here")).headers["content-type"] == "application/problem+json"


# Pages


@pytest.mark.parametrize("path", [*PAGES, "/keys"])
async def test_each_page_stands_while_there_is_nothing(admin: Browser, path: str) -> None:
    page = await admin.page(path)
    assert "<h1" in page
    assert '<main id="main"' in page


async def test_empty_pages_teach(admin: Browser) -> None:
    """With the exact command, at the address by which Klingel is reached."""
    for path, said in (
        ("/", "curl -sS https://klingel.example.com/v1/tasks"),
        ("/tasks", "curl -sS https://klingel.example.com/v1/tasks"),
        ("/endpoints", "curl -sS https://klingel.example.com/v1/endpoints"),
        ("/bots", "klingel bots create"),
    ):
        assert said in await admin.page(path)


async def test_the_whole_story_of_a_task_is_on_its_page(klingel: Klingel, admin: Browser) -> None:
    endpoint = await klingel.endpoint(description="The shop")
    task = await klingel.submit(external_task_id="order-7", metadata={"customer": "acme"})
    klingel.clock.advance(seconds=90)
    await klingel.call_back(callback := succeed(task))
    await klingel.call_back(callback)
    [delivery, _] = await klingel.until_deliveries("delivered", "delivered")
    page = unescape(await admin.page(f"/tasks/{task['id']}"))
    for said in (
        "a cat in a hat",
        "order-7",
        '"customer": "acme"',
        "submitted: 90 s",  # the timeline
        "advanced",
        "duplicate",
        "task.succeeded",
        "The shop",
        f"/deliveries/{delivery['id']}",
        'href="https://example.com/out.png"',
    ):
        assert said in page, said
    for path in ("/", "/tasks", "/deliveries", "/endpoints", f"/endpoints/{endpoint['id']}"):
        page = await admin.page(path)
        assert "The shop" in page or "a cat in a hat" in page, path


async def test_a_tasks_page_says_what_is_not_kept_any_more(klingel: Klingel, admin: Browser) -> None:
    await klingel.endpoint()
    task = await klingel.submit()
    await klingel.call_back(succeed(task))
    last = await klingel.submit()
    await klingel.call_back(succeed(last))
    await klingel.until_deliveries(*["delivered"] * 4)
    klingel.clock.now += timedelta(days=31)  # nobody is woken: what is forgotten is this order's work
    assert (await klingel.http.post("/v1/prune")).status_code == 200
    await admin.sign_in(ADMIN_KEY)
    page = await admin.page(f"/tasks/{task['id']}")
    assert "callbacks are kept for 30 days" in page
    assert "events are kept for 30 days" in page
    # Its last event is the log's newest, which stays.
    assert "No delivery of this is kept any more." in await admin.page(f"/tasks/{last['id']}")


async def test_a_rejected_tasks_page_says_that_nobody_will_call(klingel: Klingel, admin: Browser) -> None:
    klingel.kling.answers(refused(400, 1201, "no such model"))
    await klingel.http.post("/v1/tasks", json={"type": "kling.multi-image-to-image", "input": IMAGE_INPUT})
    [task] = klingel.rows("select id, status from tasks")
    assert task["status"] == "rejected"
    assert "The provider did not take it, so it does not call." in await admin.page(f"/tasks/{task['id']}")


async def test_a_queued_tasks_page_says_what_it_waits_for(klingel: Klingel, admin: Browser) -> None:
    await klingel.submit()
    klingel.kling.otherwise = FULL
    task = await klingel.submit_async()
    await klingel.until_row(task["id"], awaits_slot=1, sends=1)
    page = await admin.page(f"/tasks/{task['id']}")
    assert re.search(
        r"It waits for a free place at the provider; asked 1 time<span data-due>, next <time", page
    )
    assert "<dt>Made</dt>" in page
    second = await klingel.submit_async()
    await klingel.until_row(second["id"], awaits_slot=1, sends=0)  # in line behind the first
    page = await admin.page(f"/tasks/{second['id']}")
    assert "It waits for a free place at the provider<span" in page


async def test_what_was_overdue_before_the_provider_took_it_says_so(klingel: Klingel, admin: Browser) -> None:
    klingel.kling.otherwise = FULL
    task = await klingel.submit_async(deadline_s=60)
    await klingel.until_row(task["id"], awaits_slot=1)
    klingel.clock.advance(seconds=61)
    await until_overdue(klingel, task["id"])
    assert "the provider had not taken it by then" in await admin.page(f"/tasks/{task['id']}")


async def test_where_not_all_of_a_task_is_shown_its_page_says_so(klingel: Klingel, admin: Browser) -> None:
    """Of the oldest event none of the deliveries is among the newest 200; of the next one most are."""
    for _ in range(101):
        await klingel.endpoint()
    task = await klingel.submit()
    for status in ("processing", "succeed"):
        klingel.clock.advance(seconds=1)
        await klingel.call_back(callback(task, status) if status == "processing" else succeed(task))
    for _ in range(50):
        await klingel.call_back(succeed(task))
    page = await admin.page(f"/tasks/{task['id']}")
    assert "No endpoint got this." not in page
    assert page.count("Not all that got this are shown here.") == 2
    shown = page[page.index('id="callbacks"') : page.index('id="events"')]
    assert "the newest 50 are shown" in shown
    assert shown.count("verdict-duplicate") == 50
    assert "verdict-advanced" not in shown


async def test_a_gallery_shows_kept_pictures_from_here_and_nothing_from_elsewhere(
    klingel: Klingel, admin: Browser
) -> None:
    """No page tells another host that it is looked at."""
    task = await klingel.submit()
    await klingel.call_back(succeed(task))
    for path in ("/tasks", f"/tasks/{task['id']}"):
        sources = re.findall(r'\b(?:src|poster)="([^"]*)"', await admin.page(path))
        assert sources
        assert all(source.startswith("/") for source in sources)


async def test_tasks_are_found_by_status_type_and_external_id(klingel: Klingel, admin: Browser) -> None:
    done = await klingel.submit(external_task_id="order-1")
    await klingel.call_back(succeed(done))
    await klingel.submit("kling.multi-image-to-video", external_task_id="order-2")

    async def found(query: str) -> set[str]:
        return set(re.findall(r"order-\d", (await admin.page(f"/tasks?{query}")).split('id="gallery"')[1]))

    assert await found("") == {"order-1", "order-2"}
    assert await found("status=succeeded") == {"order-1"}
    assert await found("type=kling.multi-image-to-video") == {"order-2"}
    assert await found("external_task_id=order-2") == {"order-2"}
    assert await found("external_task_id=order-3") == set()
    assert await found("status=nonsense&before=nonsense") == {"order-1", "order-2"}
    response = await admin.get(f"/tasks?external_task_id={done['id']}")
    assert response.headers["location"] == f"/tasks/{done['id']}"


async def test_a_gallery_goes_page_by_page(klingel: Klingel, admin: Browser) -> None:
    for number in range(50):
        await klingel.submit_async(external_task_id=f"order-{number:02d}")
    first = await admin.page("/tasks")
    assert len(re.findall('<li class="card">', first)) == 48
    older = re.search(r'href="(\?before=[^"]+)"', first)
    assert older is not None
    second = await admin.page(f"/tasks{unescape(older[1])}")
    assert set(re.findall(r"order-\d\d", second)) == {"order-00", "order-01"}
    assert ">Newest<" in second
    of_another_list = await admin.page(f"/tasks?before=dlv_{'0' * 32}")
    assert re.findall(r"order-\d\d", of_another_list) == re.findall(r"order-\d\d", first)
    assert ">Newest<" not in of_another_list


@pytest.mark.parametrize(
    "where", ["prompt", "metadata", "external_task_id", "callback", "answer", "description"]
)
async def test_nothing_that_somebody_wrote_is_markup(klingel: Klingel, admin: Browser, where: str) -> None:
    hostile = HOSTILE if where != "external_task_id" else '"><script>alert(1)</script>'
    given: dict[str, Any] = {
        "prompt": {"input": {**IMAGE_INPUT, "prompt": hostile}},
        "metadata": {"metadata": {hostile: hostile}},
        "external_task_id": {"external_task_id": hostile},
    }.get(where, {})
    endpoint = await klingel.endpoint(description=hostile if where == "description" else None)
    task = await klingel.http.post(
        "/v1/tasks", json={"type": "kling.multi-image-to-image", "input": IMAGE_INPUT, **given}
    )
    task = task.json()
    message = {"task_status_msg": hostile} if where == "callback" else {}
    await klingel.call_back({**succeed(task), **message})
    await klingel.until_deliveries("delivered", "delivered")
    paths = [
        "/",
        "/tasks",
        f"/tasks/{task['id']}",
        "/endpoints",
        f"/endpoints/{endpoint['id']}",
        "/deliveries",
    ]
    paths += [f"/deliveries/{each['id']}" for each in await klingel.deliveries()]
    for path in paths:
        page = await admin.page(path)
        assert "<script>" not in page, path
        assert "onerror=alert(2)>" not in page, path
    assert "alert(1)" in "".join([await admin.page(path) for path in paths]) or where == "answer"


async def test_what_is_due_and_what_is_dead_is_on_the_first_page(klingel: Klingel, admin: Browser) -> None:
    klingel.receiver.always = 410
    await klingel.endpoint()
    task = await klingel.submit()
    await klingel.until_deliveries("dead")
    page = await admin.page("/")
    assert re.search(r'Dead letters</h2><p class="figure bad">1<', page)
    dead = await admin.page("/deliveries?status=dead")
    assert "task.submitted" in dead
    assert task["id"] in dead


async def test_what_is_due_leads_from_the_first_page_to_what_waits(klingel: Klingel, admin: Browser) -> None:
    assert "/deliveries?status=pending" not in await admin.page("/")
    klingel.receiver.always = 500
    await klingel.endpoint()
    await klingel.submit()
    [delivery] = await klingel.until_deliveries("pending")
    await klingel.until_attempts(delivery["id"], 1)
    klingel.clock.now += timedelta(minutes=5)  # nobody is woken
    assert '<a href="/deliveries?status=pending">' in await admin.page("/")
    assert delivery["id"] in await admin.page("/deliveries?status=pending")


async def test_a_chart_says_in_words_what_it_shows(klingel: Klingel, admin: Browser) -> None:
    await klingel.endpoint()
    for _ in range(3):
        await klingel.call_back(succeed(await klingel.submit()))
    await klingel.submit()
    await klingel.until_deliveries(*["delivered"] * 7)
    page = await admin.page("/")
    assert 'role="img" aria-label="Tasks of the last 24 hours: 3 succeeded, 1 open."' in page
    assert 'role="img" aria-label="From callback to delivery: half took at most' in page


async def test_follow_ups_lead_to_each_other(klingel: Klingel, admin: Browser) -> None:
    follow_up = {
        "on": "task.succeeded",
        "submit": {"type": "kling.multi-image-to-image", "input": dict(IMAGE_INPUT)},
    }
    parent = await klingel.submit(follow_ups=[follow_up])
    await klingel.call_back(succeed(parent))
    await klingel.kling.until(2)

    async def child() -> str | None:
        children = (await klingel.task(parent["id"]))["children"]
        return children[0]["id"] if children else None

    child_id = await klingel.until(child)
    assert f"/tasks/{child_id}" in await admin.page(f"/tasks/{parent['id']}")
    assert f"/tasks/{parent['id']}" in await admin.page(f"/tasks/{child_id}")


async def test_a_refresh_is_one_question(klingel: Klingel, admin: Browser) -> None:
    task = await klingel.submit()
    page = f"/tasks/{task['id']}"
    klingel.kling.answers(
        httpx.Response(200, json={"code": 0, "message": "SUCCEED", "request_id": "r", "data": succeed(task)})
    )
    response = await admin.send(f"{page}/refresh", on=page)
    assert response.headers["location"] == f"{page}?done=refreshed"
    assert klingel.kling.status_queries == 1
    assert "is-succeeded" in await admin.page(page)
    assert (await admin.send(f"{page}/refresh", on=page)).status_code == 409


# Isolation


async def test_nobody_sees_anothers(klingel: Klingel, admin: Browser) -> None:
    endpoint = await klingel.endpoint(description="The shop")
    task = await klingel.submit(external_task_id="order-7")
    [delivery] = await klingel.until_deliveries("delivered")
    mine = {"tasks": task["id"], "endpoints": endpoint["id"], "deliveries": delivery["id"]}
    async with signed_in(klingel, account="other") as (stranger, _):
        for folder, id in mine.items():
            assert (await admin.get(f"/{folder}/{id}")).status_code == 200
            assert (await stranger.get(f"/{folder}/{id}")).status_code == 404
        for path in (*PAGES, "/tasks?external_task_id=order-7", f"/deliveries?endpoint_id={endpoint['id']}"):
            page = await stranger.page(path)
            assert "The shop" not in page
            assert "a cat in a hat" not in page
        before = klingel.rows("select * from endpoints"), klingel.rows("select * from deliveries")
        for path in (
            f"/tasks/{task['id']}/refresh",
            f"/endpoints/{endpoint['id']}",
            *(
                f"/endpoints/{endpoint['id']}/{act}"
                for act in ("test", "rotate-secret", "switch", "delete", "replay")
            ),
            f"/deliveries/{delivery['id']}/replay",
        ):
            assert (await stranger.send(path, on="/")).status_code == 404, path
        assert (klingel.rows("select * from endpoints"), klingel.rows("select * from deliveries")) == before


async def test_nobody_counts_anothers(klingel: Klingel, admin: Browser) -> None:
    """Whoever has done nothing yet is told so."""
    klingel.receiver.answers(200, 410)
    await klingel.endpoint()
    await klingel.call_back(succeed(await klingel.submit()))
    [_, dead] = await klingel.until_deliveries("delivered", "dead")
    async with signed_in(klingel, account="other") as (stranger, _):
        mine, theirs = await admin.page("/"), await stranger.page("/")
        for said in (
            'Tasks in 24 hours</h2><p class="figure">0<',
            "No tasks in 24 hours.",
            "nothing was delivered in 24 hours",
            "Nothing was delivered in 24 hours.",
            'Dead letters</h2><p class="figure">0<',
        ):
            assert said in theirs
            assert said not in mine
        dead_letters = "/deliveries?status=dead"
        assert dead["id"] in await admin.page(dead_letters)
        assert dead["id"] not in await stranger.page(dead_letters)


async def test_keys_are_for_admins(klingel: Klingel, admin: Browser) -> None:
    assert 'href="/keys"' in await admin.page("/")
    async with signed_in(klingel) as (member, key):
        assert 'href="/keys"' not in await member.page("/")
        assert (await member.get("/keys")).status_code == 403
        assert (await member.send("/keys", on="/", name="mine", role="admin")).status_code == 403
        assert (await member.send(f"/keys/{key['id']}/revoke", on="/")).status_code == 409
        assert (await member.get("/")).status_code == 200


async def test_no_header_of_a_client_stands_for_a_session(klingel: Klingel) -> None:
    async with klingel.client(None) as nobody:
        for name in ("klingel.signed_in", "klingel-signed-in"):
            assert (await nobody.get("/v1/tasks", headers={name: "key_0"})).status_code == 401


# Submitting


FILES = [
    ("input.image_list.file", ("cat.png", png(10), "image/png")),
    ("input.image_list.file", ("hat.png", png(200), "image/png")),
]


async def test_a_submit_with_files_becomes_a_task(klingel: Klingel, admin: Browser) -> None:
    response = await admin.send(
        VIDEO, on=VIDEO, files=FILES, input__prompt="A cat puts on a hat", input__duration="10", input__cfg_scale="0.5",
        more__external_task_id="order-8", more__metadata='{"customer": "acme"}', action="submit",
    )  # fmt: skip
    assert response.status_code == 303, response.text
    [create] = await klingel.kling.until(1)
    assert [create["prompt"], create["duration"], create["cfg_scale"], len(create["image_list"])] == [
        "A cat puts on a hat",
        "10",
        0.5,
        2,
    ]
    task = await klingel.task(response.headers["location"].removeprefix("/tasks/").partition("?")[0])
    assert (task["external_task_id"], task["metadata"]) == ("order-8", {"customer": "acme"})


async def test_files_and_addresses_go_together_and_in_order(klingel: Klingel, admin: Browser) -> None:
    await admin.send(
        VIDEO, on=VIDEO, files=FILES[:1], input__prompt="x", input__image_list="https://example.com/a.png\r\n\r\nhttps://example.com/b.png\r\n",
        action="submit",
    )  # fmt: skip
    [create] = await klingel.kling.until(1)
    assert [each["image"][:25] for each in create["image_list"]][1:] == [
        "https://example.com/a.png",
        "https://example.com/b.png",
    ]


async def test_the_same_form_twice_is_one_task(klingel: Klingel, admin: Browser) -> None:
    once = hidden(await admin.page(VIDEO), "once")
    form: dict[str, Any] = {"once": once, "files": FILES, "input__prompt": "x", "action": "submit"}
    answers = [await admin.send(VIDEO, on=VIDEO, **form) for _ in range(2)]
    assert answers[0].headers["location"] == answers[1].headers["location"]
    assert len(klingel.rows("select id from tasks")) == 1


# Nothing can be committed to a table: by SQLite not written, by PostgreSQL for the connection is lost just then.
GOES_AWAY = """
    create or replace function go_away() returns trigger language plpgsql as
    'begin perform pg_terminate_backend(pg_backend_pid()); return null; end'
"""
AT_EACH_COMMIT = """
    create constraint trigger commits_lost after insert on {table} deferrable initially deferred
    for each row execute function go_away()
"""
SPOILED = {Dialect.SQLITE: ["pragma query_only = on"], Dialect.POSTGRES: [GOES_AWAY, AT_EACH_COMMIT]}
MENDED = {
    Dialect.SQLITE: "pragma query_only = off",
    Dialect.POSTGRES: "drop trigger commits_lost on {table}",
}


@asynccontextmanager
async def losing_commits(klingel: Klingel, table: str) -> AsyncIterator[None]:
    dialect = klingel.places.dialect
    for statement in SPOILED[dialect]:
        await klingel.tamper(statement.format(table=table))
    yield
    await klingel.tamper(MENDED[dialect].format(table=table))


async def test_a_submit_that_may_be_stored_is_the_same_when_it_is_sent_again(
    klingel: Klingel, admin: Browser
) -> None:
    """Whether a commit that was lost counts is not known: a second task might be paid for."""
    page = await admin.page(VIDEO)
    once = hidden(page, "once")
    form = {"form_token": hidden(page, "form_token"), "once": once, "input.prompt": "x", "action": "submit"}
    async with losing_commits(klingel, "tasks"):
        lost = await admin.http.post(VIDEO, data=form, files=FILES)
    assert lost.status_code == 503
    assert "It is not known whether this was done." in lost.text
    assert "Nothing was sent" not in lost.text
    assert hidden(lost.text, "once") == once
    curl = await admin.http.post(VIDEO, data={**form, "action": "curl"}, files=FILES)
    assert hidden(curl.text, "once") == once
    assert (await admin.http.post(VIDEO, data=form, files=FILES)).status_code == 303
    [task] = klingel.rows("select id from tasks")

    changed = await admin.http.post(VIDEO, data={**form, "input.prompt": "y"}, files=FILES)
    assert (changed.status_code, f"as {task['id']}" in changed.text) == (422, True)
    assert hidden(changed.text, "once") != once


async def test_a_submit_that_there_is_no_room_for_was_not_sent(klingel: Klingel, admin: Browser) -> None:
    """The form itself fits; what it asks of the API, with its picture as Base64, does not."""
    picture = ("input.image_list.file", ("large.png", png(200).ljust(100_000), "image/png"))
    [account] = {row["account_id"] for row in klingel.rows("select account_id from api_keys")}
    with klingel.state["shares"].bodies.hold(account) as holding:
        holding.grow_to(BODIES_BYTES_OF_ONE)
        answer = await admin.send(VIDEO, on=VIDEO, files=[picture], input__prompt="x", action="submit")
    assert (answer.status_code, "Too many large bodies" in answer.text) == (503, True)
    assert "Nothing was sent." in answer.text
    assert "It is not known" not in answer.text


@pytest.mark.parametrize(
    ("page", "path", "table", "form"),
    [
        ("/keys", "/keys", "api_keys", {"name": "shop", "role": "member"}),
        ("/usage", "/usage/budget", "budgets", {"unit": "units", "period": "day", "limit": "5"}),
    ],
)
async def test_a_form_that_may_have_been_obeyed_says_so(
    klingel: Klingel, admin: Browser, page: str, path: str, table: str, form: dict[str, str]
) -> None:
    token = hidden(await admin.page(page), "form_token")
    async with losing_commits(klingel, table):
        lost = await admin.http.post(path, data={"form_token": token, **form})
    assert lost.status_code == 503
    assert "It is not known whether this was done." in lost.text
    assert "nothing was sent" not in lost.text


async def test_each_fault_stands_at_its_field(klingel: Klingel, admin: Browser) -> None:
    response = await admin.send(
        VIDEO, on=VIDEO, files=[(FILES[0][0], ("cat.png", b"no picture", "image/png")), FILES[1]],
        input__prompt="y" * 501, input__mode="std", input__cfg_scale="7", more__metadata="{", more__callback_url="ftp://x", action="submit",
    )  # fmt: skip
    assert response.status_code == 422
    # What is no JSON is said before the rest is asked about.
    assert re.search(r'id="more-metadata-fault".*?not JSON', response.text, re.DOTALL)
    response = await admin.send(
        VIDEO, on=VIDEO, files=[(FILES[0][0], ("cat.png", b"no picture", "image/png")), FILES[1]],
        input__prompt="y" * 501, input__cfg_scale="7", more__callback_url="ftp://x", action="submit",
    )  # fmt: skip
    assert response.status_code == 422
    for element, said in (
        ("input-image_list", "No. 1: The picture is neither"),
        ("input-prompt", "at most 500"),
        ("input-cfg_scale", "at most 1"),
        ("more-callback_url", "http"),
    ):
        found = re.search(rf'id="{element}-fault".*?</(?:div|ul)>', response.text, re.DOTALL)
        assert found is not None, element
        assert said in unescape(found[0])
        assert re.search(
            rf'id="{element}"[^>]*aria-describedby="[^"]*{element}-fault[^>]*aria-invalid="true"',
            response.text,
        )
    assert "y" * 501 in response.text
    assert klingel.rows("select id from tasks") == []


async def test_a_form_shows_the_curl_that_would_send_it(admin: Browser) -> None:
    response = await admin.send(
        VIDEO, on=VIDEO, files=FILES, input__prompt='a $HOME `cat` "q"', action="curl"
    )
    assert response.status_code == 200
    command = unescape(response.text)
    assert "curl -sS https://klingel.example.com/v1/tasks" in command
    assert "$(base64 < cat.png | tr -d '\\n')" in command
    assert r'"a \$HOME \`cat\` \\"q\\""' in command


async def test_a_form_that_does_not_say_which_button_was_pressed_does_nothing(
    klingel: Klingel, admin: Browser
) -> None:
    """As one may arrive that a script, or a proxy, has sent on."""
    new = "/endpoints/new/webhook"
    submitted = await admin.send(VIDEO, on=VIDEO, files=FILES, input__prompt="x")
    made = await admin.send(new, on=new, config__url=klingel.receiver.url)
    for response in (submitted, made):
        assert response.status_code == 200
        assert "The same from a terminal" in response.text
    assert klingel.rows("select id from tasks") == []
    assert (await klingel.http.get("/v1/endpoints")).json()["items"] == []


async def test_forms_have_a_field_for_all_that_a_type_takes(admin: Browser) -> None:
    page = await admin.page(VIDEO)
    for name in (
        "image_list",
        "prompt",
        "negative_prompt",
        "mode",
        "duration",
        "aspect_ratio",
        "cfg_scale",
        "static_mask",
        "dynamic_masks",
    ):
        assert f'name="input.{name}"' in page
    assert 'name="input.scence_image"' not in await admin.page("/submit/kling.multi-image-to-image")
    assert (await admin.get("/submit/nothing")).status_code == 404


async def test_what_is_entered_as_json_says_so_with_an_example_that_is_taken(admin: Browser) -> None:
    seen = 0
    for row in TASK_TYPES.values():
        page = await admin.page(f"/submit/{row.name}")
        for name in re.findall(r'<textarea id="input-([^"]+)"[^>]* rows="4"', page):
            hint = re.search(rf'id="input-{name}-hint">([^<]*)<', page)
            assert hint is not None, name
            said, example = unescape(hint[1]).split("s JSON, e.g. ")
            assert said.endswith(("A", "; a"))
            assert name not in at_fault(row, {name: json.loads(example)})
            seen += 1
    assert seen > 10


def at_fault(row: TaskType, input: Mapping[str, Any]) -> set[object]:
    """The fields at fault."""
    try:
        row.input_model.model_validate(input)
    except ValidationError as error:
        return {fault["loc"][0] for fault in error.errors() if fault["loc"]}
    return set()


async def test_a_choice_with_one_word_more_is_a_choice(admin: Browser) -> None:
    page = await admin.page("/submit/kling.omni-image")
    assert re.search(
        r'<select id="input-aspect_ratio".*?<option>21:9</option>.*?<option selected>auto<', page, re.DOTALL
    )


async def test_retired_types_are_marked_where_one_is_chosen(admin: Browser) -> None:
    page = await admin.page("/submit")
    tiles = re.findall(r'<a href="/submit/([^"#]+)#form".*?</a>', page, re.DOTALL)
    marked = re.findall(r'<a href="/submit/([^"#]+)#form"(?:(?!</a>).)*>retired<', page, re.DOTALL)
    assert tiles == list(TASK_TYPES)
    assert marked == [row.name for row in TASK_TYPES.values() if row.retired]


async def test_an_upload_that_is_too_large_is_refused(admin: Browser) -> None:
    token = await admin.token(VIDEO)
    response = await admin.http.post(
        VIDEO, data={"form_token": token}, files={"x": ("x.png", bytes(49 * 1024 * 1024), "image/png")}
    )
    assert response.status_code == 413


@pytest.mark.parametrize(
    "kind", ["application/json", "multipart/form-data", "multipart/form-data; boundary=x", "text/plain", ""]
)
async def test_what_is_no_form_is_refused(admin: Browser, kind: str) -> None:
    response = await admin.http.post("/push", content=b"\xff--x\r\n{", headers={"content-type": kind})
    assert response.status_code in {400, 403}


# Endpoints


async def test_the_life_of_an_endpoint(klingel: Klingel, admin: Browser) -> None:
    new = "/endpoints/new/webhook"
    made = await admin.send(
        new,
        on=new,
        config__url=klingel.receiver.url,
        more__description="The shop",
        more__types="task.succeeded",
        action="create",
    )
    assert made.status_code == 200
    assert re.search(r"whsec_[\w+/=]{40,}", unescape(made.text))
    [endpoint] = (await klingel.http.get("/v1/endpoints")).json()["items"]
    assert (endpoint["types"], endpoint["description"]) == (["task.succeeded"], "The shop")
    page = f"/endpoints/{endpoint['id']}"
    assert "whsec_" not in await admin.page(page)

    tested = await admin.send(f"{page}/test", on=page)
    await klingel.receiver.until(1)
    await klingel.until_deliveries("delivered")
    assert "is-delivered" in await admin.page(tested.headers["location"])
    assert "100 % of 1 attempts" in await admin.page(page)

    rotated = await admin.send(f"{page}/rotate-secret", on=page)
    assert "whsec_" in rotated.text
    assert "whsec_" not in await admin.page(page)

    changed = await admin.send(
        page,
        on=page,
        config__url=klingel.receiver.url + "/new",
        config__format="cloudevents",
        more__description="",
        more__types="task.*",
    )
    assert changed.status_code == 303, changed.text
    endpoint = (await klingel.http.get(page.replace("/endpoints", "/v1/endpoints"))).json()
    assert endpoint["config"]["url"].endswith("/new")
    assert (endpoint["config"]["format"], endpoint["description"], endpoint["types"]) == (
        "cloudevents",
        None,
        ["task.*"],
    )

    await admin.send(f"{page}/switch", on=page, enabled="false")
    assert "Disabled: switched off" in await admin.page(page)
    assert (await admin.send(f"{page}/test", on="/")).status_code in {303, 409}
    await admin.send(f"{page}/switch", on=page, enabled="true")
    assert 'is-enabled">enabled' in await admin.page(page)

    await klingel.submit()
    await klingel.receiver.until(2)
    replayed = await admin.send(f"{page}/replay", on=page, age="24 hours", only="all")
    assert "number=" in replayed.headers["location"]

    assert (await admin.send(f"{page}/delete", on=page)).headers["location"] == "/endpoints?done=deleted"
    assert (await admin.get(page)).status_code == 404


async def test_the_page_of_an_endpoint_shows_its_public_key_if_it_has_one(
    klingel: Klingel, admin: Browser
) -> None:
    new = "/endpoints/new/webhook"
    made = await admin.send(
        new, on=new, config__url=klingel.receiver.url, config__signature="v1a", action="create"
    )
    assert made.status_code == 200
    [endpoint] = (await klingel.http.get("/v1/endpoints")).json()["items"]
    page = f"/endpoints/{endpoint['id']}"
    assert endpoint["public_key"] in unescape(await admin.page(page))
    changed = await admin.send(
        page, on=page, config__url=klingel.receiver.url, config__signature="v1", config__format="standard"
    )
    assert changed.status_code == 303, changed.text
    assert "whpk_" not in await admin.page(page)


async def test_a_rate_is_given_changed_and_taken_away_by_the_form_and_shown_on_the_page(
    klingel: Klingel, admin: Browser
) -> None:
    new, url = "/endpoints/new/webhook", klingel.receiver.url
    refused = await admin.send(new, on=new, config__url=url, more__rate_per_minute="half", action="create")
    assert refused.status_code == 422
    assert "must be a whole number" in refused.text
    assert 'value="half"' in refused.text
    made = await admin.send(new, on=new, config__url=url, more__rate_per_minute="20", action="create")
    assert made.status_code == 200
    [endpoint] = (await klingel.http.get("/v1/endpoints")).json()["items"]
    page = f"/endpoints/{endpoint['id']}"
    assert endpoint["rate_per_minute"] == 20
    assert "at most 20 attempts a minute" in await admin.page(page)
    for given, kept, shown in (("1", 1, True), ("", None, False)):
        changed = await admin.send(
            page, on=page, config__url=url, config__format="standard", config__signature="v1",
            more__types="task.*", more__rate_per_minute=given,
        )  # fmt: skip
        assert changed.status_code == 303, changed.text
        assert (await klingel.http.get(f"/v1{page}")).json()["rate_per_minute"] == kept
        assert ("at most 1 attempt a minute" in await admin.page(page)) == shown


async def test_an_endpoint_with_no_event_ticked_any_more_listens_to_what_a_new_one_would(
    klingel: Klingel, admin: Browser
) -> None:
    webhook = {"config": {"url": klingel.receiver.url}}
    submit = {"type": "kling.text-to-video", "input": {"prompt": "A cat"}}
    follow_up = {"kind": "task", "config": {"submit": submit}}
    for body, form in ((webhook, webhook["config"]), (follow_up, {"submit": json.dumps(submit)})):
        usual = (await klingel.endpoint(**body))["types"]
        endpoint = await klingel.endpoint(**body, types=["task.failed"])
        page = f"/endpoints/{endpoint['id']}"
        assert 'value="task.failed" checked' in await admin.page(page)
        unticked = {f"config__{name}": value for name, value in form.items()}
        assert (await admin.send(page, on=page, **unticked)).status_code == 303
        assert (await klingel.http.get(f"/v1{page}")).json()["types"] == usual


async def test_the_page_of_a_task_s_own_endpoint_offers_no_rate(klingel: Klingel, admin: Browser) -> None:
    task = await klingel.submit(callback_url=klingel.receiver.url)
    page = f"/endpoints/{task['endpoints'][0]['id']}"
    shown = await admin.page(page)
    assert 'name="more.filter"' in shown
    assert "rate_per_minute" not in shown


async def test_a_change_that_names_no_secret_keeps_it(klingel: Klingel, admin: Browser) -> None:
    config = {
        "url": klingel.receiver.url,
        "basic_auth": {"username": "me", "password": "a-password"},
        "headers": {"x-one": "1"},
    }
    endpoint = await klingel.endpoint(config=config)
    page = f"/endpoints/{endpoint['id']}"
    shown = await admin.page(page)
    assert "a-password" not in shown
    headers = re.search(r'name="config.headers"[^>]*>([^<]*)<', shown)
    assert headers is not None
    response = await admin.send(
        page, on=page, config__url=klingel.receiver.url, config__headers=unescape(headers[1]),
        config__basic_auth__username="me", config__format="standard", more__types="task.*", more__description="named",
    )  # fmt: skip
    assert response.status_code == 303, response.text
    await klingel.submit()
    [request] = await klingel.receiver.until(1)
    assert request.headers["authorization"].startswith("Basic ")
    assert request.headers["x-one"] == "1"


async def test_a_form_that_is_saved_without_a_change_leaves_the_config_alone(
    klingel: Klingel, admin: Browser
) -> None:
    """What a browser sends back of a webhook without headers of its own is not even asked for."""
    config = {"url": klingel.receiver.url, "basic_auth": {"username": "me", "password": "a-password"}}
    endpoint = await klingel.endpoint(config=config)
    klingel.receiver.answers(500)
    await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/test")
    [delivery] = await klingel.deliveries()
    await klingel.until_attempts(delivery["id"], 1)
    page = f"/endpoints/{endpoint['id']}"
    response = await admin.send(
        page, on=page, config__url=klingel.receiver.url, config__headers="",
        config__basic_auth__username="me", config__basic_auth__password="", config__format="standard",
        config__signature="v1", more__types="task.*", more__description="The shop",
    )  # fmt: skip
    assert response.status_code == 303, response.text
    shown = (await klingel.http.get(f"/v1{page}")).json()
    assert (shown["description"], shown["failures"]) == ("The shop", 1)


async def test_a_login_that_is_blanked_is_taken_away(klingel: Klingel, admin: Browser) -> None:
    config = {"url": klingel.receiver.url, "basic_auth": {"username": "me", "password": "a-password"}}
    endpoint = await klingel.endpoint(config=config)
    page = f"/endpoints/{endpoint['id']}"
    response = await admin.send(
        page, on=page, config__url="https://elsewhere.example.com/", config__format="standard", more__types="task.*",
    )  # fmt: skip
    assert response.status_code == 303, response.text
    changed = (await klingel.http.get(f"/v1{page}")).json()
    assert changed["config"] == {"url": "https://elsewhere.example.com/", "format": "standard"}


async def test_faults_of_an_endpoint_stand_at_their_fields(klingel: Klingel, admin: Browser) -> None:
    new = "/endpoints/new/ntfy"
    response = await admin.send(
        new, on=new, config__topic="not a topic!", more__filter="[", more__types="nothing.*", action="create"
    )
    assert response.status_code == 422
    assert 'id="config-topic-fault"' in response.text
    assert 'id="more-filter-fault"' in response.text
    assert "nothing.*" in response.text
    assert klingel.rows("select id from endpoints where kind = 'ntfy'") == []
    assert (await admin.get("/endpoints/new/archive")).status_code == 404
    assert (await admin.get("/endpoints/new/web_push")).status_code == 404


async def test_each_kind_has_a_form_and_a_page_of_its_own(klingel: Klingel, admin: Browser) -> None:
    kinds = set(re.findall(r'href="/endpoints/new/(\w+)"', await admin.page("/endpoints")))
    assert kinds == set(klingel.state["sinks"]) - {"web_push"}
    for kind in sorted(kinds):
        assert 'name="config.' in await admin.page(f"/endpoints/new/{kind}")


async def test_a_failing_endpoint_says_why_and_when_next(klingel: Klingel, admin: Browser) -> None:
    klingel.receiver.always = 500
    endpoint = await klingel.endpoint()
    await klingel.submit()
    [delivery] = await klingel.until_deliveries("pending")
    await klingel.until_attempts(delivery["id"], 1)
    page = await admin.page(f"/deliveries/{delivery['id']}")
    assert "Answered <strong>500</strong>" in page
    assert "noted" in page  # what it answered
    assert "Next attempt" in page
    for path in (f"/tasks/{delivery['task_id']}", f"/endpoints/{endpoint['id']}", "/deliveries"):
        assert "answered 500" in await admin.page(path), path
    assert "is-failing" in await admin.page(f"/endpoints/{endpoint['id']}")
    assert "0 %" in await admin.page("/endpoints")


async def test_a_delivery_that_is_due_says_what_it_waits_for(klingel: Klingel, admin: Browser) -> None:
    keeps_failing = "An endpoint that keeps failing is tried now and then"
    limited = await klingel.endpoint(rate_per_minute=1)
    tests = [(await klingel.http.post(f"/v1/endpoints/{limited['id']}/test")).json() for _ in range(2)]
    await klingel.receiver.until(1)
    page = await admin.page(f"/deliveries/{tests[1]['delivery']['id']}")
    assert "Its endpoint takes at most 1 attempt a minute." in page
    assert keeps_failing not in page

    klingel.receiver.always = 500
    failing = await klingel.endpoint()
    tested = (await klingel.http.post(f"/v1/endpoints/{failing['id']}/test")).json()["delivery"]
    await klingel.until_attempts(tested["id"], 1)
    await klingel.tamper(f"update deliveries set next_attempt_at = 0 where id = '{tested['id']}'")
    page = await admin.page(f"/deliveries/{tested['id']}")
    assert keeps_failing in page
    assert "attempt a minute" not in page


async def test_a_dead_letter_is_replayed(klingel: Klingel, admin: Browser) -> None:
    klingel.receiver.answers(410)
    endpoint = await klingel.endpoint()
    await klingel.submit()
    [dead] = await klingel.until_deliveries("dead")
    page = f"/deliveries/{dead['id']}"
    lists = (page, "/deliveries?status=dead", f"/tasks/{dead['task_id']}")
    assert (await admin.send(f"{page}/replay", on=page)).status_code == 409  # it was disabled by that
    for path in lists:  # so none offers it
        assert f'action="{page}/replay"' not in await admin.page(path), path
    assert "its endpoint is disabled" in await admin.page("/deliveries?status=dead")
    await admin.send(f"/endpoints/{endpoint['id']}/switch", on="/", enabled="true")
    for path in lists:
        assert f'action="{page}/replay"' in await admin.page(path), path
    response = await admin.send(f"{page}/replay", on=page)
    assert response.status_code == 303
    await klingel.receiver.until(2)
    assert "Replay of" in await admin.page(response.headers["location"])
    back = await admin.send(f"{page}/replay", on=page, back="//evil.example")
    assert back.headers["location"].startswith("/deliveries/")


async def test_an_event_says_who_got_it_and_why(klingel: Klingel, admin: Browser) -> None:
    await klingel.endpoint(description="The shop")
    await klingel.endpoint(description="The office", types=["task.failed"])
    task = await klingel.submit()
    await klingel.until_deliveries("delivered")
    [event] = await klingel.events(task["id"])
    assert f"/events/{event['id']}" in await admin.page(f"/tasks/{task['id']}")
    page = await admin.page(f"/events/{event['id']}")
    shop, office = page.index("The shop"), page.index("The office")
    assert ">sent<" in page[:shop]
    assert ">not sent<" in page[shop:office]
    assert "It takes task.failed, and this is none of them." in page
    async with signed_in(klingel, account="other") as (stranger, _):
        assert (await stranger.get(f"/events/{event['id']}")).status_code == 404


# Keys, and notifications


async def test_an_admin_makes_a_key_and_revokes_it(klingel: Klingel, admin: Browser) -> None:
    made = await admin.send("/keys", on="/keys", name="for the shop", account="shop", role="member")
    found = re.search(r"kl_[\w-]{40,}", made.text)
    assert found is not None
    async with klingel.client(found[0]) as shop:
        assert (await shop.get("/v1/tasks")).status_code == 200
        [id] = re.findall(r"/keys/(key_\w+)/revoke", await admin.page("/keys"))
        response = await admin.send(f"/keys/{id}/revoke", on="/keys")
        assert response.headers["location"] == "/keys?done=revoked"
        assert (await shop.get("/v1/tasks")).status_code == 401
    assert found[0] not in await admin.page("/keys")
    refused = await admin.send("/keys", on="/keys", name="x", account="Not An Account")
    assert refused.status_code == 422
    assert 'role="alert"' in refused.text


async def test_a_browser_subscribes_to_notifications(klingel: Klingel, admin: Browser) -> None:
    assert klingel.state["push_keys"].public in await admin.page("/push")
    for subscription in ("", "[]", '{"endpoint": "https://push.example.com/x"}'):
        response = await admin.send("/push", on="/push", subscription=subscription)
        assert response.status_code in {400, 422}
    subscription = (
        '{"endpoint": "https://push.example.com/abc", "expirationTime": null, "keys": {"p256dh": "'
        'BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4", '
        '"auth": "BTBZMqHH6r4Tts7J_aSIgg"}}'
    )
    response = await admin.send("/push", on="/push", subscription=subscription, description="My phone")
    assert response.status_code == 303, response.text
    page = await admin.page(response.headers["location"].partition("?")[0])
    assert "My phone" in page
    assert "BTBZMqHH6r4Tts7J_aSIgg" not in page


async def test_the_live_stream_is_the_accounts_own(klingel: Klingel, admin: Browser) -> None:
    cookie = "; ".join(f"{name}={value}" for name, value in admin.http.cookies.items())
    async with klingel.served() as http:
        headers: Mapping[str, str] = {"cookie": cookie, "authorization": ""}
        async with http.stream("GET", "/live", headers=headers) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            async with klingel.another_account() as stranger:
                await stranger.post(
                    "/v1/tasks", json={"type": "kling.multi-image-to-image", "input": IMAGE_INPUT}
                )
            task = await klingel.submit()
            lines: list[str] = []
            async for line in response.aiter_lines():
                lines.append(line)
                if line.startswith("data:"):
                    break
        assert task["id"] in lines[-1]


# Usage


async def test_costs_are_shown_and_an_admin_sets_budgets(klingel: Klingel, admin: Browser) -> None:
    task = await klingel.submit()
    await klingel.call_back(succeed(task, final_unit_deduction="16.5"))
    assert "16.5 units" in await admin.page(f"/tasks/{task['id']}")
    assert "16.5 units" in await admin.page("/usage")
    assert ">kling.multi-image-to-image</td>" in await admin.page("/usage?by=type&month=2026-11")
    assert "Nothing was charged" in await admin.page("/usage?month=2026-10")
    budget: dict[str, Any] = {"account": "", "unit": "units", "period": "month"}
    assert (await admin.send("/usage/budget", on="/usage", limit="10", **budget)).status_code == 303
    assert "spent, until" in await admin.page("/usage")
    wrong = await admin.send("/usage/budget", on="/usage", limit="a lot", **budget)
    assert wrong.status_code == 422
    assert "must be a decimal number" in wrong.text


async def test_a_budget_is_removed_by_its_own_button_alone(klingel: Klingel, admin: Browser) -> None:
    """And not by the form that sets one, left as it was."""
    for period in ("day", "month"):
        set_it = await admin.send("/usage/budget", on="/usage", limit="10", unit="units", period=period)
        assert set_it.status_code == 303
    blank = await admin.send("/usage/budget", on="/usage", account="", limit="", unit="units", period="month")
    assert (blank.status_code, "A budget needs a limit." in blank.text) == (422, True)
    page = await admin.page("/usage")
    assert page.count('action="/usage/budget/remove"') == 2
    [account] = set(re.findall(r'name="account" value="([^"]+)"', page))
    removed = await admin.send(
        "/usage/budget/remove", on="/usage", account=account, unit="units", period="month"
    )
    assert removed.headers["location"] == "/usage?done=removed"
    assert "Removed. There is no such budget any more." in await admin.page("/usage?done=removed")
    [left] = (await klingel.http.get("/v1/budgets")).json()["items"]
    assert left["period"] == "day"


async def test_who_is_no_admin_sees_the_own_budget_and_changes_none(klingel: Klingel) -> None:
    async with signed_in(klingel, account="shop") as (browser, _):
        for account in ("shop", None):
            body = {"limit": "7", **({} if account is None else {"account": account})}
            assert (await klingel.http.put("/v1/budgets", json=body)).status_code == 200
        page = await browser.page("/usage")
        assert page.count(">shop</td>") == 1
        assert page.count("<td>7</td>") == 1
        assert "/usage/budget" not in page
        token = await browser.token("/tasks")
        sent = await browser.http.post(
            "/usage/budget", data={"form_token": token, "unit": "units", "limit": "9"}
        )
        assert sent.status_code == 403
