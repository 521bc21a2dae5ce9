"""The sandbox inside Klingel: who may use it, and whom it calls."""

from pathlib import Path

import pytest

from tests.integration.klingel import IMAGE_INPUT, running_klingel

CREATE = "/sandbox/kling/v1/images/generations"
STRANGER = {"authorization": "Bearer anything"}


@pytest.mark.parametrize(
    "settings",
    [{"public_url": "https://klingel.example.com"}, {"public_url": None, "KLINGEL_HOST": "0.0.0.0"}],
    ids=["behind a proxy", "on every address"],
)
async def test_where_others_can_connect_the_sandbox_takes_klingels_key_alone(
    tmp_path: Path, settings: dict[str, str | None]
) -> None:
    async with running_klingel(tmp_path, provider="sandbox", **settings) as klingel:
        for method, path in (
            ("POST", CREATE),
            ("GET", CREATE),
            ("GET", "/sandbox/log"),
            ("PUT", "/sandbox/settings"),
        ):
            response = await klingel.http.request(method, path, json=IMAGE_INPUT, headers=STRANGER)
            assert (response.status_code, response.json()["code"]) == (401, 1002)
        await klingel.submit_async()
        await klingel.kling.until(1)
        key = klingel.kling.requests[0].headers["authorization"]
        body = {**IMAGE_INPUT, "callback_url": klingel.kling.creates[0]["callback_url"]}
        response = await klingel.http.post(CREATE, json=body, headers={"authorization": key})
        assert response.status_code == 200, response.text


async def test_on_this_machine_any_key_will_do(tmp_path: Path) -> None:
    async with running_klingel(tmp_path, provider="sandbox", public_url=None) as klingel:
        response = await klingel.http.post(CREATE, json=IMAGE_INPUT, headers=STRANGER)
        assert response.status_code == 200


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/",
        "http://127.0.0.1:8001/callbacks/x",
        "http://169.254.169.254/",
        "http://example.com/",
    ],
)
async def test_it_calls_back_to_klingel_and_to_nobody_else(tmp_path: Path, url: str) -> None:
    async with running_klingel(tmp_path, provider="sandbox", public_url=None) as klingel:
        response = await klingel.http.post(
            CREATE, json={**IMAGE_INPUT, "callback_url": url}, headers=STRANGER
        )
        assert (response.status_code, response.json()["code"]) == (400, 1201)
        assert "http://127.0.0.1:8000" in response.json()["message"]
        own = await klingel.http.post(
            CREATE,
            json={**IMAGE_INPUT, "callback_url": "http://127.0.0.1:8000/callbacks/x"},
            headers=STRANGER,
        )
        assert own.status_code == 200
