"""U+0000, which JSON can say and not every database can hold, is nobody's server error."""

import pytest

from tests.integration.klingel import IMAGE_INPUT, Klingel

NUL = "a\0b"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/tasks?status=a%00b",
        "/v1/tasks?type=a%00b",
        "/v1/tasks?external_task_id=a%00b",
        "/v1/tasks?metadata.k=a%00b",
        "/v1/tasks?cursor=a%00b",
        "/v1/tasks/a%00b",
        "/v1/tasks/a%00b/events",
        "/v1/events/a%00b",
        "/v1/events/a%00b/explain",
        "/v1/endpoints/a%00b",
        "/v1/deliveries?endpoint_id=a%00b&event_id=a%00b&task_id=a%00b&status=a%00b",
        "/v1/deliveries/a%00b",
        "/v1/files/a%00b",
        "/kling/v1/images/multi-image2image/a%00b",
    ],
)
async def test_asked_for(klingel: Klingel, path: str) -> None:
    response = await klingel.http.get(path)
    assert response.status_code < 500, response.text


@pytest.mark.parametrize(
    "more",
    [
        {"metadata": {"k": NUL}},
        {"metadata": {NUL: "k"}},
        {"external_task_id": NUL},
        {"input": {**IMAGE_INPUT, "prompt": NUL}},
        {"parent_id": NUL},
    ],
    ids=str,
)
async def test_submitted_and_looked_for(klingel: Klingel, more: dict[str, object]) -> None:
    body = {"type": "kling.multi-image-to-image", "input": IMAGE_INPUT, **more}
    response = await klingel.http.post("/v1/tasks", json=body, headers={"idempotency-key": "k"})
    assert response.status_code < 500, response.text
    found = await klingel.http.get("/v1/tasks", params={"metadata.k": NUL})
    assert found.status_code == 200
    stored = more == {"metadata": {"k": NUL}}
    assert len(found.json()["items"]) == (1 if stored else 0)


async def test_kept_with_what_people_make(klingel: Klingel) -> None:
    endpoint = {
        "config": {"url": klingel.receiver.url},
        "description": NUL,
        "filter": "data.task.metadata.k == 'a\0b'",
    }
    for path, body in (("/v1/endpoints", endpoint), ("/v1/keys", {"name": NUL, "account": NUL})):
        response = await klingel.http.post(path, json=body)
        assert response.status_code < 500, response.text
