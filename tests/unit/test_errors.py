"""Every error that Klingel raises on purpose has one code and one status."""

import importlib
import pkgutil
import re
from collections import Counter

import pytest

import handlers
import service
import storage
from service.api.problems import problem_of
from service.domain import errors
from service.domain.errors import KlingelError
from service.doors.statuses import STATUS


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
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__qualname__)


@every_kind
def test_each_error_has_a_status(kind: type[KlingelError]) -> None:
    status = problem_of(kind("Something.", retry_after_s=3)).status_code
    assert status == next(STATUS[parent] for parent in kind.__mro__ if parent in STATUS)
    assert 400 <= status <= 599


@every_kind
def test_each_error_becomes_a_problem_under_its_code(kind: type[KlingelError]) -> None:
    response = problem_of(kind("Something.", retry_after_s=3))
    assert response.media_type == "application/problem+json"
    assert f'"type":"/problems/{kind.code}"' in bytes(response.body).decode()
    assert '"retry_after_s":3' in bytes(response.body).decode()


def test_no_two_errors_share_a_code() -> None:
    own = [kind for kind in KINDS if "code" in vars(kind)]
    assert [code for code, number in Counter(kind.code for kind in own).items() if number > 1] == []
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.code) for kind in own)


def test_each_error_of_the_domain_has_its_own_code_and_stands_in_the_tree() -> None:
    assert errors.__doc__ is not None
    drawn = set(re.findall(r"(?:^|── )([A-Z]\w+)", errors.__doc__, re.MULTILINE))
    here = {kind for kind in KINDS if kind.__module__ == errors.__name__}
    assert {kind.__name__ for kind in here} | {"KlingelError", "ConfigurationError"} == drawn - {"Every"}
    assert all("code" in vars(kind) for kind in here)


def test_an_operators_mistake_is_never_told_to_a_client() -> None:
    assert not issubclass(errors.ConfigurationError, KlingelError)
