"""`service.domain.signatures` against the official library, and against vectors of others."""

import base64
import string
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook

from service.domain.secrets import new_endpoint_secret
from service.domain.signatures import (
    TOLERANCE,
    InvalidSecret,
    check_secret,
    public_key,
    sign,
    sign_publicly,
    verifies,
)
from service.domain.times import utc_now

SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
OTHER = "whsec_a2xpbmctd2ViaG9vay1kZW1vLWtleS0wMTIzNDU2Nzg5"


@dataclass(frozen=True)
class Vector:
    """Kling, "Callback protocol": its published sample, and one made for the legacy body."""

    secret: str
    id: str
    timestamp: int
    body: bytes
    signature: str

    @property
    def headers(self) -> dict[str, str]:
        return {
            "webhook-id": self.id,
            "webhook-timestamp": str(self.timestamp),
            "webhook-signature": self.signature,
        }

    @property
    def sent_at(self) -> datetime:
        return datetime.fromtimestamp(self.timestamp, UTC)

    def verifies(
        self, headers: Mapping[str, str] | None = None, body: bytes | None = None, now: datetime | None = None
    ) -> bool:
        return verifies(
            self.headers if headers is None else {**self.headers, **headers},
            self.body if body is None else body,
            secrets=[self.secret],
            now=now or self.sent_at,
        )


VECTORS = [
    Vector(
        secret=SECRET,
        id="9876543210",
        timestamp=1781080794,
        body=b'{"id":"1234567890","status":"succeeded","message":"","create_time":1781080778802,'
        b'"update_time":1781080794151}',
        signature="v1,UsKlJP00XoQyOn410NM9xv34sP+Gl0jnOO9Lcpr7NJ4=",
    ),
    Vector(
        secret=OTHER,
        id="msg-1",
        timestamp=1790000060,
        body=b'{"task_id":"t-1001","task_status":"succeed","task_status_msg":"","created_at":1790000000000,'
        b'"updated_at":1790000060000,"task_result":{"images":[{"index":0,"url":"https://cdn.example.com/a.png"}]}}',
        signature="v1,RgR9tNuaShIF6+mBqJ+tJ2c6KIUEf5kD+Vq5XtE134M=",
    ),
]
both_vectors = pytest.mark.parametrize("vector", VECTORS, ids=["kling's sample", "legacy body"])


@pytest.mark.parametrize("body", [b"{}", b"", '{"prompt":"Zürich \U0001f431"}'.encode(), b'{"a":"\\u0000"}'])
def test_the_official_library_accepts_what_we_sign(body: bytes) -> None:
    """In real time, for the library knows no other."""
    secret, now = new_endpoint_secret(), utc_now()
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": sign(body, message_id="evt_1", sent_at=now, secrets=[secret]),
    }
    Webhook(secret).verify(body, headers, json_parse=False)


@pytest.mark.parametrize("position", [0, 1])
def test_while_a_rotation_runs_the_official_library_accepts_either_secret(position: int) -> None:
    secrets, now = [new_endpoint_secret(), new_endpoint_secret()], utc_now()
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": sign(b"{}", message_id="evt_1", sent_at=now, secrets=secrets),
    }
    assert len(headers["webhook-signature"].split()) == 2
    assert Webhook(secrets[position]).verify(b"{}", headers) == {}


def test_a_moment_is_signed_in_utc_wherever_it_was_read() -> None:
    at = datetime(2026, 11, 22, 12, 0, 0, 999_999, tzinfo=UTC)
    elsewhere = at.astimezone().replace(microsecond=0)
    assert sign(b"x", message_id="m", sent_at=at, secrets=[SECRET]) == sign(
        b"x", message_id="m", sent_at=elsewhere, secrets=[SECRET]
    )


@both_vectors
def test_signing_a_vectors_body_makes_its_signature(vector: Vector) -> None:
    made = sign(vector.body, message_id=vector.id, sent_at=vector.sent_at, secrets=[vector.secret])
    assert made == vector.signature


@both_vectors
@pytest.mark.parametrize("sign_of_time", [-1, 1])
def test_a_vector_verifies_within_five_minutes_of_its_moment_and_not_beyond(
    vector: Vector, sign_of_time: int
) -> None:
    assert vector.verifies(now=vector.sent_at + sign_of_time * TOLERANCE)
    assert not vector.verifies(now=vector.sent_at + sign_of_time * (TOLERANCE + timedelta(seconds=1)))


@both_vectors
def test_no_byte_of_the_body_can_be_changed(vector: Vector) -> None:
    for place in range(len(vector.body)):
        for bit in (1, 0x80):
            changed = bytearray(vector.body)
            changed[place] ^= bit
            assert not vector.verifies(body=bytes(changed))
    assert not vector.verifies(body=vector.body[:-1])
    assert not vector.verifies(body=vector.body + b"\n")


@both_vectors
@pytest.mark.parametrize("header", ["webhook-id", "webhook-signature"])
def test_no_character_of_id_or_signature_can_be_changed(vector: Vector, header: str) -> None:
    value = vector.headers[header]
    for place, character in enumerate(value):
        for other in string.ascii_letters + string.digits + "+/=,.":
            if other != character:
                changed = value[:place] + other + value[place + 1 :]
                assert not vector.verifies({header: changed}), changed


@both_vectors
@pytest.mark.parametrize("header", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_no_header_can_be_missing_or_empty(vector: Vector, header: str) -> None:
    others = {name: value for name, value in vector.headers.items() if name != header}
    assert not verifies(others, vector.body, secrets=[vector.secret], now=vector.sent_at)
    assert not vector.verifies({header: ""})


@both_vectors
def test_another_moment_within_the_window_was_not_signed(vector: Vector) -> None:
    assert not vector.verifies({"webhook-timestamp": str(vector.timestamp + 1)})


@both_vectors
def test_one_good_signature_among_others_is_enough(vector: Vector) -> None:
    """Two while a secret rotates; versions that we do not know are passed over."""
    others = f"v1,AAAA v1a,{vector.signature} {vector.signature} nonsense"
    assert vector.verifies({"webhook-signature": others})


@both_vectors
def test_a_signature_of_another_version_does_not_count(vector: Vector) -> None:
    assert not vector.verifies({"webhook-signature": vector.signature.replace("v1,", "v2,")})


def test_any_of_several_secrets_verifies_and_none_verifies_nothing() -> None:
    for vector in VECTORS:
        assert verifies(vector.headers, vector.body, secrets=[OTHER, SECRET], now=vector.sent_at)
        assert not verifies(vector.headers, vector.body, secrets=[], now=vector.sent_at)


# Signatures that a public key verifies


def is_signed_for(key: str, signature: str, signed: bytes) -> bool:
    """As a receiver finds out: `whpk_…`, `v1a,…`, and `{id}.{timestamp}.{body}`."""
    version, _, encoded = signature.partition(",")
    assert version == "v1a"
    raw = base64.b64decode(key.removeprefix("whpk_"), validate=True)
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(base64.b64decode(encoded, validate=True), signed)
    except InvalidSignature:
        return False
    return True


any_secret = st.binary(min_size=24, max_size=64).map(lambda raw: f"whsec_{base64.b64encode(raw).decode()}")
moments = st.integers(min_value=0, max_value=2**33)


@given(st.binary(), any_secret, any_secret, moments)
def test_the_public_key_of_a_secret_verifies_its_v1a_signature_and_no_other(
    body: bytes, secret: str, other: str, at: int
) -> None:
    assume(secret != other)
    moment = datetime.fromtimestamp(at, UTC)
    _, signature = sign_publicly(body, message_id="evt_1", sent_at=moment, secrets=[secret]).split()
    signed = f"evt_1.{at}.".encode() + body
    assert is_signed_for(public_key(secret), signature, signed)
    assert not is_signed_for(public_key(other), signature, signed)
    for changed in (signed + b" ", f"evt_2.{at}.".encode() + body, f"evt_1.{at + 1}.".encode() + body):
        assert not is_signed_for(public_key(secret), signature, changed)


@given(st.binary(), st.lists(any_secret, min_size=1, max_size=5), moments)
def test_each_v1_keeps_its_place_beside_a_v1a_by_the_same_secret(
    body: bytes, secrets: list[str], at: int
) -> None:
    moment = datetime.fromtimestamp(at, UTC)
    parts = sign_publicly(body, message_id="evt_1", sent_at=moment, secrets=secrets).split(" ")
    assert parts[::2] == sign(body, message_id="evt_1", sent_at=moment, secrets=secrets).split(" ")
    signed = f"evt_1.{at}.".encode() + body
    assert all(
        is_signed_for(public_key(secret), part, signed)
        for secret, part in zip(secrets, parts[1::2], strict=True)
    )


def test_the_official_library_passes_over_a_v1a_to_the_v1_that_it_knows() -> None:
    secrets, now = [new_endpoint_secret(), new_endpoint_secret()], utc_now()
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": sign_publicly(b"{}", message_id="evt_1", sent_at=now, secrets=secrets),
    }
    for secret in secrets:
        assert Webhook(secret).verify(b"{}", headers) == {}


def test_a_public_key_is_32_bytes_that_stay_the_same_for_its_secret_with_or_without_the_prefix() -> None:
    """Receivers keep it, so no release may make another one of the same secret."""
    key = public_key(SECRET)
    assert key == "whpk_ZE8Kug2rFAkH77zLzD3AnR+Cmz0aIDdfgtAeUZM3Nxw="
    assert len(base64.b64decode(key.removeprefix("whpk_"), validate=True)) == 32
    assert public_key(SECRET.removeprefix("whsec_")) == key


any_header = st.one_of(
    st.text(st.characters()),  # with NUL and lone surrogates, which no server hands on, to be sure
    st.integers().map(str),
    st.sampled_from(["9" * 5000, "-1", "1e9", "nan", "inf", "1790000060", "v1,", "v1,é", "1_0", "٣"]),
)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]), any_header),
    st.binary(),
    st.booleans(),
)
def test_nothing_that_can_be_sent_breaks_the_check(
    headers: dict[str, str], body: bytes, genuine: bool
) -> None:
    if genuine:  # so that the comparison itself is reached
        headers = {
            "webhook-id": "m",
            "webhook-timestamp": "1790000060",
            "webhook-signature": "v1,x",
        } | headers
    now = datetime.fromtimestamp(1790000060, UTC)
    assert verifies(headers, body, secrets=[SECRET, OTHER], now=now) is False


# Secrets


def secret_of(size: int) -> str:
    return "whsec_" + base64.b64encode(bytes(range(size))).decode()


@pytest.mark.parametrize("size", [24, 32, 64])
def test_a_secret_of_24_to_64_bytes_can_sign_with_or_without_its_prefix(size: int) -> None:
    check_secret(secret_of(size))
    check_secret(secret_of(size).removeprefix("whsec_"))
    assert sign(b"x", message_id="m", sent_at=utc_now(), secrets=[secret_of(size)])


def test_a_new_endpoints_secret_can_sign() -> None:
    check_secret(new_endpoint_secret())
    assert new_endpoint_secret() != new_endpoint_secret()


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        secret_of(23),
        secret_of(65),
        secret_of(32) + "!",
        secret_of(32)[:-1],
        "whsec_schlüssel",
        "whsec_\ud800",
        " " + secret_of(32),
    ],
)
def test_a_secret_that_cannot_sign_is_refused_without_being_repeated(secret: str) -> None:
    with pytest.raises(InvalidSecret) as raised:
        check_secret(secret)
    assert not secret or secret not in str(raised.value)
