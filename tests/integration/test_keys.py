"""API keys: who may do what, and that a key is nowhere to be read."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import ROUTES, Hooks
from service.domain.errors import ConfigurationError
from tests.integration.klingel import ADMIN_KEY, IMAGE_INPUT, Klingel, pointers, running_klingel

Call = tuple[str, str]  # method, path

V1 = [
    (method, route.path)
    for route in ROUTES
    if route.path.startswith("/v1/")
    for method in sorted(route.methods - {"HEAD"})
]
BODY: dict[str, Any] = {"type": "kling.multi-image-to-image", "input": IMAGE_INPUT}


async def new_key(klingel: Klingel, **body: Any) -> dict[str, Any]:
    response = await klingel.http.post("/v1/keys", json={"name": "a test", **body})
    assert response.status_code == 201, response.text
    key: dict[str, Any] = response.json()
    return key


# Without one


NO_KEY = [
    None,
    "",
    "Bearer",
    "Bearer ",
    "Bearer an-admin-key-for-test",
    f"Bearer {ADMIN_KEY} {ADMIN_KEY}",
    f"Basic {ADMIN_KEY}",
    ADMIN_KEY,
    "Bearer \xfc",
]


async def test_no_route_is_open_to_who_has_no_key(klingel: Klingel) -> None:
    """Promise 6. The routes are the app's own list: a new one cannot be forgotten here."""
    assert len(V1) > 20
    async with klingel.client(None) as nobody:
        for number, (method, path) in enumerate(V1):
            authorization = NO_KEY[number % len(NO_KEY)]
            headers = [] if authorization is None else [(b"authorization", authorization.encode("latin-1"))]
            response = await nobody.request(method, path.replace("{id}", "task_0"), headers=headers)
            where = f"{method} {path} {authorization}"
            assert response.status_code == 401, where
            assert response.headers["www-authenticate"] == 'Bearer realm="klingel"', where
            assert response.headers["content-type"] == "application/problem+json", where
            assert response.json()["type"] == "/problems/unauthenticated", where
            assert ADMIN_KEY not in response.text
    assert klingel.kling.requests == []


async def test_health_needs_no_key(klingel: Klingel) -> None:
    """Machines that look after this one have none; they are told nothing of any account."""
    async with klingel.client(None) as nobody:
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await nobody.get(path)).status_code == 200


async def test_a_key_is_taken_however_its_scheme_is_written(klingel: Klingel) -> None:
    """RFC 9110, 11.1: schemes are case-insensitive."""
    async with klingel.client(None) as client:
        response = await client.get("/v1/tasks", headers={"authorization": f"bearer  {ADMIN_KEY} "})
    assert response.status_code == 200


# Making and revoking


async def test_a_new_key_is_shown_once_and_works_at_once(klingel: Klingel) -> None:
    """The answer to its create holds it; after that there is only a hint to tell it by."""
    key = await new_key(klingel, name="the shop")
    secret = key.pop("key")
    assert key == {
        "id": key["id"],
        "name": "the shop",
        "account": "default",
        "role": "member",
        "hint": secret[-4:],
        "created_at": "2026-11-22T12:00:00.000Z",
        "revoked_at": None,
    }
    listed = await klingel.http.get("/v1/keys")
    assert listed.json()["items"][0] == key
    assert secret not in listed.text
    async with klingel.client(secret) as client:
        assert (await client.post("/v1/tasks", json=BODY)).status_code == 201


async def test_keys_are_kept_as_hashes(klingel: Klingel) -> None:
    """Promise 6: who reads the file has no key from it."""
    key = await new_key(klingel)
    await klingel.submit()
    stored = b"".join(path.read_bytes() for path in klingel.folder.glob("klingel.db*"))
    for secret in (key["key"], ADMIN_KEY):
        assert secret.encode() not in stored
    assert {len(row["hash"]) for row in klingel.rows("select hash from api_keys")} == {64}


async def test_a_revoked_key_is_refused_at_once(klingel: Klingel) -> None:
    """The next request with it."""
    key = await new_key(klingel)
    async with klingel.client(key["key"]) as client:
        assert (await client.get("/v1/tasks")).status_code == 200
        for _ in range(2):  # what is revoked already stays so
            assert (await klingel.http.delete(f"/v1/keys/{key['id']}")).status_code == 204
        response = await client.get("/v1/tasks")
    assert (response.status_code, response.json()["type"]) == (401, "/problems/unauthenticated")
    [shown] = [one for one in (await klingel.http.get("/v1/keys")).json()["items"] if one["id"] == key["id"]]
    assert shown["revoked_at"] == "2026-11-22T12:00:00.000Z"


async def test_a_key_does_not_revoke_itself_and_none_that_is_not_there(klingel: Klingel) -> None:
    """Nobody locks the door behind the last key."""
    [own] = (await klingel.http.get("/v1/keys")).json()["items"]
    assert (await klingel.http.delete(f"/v1/keys/{own['id']}")).status_code == 409
    assert (await klingel.http.delete("/v1/keys/key_0")).status_code == 404


async def test_an_admin_of_any_account_can_make_and_revoke_keys(klingel: Klingel) -> None:
    """Admins look after the installation; their account is where their own tasks are."""
    admin = await new_key(klingel, account="second", role="admin")
    async with klingel.client(admin["key"]) as client:
        made = await client.post("/v1/keys", json={"name": "theirs"})
        assert (made.status_code, made.json()["account"]) == (201, "second")
        assert (await client.delete(f"/v1/keys/{made.json()['id']}")).status_code == 204


async def test_a_member_manages_no_keys(klingel: Klingel) -> None:
    """403 on each route of keys, and of the installation; the rest is open to members."""
    member = await new_key(klingel)
    of_admins = ("/v1/keys", "/v1/prune", "/v1/probe")
    admins_only = [call for call in V1 if call[1].startswith(of_admins) or call == ("PUT", "/v1/budgets")]
    assert len(admins_only) >= 4
    async with klingel.client(member["key"]) as client:
        for method, path in admins_only:
            response = await client.request(method, path.replace("{id}", member["id"]), json={"name": "mine"})
            assert (response.status_code, response.json()["type"]) == (403, "/problems/forbidden"), path
        for method, path in V1:
            if (method, path) not in admins_only:
                response = await client.request(method, path.replace("{id}", "task_0"))
                assert response.status_code != 403, path
    assert len(klingel.rows("select * from api_keys")) == 2


async def test_a_key_with_faults_is_not_made(klingel: Klingel) -> None:
    for body, pointer in (
        ({}, "#/name"),
        ({"name": " "}, "#/name"),
        ({"name": "a", "account": "No Such"}, "#/account"),
        ({"name": "a", "role": "owner"}, "#/role"),
        ({"name": "a", "key": "mine"}, "#/key"),
    ):
        response = await klingel.http.post("/v1/keys", json=body)
        assert (response.status_code, pointers(response)) == (422, [pointer]), body


# The first key


async def test_without_a_key_in_the_settings_one_is_made_and_told_until_it_is_used(tmp_path: Path) -> None:
    """Whatever happens between its making and somebody's reading it: a crash, a port that is taken, a lost log."""
    told: list[str] = []
    for start in range(3):
        hooks = Hooks(on_first_key=told.append)
        async with running_klingel(tmp_path, hooks=hooks, api_key=None) as klingel:
            assert len(told) == start + 1
            assert len(set(told)) == 1
            assert len(klingel.rows("select * from api_keys")) == 1
            stored = b"".join(path.read_bytes() for path in klingel.folder.glob("klingel.db*"))
            assert told[0].encode() not in stored
            if start == 2:
                async with klingel.client(told[0]) as client:
                    assert (await client.get("/v1/keys")).status_code == 200
                assert klingel.rows("select sealed from api_keys") == [{"sealed": None}]
    async with running_klingel(tmp_path, hooks=Hooks(on_first_key=told.append), api_key=None):
        assert len(told) == 3


async def test_a_first_key_that_nobody_can_be_told_any_more_is_replaced(tmp_path: Path) -> None:
    """Its secret changed before anybody used it."""
    told: list[str] = []
    async with running_klingel(tmp_path, hooks=Hooks(on_first_key=told.append), api_key=None):
        pass
    async with running_klingel(
        tmp_path, hooks=Hooks(on_first_key=told.append), api_key=None, secret="another-secret-0123456789"
    ) as klingel:
        for key, status in zip(told, (401, 200), strict=True):
            async with klingel.client(key) as client:
                assert (await client.get("/v1/keys")).status_code == status


async def test_a_first_key_ends_with_a_key_in_the_settings_unless_somebody_uses_it(tmp_path: Path) -> None:
    """It may stand in a log that others read; but who relies on it is not locked out."""
    for used in (True, False):
        told: list[str] = []
        folder = tmp_path / str(used)
        async with running_klingel(folder, hooks=Hooks(on_first_key=told.append), api_key=None) as klingel:
            if used:
                async with klingel.client(told[0]) as client:
                    assert (await client.get("/v1/keys")).status_code == 200
        async with running_klingel(folder) as klingel, klingel.client(told[0]) as client:
            assert (await client.get("/v1/keys")).status_code == (200 if used else 401)


@pytest.mark.sqlite_alone
async def test_the_first_key_is_let_in_though_its_use_cannot_be_recorded(tmp_path: Path) -> None:
    """It is told once more then; better than to turn its holder away."""
    told: list[str] = []
    hooks = Hooks(on_first_key=told.append)
    async with running_klingel(tmp_path, hooks=hooks, api_key=None) as klingel:
        await klingel.tamper("pragma query_only = on")
        async with klingel.client(told[0]) as client:
            assert (await client.get("/v1/keys")).status_code == 200
        await klingel.tamper("pragma query_only = off")
    async with running_klingel(tmp_path, hooks=hooks, api_key=None):
        assert told == [told[0]] * 2


async def test_the_key_of_the_settings_works_again_after_it_was_revoked(tmp_path: Path) -> None:
    """The way back in for who has lost or revoked every other key; keys made meanwhile stay good."""
    async with running_klingel(tmp_path) as klingel:
        [own] = (await klingel.http.get("/v1/keys")).json()["items"]
        other = await new_key(klingel, role="admin")
        async with klingel.client(other["key"]) as client:
            assert (await client.delete(f"/v1/keys/{own['id']}")).status_code == 204
        assert (await klingel.http.get("/v1/keys")).status_code == 401
    async with running_klingel(tmp_path) as klingel:
        assert (await klingel.http.get("/v1/keys")).status_code == 200
        async with klingel.client(other["key"]) as client:
            assert (await client.get("/v1/keys")).status_code == 200


async def test_a_key_that_the_settings_named_ends_when_they_name_another(tmp_path: Path) -> None:
    """Whoever replaces a key that leaked means it; keys made on `/v1/keys` are nobody's but theirs."""
    async with running_klingel(tmp_path) as klingel:
        made = await new_key(klingel, role="admin")
    for api_key, expected in (
        ("another-admin-key-0123", {ADMIN_KEY: 401, made["key"]: 200, "another-admin-key-0123": 200}),
        (
            None,
            {ADMIN_KEY: 401, made["key"]: 200, "another-admin-key-0123": 200},
        ),  # names none: nothing replaces it
        (ADMIN_KEY, {ADMIN_KEY: 200, made["key"]: 200, "another-admin-key-0123": 401}),
        (made["key"], {ADMIN_KEY: 401, made["key"]: 200}),
        (ADMIN_KEY, {ADMIN_KEY: 200, made["key"]: 401}),  # it had become the settings' own
    ):
        async with running_klingel(tmp_path, api_key=api_key) as klingel:
            for key, status in expected.items():
                async with klingel.client(key) as client:
                    assert (await client.get("/v1/keys")).status_code == status, (api_key, key)


async def test_a_member_s_key_in_the_settings_is_refused_at_start(tmp_path: Path) -> None:
    """It would be called an admin's and be none."""
    async with running_klingel(tmp_path) as klingel:
        member = await new_key(klingel)
    with pytest.raises(ConfigurationError, match=member["id"]):
        async with running_klingel(tmp_path, api_key=member["key"]):
            pass


# Who guesses


async def test_who_guesses_keys_is_told_to_wait_and_nobody_else_is(klingel: Klingel) -> None:
    """A right key works however noisy its address is, also one that nobody has used since the start."""

    async def guess(client: httpx.AsyncClient) -> httpx.Response:
        return await client.get("/v1/tasks")

    async with klingel.client("wrong") as guesser:
        answers = [await guess(guesser) for _ in range(101)]
    assert {answer.status_code for answer in answers[:100]} == {401}
    assert answers[100].status_code == 429
    assert int(answers[100].headers["retry-after"]) >= 1
    assert (await klingel.http.get("/v1/tasks")).status_code == 200
