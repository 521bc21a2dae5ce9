"""How endpoints for brokers are configured: what is refused, what is shown, what a change keeps."""

import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from handlers.sinks.brokers import NO_TASK, Brokers, filled, open_brokers
from handlers.sinks.credentials import MASK
from service.domain.faults import InvalidFields
from service.domain.secrets import Vault
from service.network.dialler import Guard
from tests.contract.broker_parties import SINKS, VAULT, an_endpoint

PLAIN = {
    "nats": {"url": "nats://broker.example"},
    "mqtt": {"url": "mqtt://broker.example"},
    "redis": {"url": "redis://broker.example"},
    "amqp": {"url": "amqp://broker.example"},
}
NAME = {"nats": "subject", "mqtt": "topic", "redis": "stream", "amqp": "routing_key"}

kinds = pytest.mark.parametrize("kind", PLAIN)


@pytest.fixture
async def brokers(anyio_backend: str) -> AsyncIterator[Brokers]:
    async with open_brokers(Guard()) as opened:
        yield opened


def faults(brokers: Brokers, kind: str, config: object) -> dict[str, str]:
    with pytest.raises(InvalidFields) as caught:
        SINKS[kind](brokers, VAULT).configure(config, pointer="#/config")
    return {str(fault.pointer): fault.detail for fault in caught.value.faults}


@kinds
async def test_an_address_is_enough(kind: str, brokers: Brokers) -> None:
    public, credentials = SINKS[kind](brokers, VAULT).configure(PLAIN[kind], pointer="#/config")
    assert public["url"] == PLAIN[kind]["url"]
    assert public[NAME[kind]].startswith("klingel")
    assert credentials is None


@kinds
async def test_without_its_library_a_kind_says_what_to_install(
    kind: str, brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, SINKS[kind].library, None)
    [told] = faults(brokers, kind, PLAIN[kind]).values()
    assert f"pip install 'klingel[{kind}]'" in told


@kinds
@pytest.mark.parametrize(
    "url",
    [
        "http://broker.example", "broker.example", "", "{scheme}://", "{scheme}://127.0.0.1", "{scheme}://[::1]:99",
        "{scheme}://0x7f.1", "{scheme}://10.1.2.3:99", "{scheme}://broker.example:0", "{scheme}://broker.example:99999",
        "{scheme}://user:password@broker.example", "{scheme}://user@broker.example", "{scheme}://broker.example?tls=no",
        "{scheme}://broker.example:٨٠", "{scheme}://broker.example:000080", "{scheme}://[2606:4700::1111%eth0]",
        "{scheme}://broker.example#x", "{scheme}://a b", "{scheme}://one.example,two.example", "unix:///run/it",
    ],
)  # fmt: skip
async def test_a_url_that_cannot_be_used_is_refused(kind: str, url: str, brokers: Brokers) -> None:
    scheme = PLAIN[kind]["url"].partition(":")[0]
    told = faults(brokers, kind, {"url": url.format(scheme=scheme)})
    assert list(told) == ["#/config/url"]
    assert told["#/config/url"].startswith("The URL cannot be used: ")


@pytest.mark.parametrize(
    "url",
    [
        "nats://broker.example/x",
        "mqtt://broker.example/x",
        "redis://broker.example/x",
        "redis://b.example/-1",
    ],
)
async def test_a_path_that_means_nothing_is_refused(url: str, brokers: Brokers) -> None:
    kind = url.partition(":")[0]
    assert list(faults(brokers, kind, {"url": url})) == ["#/config/url"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("nats", "klingel.*"), ("nats", "klingel.>"), ("nats", "a..b"), ("nats", ".a"), ("nats", "a."),
        ("nats", "a b"), ("nats", "$JS.API.STREAM.DELETE.x"), ("nats", "{type}."), ("nats", "a\r\nPUB b"),
        ("mqtt", "klingel/#"), ("mqtt", "klingel/+"), ("mqtt", "$SYS/x"), ("mqtt", ""), ("mqtt", "a\x00b"),
        ("redis", ""), ("redis", "a\nb"), ("amqp", "a\nb"), ("amqp", "ä" * 64),
        ("nats", "{account}"), ("mqtt", "{type"), ("redis", "}{"), ("amqp", "{}"), ("amqp", "{type.__class__}"),
        ("nats", 7), ("mqtt", "x" * 256),
    ],
)  # fmt: skip
async def test_a_name_that_the_broker_would_not_take_is_refused(
    kind: str, name: object, brokers: Brokers
) -> None:
    assert list(faults(brokers, kind, PLAIN[kind] | {NAME[kind]: name})) == [f"#/config/{NAME[kind]}"]


async def test_an_unknown_placeholder_is_told_with_the_known(brokers: Brokers) -> None:
    told = faults(brokers, "nats", PLAIN["nats"] | {"subject": "klingel.{account}"})
    assert told == {"#/config/subject": "There is no {account}. There are: {type}, {task_id}."}


async def test_all_that_is_wrong_with_a_name_is_told_at_once(brokers: Brokers) -> None:
    told = faults(brokers, "redis", PLAIN["redis"] | {"stream": "{account}.{a}.{type}.{a}.{"})
    assert told == {
        "#/config/stream": "There is no {account}, {a}. There are: {type}, {task_id}. A brace stands alone."
    }


@pytest.mark.parametrize(
    ("kind", "credentials", "where"),
    [
        ("nats", {"username": "a"}, "password"),
        ("nats", {"password": "a"}, "username"),
        ("nats", {"username": "a", "password": "b", "token": "c"}, "token"),
        ("redis", {"username": "a"}, "password"),
        ("amqp", {"username": "a"}, "password"),
        ("amqp", {"password": MASK, "username": "a"}, "password"),
        ("mqtt", {"password": ""}, "password"),
    ],
)
async def test_half_of_a_credential_is_refused(
    kind: str, credentials: dict[str, str], where: str, brokers: Brokers
) -> None:
    assert list(faults(brokers, kind, PLAIN[kind] | credentials)) == [f"#/config/{where}"]


@kinds
async def test_all_faults_are_told_at_once(kind: str, brokers: Brokers) -> None:
    config = {"url": "ftp://x", NAME[kind]: "{nothing}", "surprise": 1, "username": "me", "password": 5}
    told = faults(brokers, kind, config)
    assert set(told) == {f"#/config/{name}" for name in ("url", NAME[kind], "surprise", "password")}


@pytest.mark.parametrize(
    ("kind", "config", "where"),
    [
        ("nats", {"url": "nats://broker.example/x", "password": "a"}, {"url", "username"}),
        ("nats", {"url": "nats://broker.example", "subject": "a b", "token": "a", "username": "b"},
         {"subject", "token", "password"}),
        ("mqtt", {"url": "mqtt://broker.example/x", "topic": "#"}, {"url", "topic"}),
        ("redis", {"url": "redis://broker.example/x", "username": "a"}, {"url", "password"}),
        ("amqp", {"url": "amqp://broker.example", "username": "a", "exchange": "ä" * 64}, {"password", "exchange"}),
    ],
)  # fmt: skip
async def test_a_fault_of_a_field_hides_none_of_several_fields(
    kind: str, config: dict[str, str], where: set[str], brokers: Brokers
) -> None:
    assert set(faults(brokers, kind, config)) == {f"#/config/{name}" for name in where}
    told = faults(brokers, kind, config | {"surprise": 1})
    assert set(told) == {f"#/config/{name}" for name in where | {"surprise"}}


@pytest.mark.parametrize(
    ("kind", "name"), [("redis", "password"), ("nats", "password"), ("amqp", "username")]
)
async def test_half_of_a_credential_that_is_refused_is_not_missed(
    kind: str, name: str, brokers: Brokers
) -> None:
    pair = {"username": "me", "password": "hush"} | {name: 5}
    assert list(faults(brokers, kind, PLAIN[kind] | pair)) == [f"#/config/{name}"]


@kinds
async def test_what_is_secret_is_masked_and_kept_by_a_change(kind: str, brokers: Brokers) -> None:
    sink = SINKS[kind](brokers, VAULT)
    full: dict[str, Any] = PLAIN[kind] | {"username": "me", "password": "hush hush"}
    endpoint = an_endpoint(sink, kind, full)
    assert endpoint.config["password"] == MASK
    assert "hush" not in repr(endpoint)

    def changed(change: dict[str, Any]) -> tuple[Any, Any]:
        public, sealed = sink.configure(change, pointer="#/config", before=endpoint)
        return public, None if sealed is None else Vault.open(VAULT, sealed)

    kept = '{"password":"hush hush"}'
    assert changed({}) == (endpoint.config, kept)
    assert changed(dict(endpoint.config)) == (endpoint.config, kept)
    assert changed({NAME[kind]: "other"}) == (dict(endpoint.config) | {NAME[kind]: "other"}, kept)
    assert changed({"password": "new"})[1] == '{"password":"new"}'
    without, sealed = changed({"username": None, "password": None})
    assert (without.keys() & {"username", "password"}, sealed) == (set(), None)


@kinds
async def test_a_stored_password_is_not_sent_to_another_broker(kind: str, brokers: Brokers) -> None:
    sink = SINKS[kind](brokers, VAULT)
    full: dict[str, Any] = PLAIN[kind] | {"username": "me", "password": "hush hush"}
    endpoint = an_endpoint(sink, kind, full)
    scheme = PLAIN[kind]["url"].partition(":")[0]
    for url in (f"{scheme}://evil.example", f"{scheme}://broker.example:4567"):
        for change in ({"url": url}, {**endpoint.config, "url": url}):
            with pytest.raises(InvalidFields) as caught:
                sink.configure(change, pointer="#/config", before=endpoint)
            assert [fault.pointer for fault in caught.value.faults] == ["#/config/password"]
        public, sealed = sink.configure(
            {"url": url, "password": "another"}, pointer="#/config", before=endpoint
        )
        assert (public["url"], Vault.open(VAULT, str(sealed))) == (url, '{"password":"another"}')
        public, sealed = sink.configure(
            {"url": url, "username": None, "password": None}, pointer="#/config", before=endpoint
        )
        assert (public["url"], sealed) == (url, None)


def test_no_character_of_an_event_means_anything_to_a_broker() -> None:
    assert filled("a.{type}/{task_id}", type="task.*", task_id="#> \r\n{type}") == "a.task._/______type_"
    assert filled("{task_id}", type="t", task_id=None) == NO_TASK
