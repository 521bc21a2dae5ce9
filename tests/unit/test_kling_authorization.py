import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from handlers.providers.kling import authorization_for
from service.domain.errors import ConfigurationError

NOW = datetime.fromtimestamp(1790000000, UTC)
SECRET = "secret-1-secret-1-secret-1-secret-1"


def test_a_plain_key_is_the_credential() -> None:
    assert authorization_for(" sk-123 ", lambda: NOW)() == "Bearer sk-123"


def test_a_key_pair_becomes_the_token_that_another_library_makes() -> None:
    """PyJWT 2.15.1, `encode({"iss": …, "exp": …, "nbf": …}, …, algorithm="HS256")`."""
    assert authorization_for(f"access-1:{SECRET}", lambda: NOW)() == (
        "Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"
        ".eyJpc3MiOiJhY2Nlc3MtMSIsImV4cCI6MTc5MDAwMTgwMCwibmJmIjoxNzg5OTk5OTk1fQ"
        ".3Sq0ghBpo1Ju8BhOV-teZinwUMZNlFgX144966u-yQQ"
    )


def test_a_secret_key_may_hold_colons() -> None:
    token = authorization_for("access:se:cr:et", lambda: NOW)().removeprefix("Bearer ")
    signed, _, signature = token.rpartition(".")
    expected = hmac.new(b"se:cr:et", signed.encode(), hashlib.sha256).digest()
    assert base64.urlsafe_b64decode(signature + "=") == expected


def test_every_token_is_new_and_good_for_half_an_hour() -> None:
    now = NOW
    authorization = authorization_for(f"access-1:{SECRET}", lambda: now)

    def claims() -> Any:
        return json.loads(base64.urlsafe_b64decode(authorization().split(".")[1] + "=="))

    first = claims()
    now += timedelta(minutes=29)
    assert first == {"iss": "access-1", "exp": 1790001800, "nbf": 1789999995}
    assert claims() == {"iss": "access-1", "exp": 1790001800 + 1740, "nbf": 1789999995 + 1740}


def claims_of(authorization: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(authorization.split(".")[1] + "=="))


@pytest.mark.parametrize("ahead", [timedelta(minutes=10), -timedelta(hours=2)])
def test_once_told_the_providers_time_tokens_go_by_it(ahead: timedelta) -> None:
    authorization = authorization_for(f"access-1:{SECRET}", lambda: NOW)
    refused = authorization()
    assert authorization.correct(NOW + ahead, refused)
    seconds = int(ahead.total_seconds())
    assert claims_of(authorization()) == {
        "iss": "access-1",
        "exp": 1790001800 + seconds,
        "nbf": 1789999995 + seconds,
    }
    assert not authorization.correct(NOW + ahead, authorization())  # that one went by it already
    assert authorization.correct(NOW + ahead, refused)  # who was refused at the same time hears of it second


def test_a_clock_that_agrees_is_not_to_blame() -> None:
    authorization = authorization_for(f"access-1:{SECRET}", lambda: NOW)
    assert not authorization.correct(NOW + timedelta(seconds=1), authorization())


def test_a_plain_key_knows_no_time() -> None:
    assert not authorization_for("sk-1", lambda: NOW).correct(NOW + timedelta(hours=1), "Bearer sk-1")


def test_neither_key_is_shown_by_its_owner() -> None:
    assert SECRET not in repr(authorization_for(f"access-1:{SECRET}", lambda: NOW))
    assert "sk-123" not in repr(authorization_for("sk-123", lambda: NOW))


@pytest.mark.parametrize(
    "key", ["", "  ", ":", "access:", ":secret", "schlüssel", "sk-1\nX-Evil: 1", "two words"]
)
def test_a_key_that_cannot_work_is_said_at_once_and_not_repeated(key: str) -> None:
    with pytest.raises(ConfigurationError, match="KLINGEL_PROVIDER_KEY") as raised:
        authorization_for(key, lambda: NOW)
    assert len(key.strip()) < 2 or key not in str(raised.value)
