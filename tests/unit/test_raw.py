"""`service.domain.raw`: a caller's own path and body, which lead nowhere but to the provider's API."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.faults import InvalidFields, accept
from service.domain.raw import LARGEST_BODY, RawInput, path_at


def faults(raw: dict[str, Any]) -> list[str]:
    try:
        accept(RawInput, raw)
    except InvalidFields as error:
        return [fault.pointer for fault in error.faults]
    return []


@pytest.mark.parametrize(
    "path", ["/v1/videos/text2video", "/text-to-video/kling-3.0-turbo", "/kling/v1/a_b~c", "/x"]
)
def test_a_plain_path_is_taken(path: str) -> None:
    assert faults({"path": path, "body": {}}) == []


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "v1/videos",
        "//evil.example.com/v1",
        "https://evil.example.com/v1",
        "/v1/../account/costs",
        "/v1/./x",
        "/.well-known/x",
        "/v1/%2e%2e/x",
        "/v1/x?y=1",
        "/v1/x#y",
        "/v1/x;y",
        "/v1/x\\y",
        "/v1/x y",
        "/v1/x\n",
        "/v1//x",
        "/v1/x/",
        "/v1/ü",
        "/@evil.example.com",
        "/" + "x" * 200,
    ],
)
def test_what_could_lead_elsewhere_is_not(path: str) -> None:
    assert faults({"path": path, "body": {}}) == ["#/path"]


@given(st.text(max_size=30))
def test_whatever_is_taken_stays_below_the_base_url(path: str) -> None:
    if not faults({"path": path, "body": {}}):
        assert path.startswith("/")
        assert not {"..", ".", ""} & set(path.removeprefix("/").split("/"))
        assert path.isascii()


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("/v1/videos/text2video", "/kling/v1/videos/text2video"),
        ("/kling/v1/videos/text2video", "/kling/v1/videos/text2video"),
        ("/klingon/v1", "/kling/klingon/v1"),
        ("/kling", "/kling"),
    ],
)
def test_at_a_gateway_it_stays_with_kling(path: str, there: str) -> None:
    assert path_at(path, "/kling") == there


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"callback_url": "https://example.com"}, ["#/body/callback_url"]),
        ({"external_task_id": "mine"}, ["#/body/external_task_id"]),
        ({"options": {"callback_url": "https://example.com"}}, ["#/body/options/callback_url"]),
        ({"image": "file:sha256:" + "0" * 64}, ["#/body"]),
        ({"list": [{"image": "file:sha256:" + "0" * 64}]}, ["#/body"]),
        ({"number": float("inf")}, ["#/body"]),
        ({"text": "x" * LARGEST_BODY}, ["#/body"]),
    ],
)
def test_what_is_klingels_or_somebody_elses_is_refused_by_name(
    body: dict[str, Any], pointers: list[str]
) -> None:
    assert faults({"path": "/v1/x", "body": body}) == pointers


def test_a_body_without_a_bottom_is_refused() -> None:
    body: dict[str, Any] = {}
    for _ in range(40):
        body = {"in": body}
    assert faults({"path": "/v1/x", "body": body}) == ["#/body"]
