"""`service.domain.secrets`: the vault, callback tokens, API keys."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service.domain.errors import ConfigurationError
from service.domain.secrets import (
    CallbackTokens,
    FileSignatures,
    SessionSignatures,
    Vault,
    hash_api_key,
    new_api_key,
    sandbox_key,
)
from service.settings import ProviderName

OLD, NEW = "the-old-secret-0123", "the-new-secret-0123"

any_text = st.text(st.characters())  # with NUL and lone surrogates


# The vault


@given(st.text())
def test_what_is_sealed_opens_again_and_does_not_show(text: str) -> None:
    sealed = Vault([OLD]).seal(text)
    assert Vault([OLD]).open(sealed) == text
    assert len(text) < 4 or text not in sealed


def test_the_same_text_is_never_sealed_alike() -> None:
    assert Vault([OLD]).seal("x") != Vault([OLD]).seal("x")


def test_after_a_rotation_the_old_still_opens_and_the_new_seals() -> None:
    sealed_before = Vault([OLD]).seal("x")
    rotated = Vault([NEW, OLD])
    assert rotated.open(sealed_before) == "x"
    assert Vault([NEW]).open(rotated.seal("y")) == "y"


def test_sealed_anew_it_needs_no_former_secret_and_stays_as_it_is_where_it_needed_none() -> None:
    rotated = Vault([NEW, OLD])
    anew = rotated.seal_anew(Vault([OLD]).seal("x"))
    assert Vault([NEW]).open(anew) == "x"
    assert rotated.seal_anew(anew) == anew


def test_a_secret_that_did_not_seal_it_is_said_with_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="KLINGEL_SECRET=new,old") as raised:
        Vault([NEW]).open(Vault([OLD]).seal("hidden"))
    assert not {OLD, NEW, "hidden"} & set(re.split(r"\W", str(raised.value)))


@pytest.mark.parametrize("damage", ["", "x", "é", "gAAAAA==", "\ud800"])
def test_a_damaged_seal_is_the_operators_to_mend(damage: str) -> None:
    with pytest.raises(ConfigurationError):
        Vault([OLD]).open(damage)


def test_a_seal_with_any_character_changed_does_not_open() -> None:
    vault = Vault([OLD])
    sealed = vault.seal("x")
    for place, character in enumerate(sealed.rstrip("=")[:-1]):  # the last carries unused bits
        changed = sealed[:place] + ("A" if character != "A" else "B") + sealed[place + 1 :]
        with pytest.raises(ConfigurationError):
            vault.open(changed)


# Callback tokens

providers = st.sampled_from(sorted(ProviderName))
task_ids = st.text(st.characters(exclude_characters="\n"))


@given(providers, task_ids)
def test_a_token_is_good_for_its_task_and_fits_in_a_path(provider: str, task_id: str) -> None:
    tokens = CallbackTokens([OLD])
    token = tokens.sign(provider, task_id)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token)
    assert tokens.verify(token, provider, task_id)


@given(providers, task_ids, st.one_of(providers, any_text), st.one_of(task_ids, any_text))
def test_a_token_is_good_for_no_other_task_or_provider(
    provider: str, task_id: str, other_provider: str, other_task: str
) -> None:
    assume((provider, task_id) != (other_provider, other_task))
    tokens = CallbackTokens([OLD])
    assert not tokens.verify(tokens.sign(provider, task_id), other_provider, other_task)


@given(any_text, any_text, any_text)
def test_no_guess_verifies_or_breaks_the_check(token: str, provider: str, task_id: str) -> None:
    assert CallbackTokens([OLD, NEW]).verify(token, provider, task_id) is False


@given(st.integers(0, 42), st.characters())
def test_a_token_with_any_character_changed_is_no_token(place: int, other: str) -> None:
    tokens = CallbackTokens([OLD])
    token = tokens.sign("cometapi", "task_1")
    assume(token[place] != other)
    for changed in (token[:place] + other + token[place + 1 :], token + other, token[:place]):
        assert not tokens.verify(changed, "cometapi", "task_1")


def test_after_a_rotation_urls_given_out_before_still_work() -> None:
    before, after = CallbackTokens([OLD]), CallbackTokens([NEW, OLD])
    given_out = before.sign("cometapi", "task_1")
    assert after.verify(given_out, "cometapi", "task_1")
    assert CallbackTokens([NEW]).verify(after.sign("cometapi", "task_1"), "cometapi", "task_1")
    assert not CallbackTokens([NEW]).verify(given_out, "cometapi", "task_1")


def test_a_token_tells_nothing_that_opens_the_vault() -> None:
    """Both come of one secret, by keys derived apart."""
    token = CallbackTokens([OLD]).sign("cometapi", "task_1")
    with pytest.raises(ConfigurationError):
        Vault([token]).open(Vault([OLD]).seal("x"))


def test_what_was_given_out_before_an_upgrade_is_good_after_it() -> None:
    """URLs at providers, links in people's hands, cookies in their browsers: none of them may come out differently."""
    tokens, files, sessions = CallbackTokens([OLD]), FileSignatures([OLD]), SessionSignatures([OLD])
    content = "key_1.1795000000.nonce"
    assert tokens.sign("cometapi", "task_1") == "n9VIzyCIxLhIzAmpHiHy8R9ZPAWoaIHHngiDZIHmXj0"
    assert files.sign("file_1.mp4", "1795000000") == "byPnRVjesSi2x5X1ODedKxpbyjBMsxYH0AKOMQixXQI"
    assert sessions.sign("session", content) == "yFcynpzUwPfNopdo0rxw6DLoZ9Cx0HCFUufRjQFZZQU"
    assert sessions.sign("form", f"{content}.signature") == "6qVkvDrPH_5UgnGYCvnP5KjQxugzxlppMOpeHAYPJNo"
    assert sandbox_key([OLD]) == "I8B2LPoZFT5JUn356uj7P5I0aBDlnXlb7JEF2bx3Fkc"


# API keys


def test_api_keys_are_long_different_and_stored_as_hashes() -> None:
    key, other = new_api_key(), new_api_key()
    assert re.fullmatch(r"kl_[\w-]{43}", key)
    assert key != other
    assert hash_api_key(key) == hash_api_key(key) != hash_api_key(other)
    assert key not in hash_api_key(key)
