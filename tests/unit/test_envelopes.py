"""Whatever Klingel refuses, a client of Kling's is told in a code that Kling has."""

import importlib
import json
import pkgutil

import pytest
from starlette.requests import Request

import handlers
import service
import storage
from service.api.envelopes import CODES, OF_REFUSAL, are_spoken, providers_refusal, refusal
from service.domain.errors import Fault, KlingelError, Unprocessable
from service.domain.kling_shapes import STATUS
from service.domain.tasks import Refusal, TaskError


def everything(root: type[KlingelError]) -> set[type[KlingelError]]:
    return {root}.union(*(everything(kind) for kind in root.__subclasses__()))


for package in (service, handlers, storage):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

KINDS = sorted(
    (kind for kind in everything(KlingelError) - {KlingelError} if not kind.__module__.startswith("tests")),
    key=lambda kind: kind.__qualname__,
)


def asked(path: str = "/kling/v1/images/generations", **headers: str) -> Request:
    named = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": named})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__qualname__)
def test_each_error_has_a_code_of_klings(kind: type[KlingelError]) -> None:
    response = refusal(asked(authorization="Bearer x"), kind("Something.", retry_after_s=3))
    told = json.loads(bytes(response.body))
    assert told["code"] in STATUS
    assert told["message"] == "Something."
    assert response.status_code in {STATUS[told["code"]], 413}
    assert (response.status_code in {429, 503}) == ("retry-after" in response.headers)


def test_the_codes_are_those_that_kling_has() -> None:
    assert {*CODES.values(), *OF_REFUSAL.values()} <= STATUS.keys()
    assert OF_REFUSAL.keys() == {*Refusal, None}


def test_each_fault_is_told_with_its_place() -> None:
    faults = [Fault("Too long.", "#/image_list/0/image"), Fault("Too much of it.", "#")]
    response = refusal(asked(), Unprocessable("The task has faults.", faults=faults))
    assert json.loads(bytes(response.body))["message"] == "image_list/0/image: Too long. Too much of it."


@pytest.mark.parametrize("refused", [*Refusal, None])
@pytest.mark.parametrize("code", ["http_404", "queue_expired", "9999", "", "１２０１"])
def test_a_refusal_without_a_code_of_klings_gets_one(code: str, refused: Refusal | None) -> None:
    response = providers_refusal(TaskError(code, "why", refused))
    told = json.loads(bytes(response.body))
    assert (told["code"], told["message"]) == (OF_REFUSAL[refused], "why")
    assert response.status_code == STATUS[OF_REFUSAL[refused]]


@pytest.mark.parametrize(
    ("path", "spoken"),
    [("/kling/v1/x", True), ("/kling", False), ("/klings/v1", False), ("/v1/kling/", False)],
)
def test_envelopes_are_spoken_below_kling_alone(path: str, spoken: bool) -> None:
    assert are_spoken(asked(path)) is spoken
