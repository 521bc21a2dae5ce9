"""`/v1/bots`: how chat bots are made, shown and changed."""

from typing import Any

import httpx
import pytest

from service.domain.bots import BOTS_OF_AN_ACCOUNT
from tests.fakes.mattermost import BOT_TOKEN, CHANNEL
from tests.integration.chat import ALLOWED, bot_body
from tests.integration.klingel import Klingel, pointers

MASK = "••••"
SERVER = "https://chat.example.com"


async def made(klingel: Klingel, **body: Any) -> dict[str, Any]:
    response = await klingel.http.post("/v1/bots", json=bot_body(SERVER, **body))
    assert response.status_code == 201, response.text
    bot: dict[str, Any] = response.json()
    return bot


async def changed(klingel: Klingel, bot: dict[str, Any], **patch: Any) -> httpx.Response:
    return await klingel.http.patch(f"/v1/bots/{bot['id']}", json=patch)


async def test_a_bot_says_where_its_platform_reaches_it(klingel: Klingel) -> None:
    bot = await made(klingel)
    assert bot["url"] == f"https://klingel.example.com/chat/mattermost/{bot['id']}"
    assert (bot["allow"], bot["open_tasks"]) == (ALLOWED, 3)


async def test_secrets_are_taken_and_never_shown_again(klingel: Klingel) -> None:
    bot = await made(klingel)
    secrets = {"command_token": MASK, "webhook_token": MASK, "bot_token": MASK}
    assert bot["config"] == {"server": SERVER, **secrets}
    shown = await klingel.http.get(f"/v1/bots/{bot['id']}")
    listed = await klingel.http.get("/v1/bots")
    assert shown.json() == bot == listed.json()["items"][0]
    stored = str(klingel.rows("select * from bots"))
    assert BOT_TOKEN not in shown.text + listed.text + stored


async def test_every_fault_is_told_at_once(klingel: Klingel) -> None:
    body = {
        "platform": "mattermost",
        "config": {"server": "http://10.0.0.1", "colour": "red"},
        "allow": [{}, {"user": "a b"}, {"nobody": "x"}],
        "open_tasks": 0,
        "name": "x",
    }
    found = pointers(await klingel.http.post("/v1/bots", json=body))
    assert sorted(found) == [
        "#/allow/0",
        "#/allow/1/user",
        "#/allow/2/nobody",
        "#/config/colour",
        "#/config/command_token",
        "#/config/server",
        "#/name",
        "#/open_tasks",
    ]


@pytest.mark.parametrize(
    ("platform", "config", "told"),
    [
        ("telegram", {"token": "bad", "username": "abcd_bot", "server": "ftp://x"}, "server token"),
        ("discord", {"public_key": "0" * 64, "server": "ftp://x"}, "application_id server"),
        (
            "slack",
            {"webhook_url": "ftp://x", "server": "ftp://x"},
            "server signing_secret webhook_url",
        ),
        (
            "feishu",
            {"server": "ftp://x", "encrypt_key": MASK},
            "app_id app_secret encrypt_key server verification_token",
        ),
    ],
)
async def test_its_addresses_are_judged_though_other_fields_are_wrong(
    klingel: Klingel, platform: str, config: dict[str, Any], told: str
) -> None:
    response = await klingel.http.post("/v1/bots", json={"platform": platform, "config": config})
    assert response.status_code == 422
    assert sorted(pointers(response)) == [f"#/config/{name}" for name in told.split()]


@pytest.mark.parametrize("config", [None, [], "x", {}, {"server": 1}])
async def test_a_configuration_that_is_none_is_refused(klingel: Klingel, config: object) -> None:
    response = await klingel.http.post("/v1/bots", json={"platform": "mattermost", "config": config})
    assert response.status_code == 422
    assert all(pointer.startswith("#/config") for pointer in pointers(response))


@pytest.mark.parametrize("platform", ["irc", "", "../x", "ntfy"])
async def test_a_platform_that_is_not_known_is_told_with_those_that_are(
    klingel: Klingel, platform: str
) -> None:
    response = await klingel.http.post("/v1/bots", json={"platform": platform, "config": {}})
    assert pointers(response) == ["#/platform"]
    assert "mattermost" in response.json()["errors"][0]["detail"]


async def test_what_is_not_named_stays(klingel: Klingel) -> None:
    bot = await made(klingel, description="the shop's")
    [stored] = klingel.rows("select credentials from bots")
    assert (await changed(klingel, bot, open_tasks=7)).json() == bot | {"open_tasks": 7}
    assert (await changed(klingel, bot, allow=[])).json()["allow"] == []
    assert (await changed(klingel, bot, description=None)).json()["description"] is None
    assert klingel.rows("select credentials from bots") == [stored]


async def test_a_change_to_null_is_refused_where_nothing_can_be_taken_away(klingel: Klingel) -> None:
    bot = await made(klingel, description="a")
    refused = await changed(klingel, bot, allow=None, open_tasks=None)
    assert (refused.status_code, sorted(pointers(refused))) == (422, ["#/allow", "#/open_tasks"])
    assert (await changed(klingel, bot, description=None)).json()["description"] is None


async def test_a_mask_that_is_sent_back_keeps_the_secret(klingel: Klingel) -> None:
    bot = await made(klingel)
    [before] = klingel.rows("select credentials from bots")
    kept = await changed(klingel, bot, config=bot["config"])
    assert (kept.status_code, kept.json()["config"]) == (200, bot["config"])
    removed = await changed(klingel, bot, config={"webhook_token": None})
    assert "webhook_token" not in removed.json()["config"]
    vault = klingel.state["vault"]
    [after] = klingel.rows("select credentials from bots")
    assert "webhook_token" in vault.open(before["credentials"])
    assert "webhook_token" not in vault.open(after["credentials"])
    assert BOT_TOKEN in vault.open(after["credentials"])


async def test_a_mask_for_a_secret_that_is_not_there_is_refused(klingel: Klingel) -> None:
    config = {"bot_token": MASK}
    assert pointers(await klingel.http.post("/v1/bots", json=bot_body(SERVER, config=config))) == [
        "#/config/bot_token"
    ]


async def test_a_secret_goes_to_no_other_server_than_it_was_given_for(klingel: Klingel) -> None:
    """Else whoever may change a bot, but not read it, would have it tell its token to a server of theirs."""
    bot = await made(klingel)
    moved = await changed(klingel, bot, config={"server": "https://evil.example.com"})
    assert moved.status_code == 422
    assert "#/config/bot_token" in pointers(moved)
    given = bot_body("https://other.example.com")["config"]
    assert (await changed(klingel, bot, config=given)).status_code == 200


async def test_of_two_changes_at_once_neither_takes_the_other_back(klingel: Klingel) -> None:
    """Somebody is locked out, and somebody else corrects the description: nobody is let in again."""
    bot = await made(klingel)
    answers = await klingel.edit_at_once(
        changed(klingel, bot, allow=[]), changed(klingel, bot, description="new")
    )
    assert [answer.status_code for answer in answers] == [200, 200]
    shown = (await klingel.http.get(f"/v1/bots/{bot['id']}")).json()
    assert (shown["allow"], shown["description"]) == ([], "new")
    configs = ({"bot_token": "b" * 26}, {"webhook_token": None})
    answers = await klingel.edit_at_once(*(changed(klingel, bot, config=config) for config in configs))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    [refused] = [answer for answer in answers if answer.status_code == 409]
    assert refused.json()["type"] == "/problems/changed-meanwhile"


async def test_a_bot_that_was_deleted_is_nowhere(klingel: Klingel) -> None:
    bot = await made(klingel)
    assert (await klingel.http.delete(f"/v1/bots/{bot['id']}")).status_code == 204
    for method in ("GET", "PATCH", "DELETE"):
        assert (await klingel.http.request(method, f"/v1/bots/{bot['id']}", json={})).status_code == 404
    assert (await klingel.http.get("/v1/bots")).json()["items"] == []


async def test_bots_are_listed_newest_first_in_pages(klingel: Klingel) -> None:
    bots = [await made(klingel, description=str(number)) for number in range(3)]
    first = (await klingel.http.get("/v1/bots", params={"limit": "2"})).json()
    assert [bot["id"] for bot in first["items"]] == [bots[2]["id"], bots[1]["id"]]
    rest = await klingel.http.get("/v1/bots", params={"limit": "2", "cursor": first["next_cursor"]})
    assert rest.json() == {"items": [bots[0]], "next_cursor": None}


async def test_an_account_has_so_many_bots_and_deleted_ones_do_not_count(klingel: Klingel) -> None:
    first, *_ = [await made(klingel) for _ in range(BOTS_OF_AN_ACCOUNT)]
    refusal = await klingel.http.post("/v1/bots", json=bot_body(SERVER))
    assert (refusal.status_code, refusal.json()["type"]) == (409, "/problems/too-many-bots")
    assert refusal.json()["limit"] == BOTS_OF_AN_ACCOUNT
    async with klingel.another_account() as other:
        assert (await other.post("/v1/bots", json=bot_body(SERVER))).status_code == 201
    assert (await klingel.http.delete(f"/v1/bots/{first['id']}")).status_code == 204
    await made(klingel)


async def test_without_a_key_there_is_nothing(klingel: Klingel) -> None:
    bot = await made(klingel)
    async with klingel.client(None) as nobody:
        for method, path in (("POST", "/v1/bots"), ("GET", "/v1/bots"), ("GET", f"/v1/bots/{bot['id']}")):
            assert (await nobody.request(method, path)).status_code == 401


async def test_two_changes_at_once_both_count(klingel: Klingel) -> None:
    bot = await made(klingel)
    first = await changed(klingel, bot, open_tasks=9)
    second = await changed(klingel, bot, allow=[{"chat": CHANNEL, "user": "u"}])
    assert first.status_code == second.status_code == 200
    shown = (await klingel.http.get(f"/v1/bots/{bot['id']}")).json()
    assert (shown["open_tasks"], shown["allow"]) == (9, [{"chat": CHANNEL, "user": "u"}])
