"""`service.providers` and `service.domain.providers`: which accounts there are, and which one a task goes to."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from service.domain.errors import ConfigurationError
from service.domain.faults import InvalidFields
from service.domain.providers import ProviderAccount, ProviderAccounts
from service.domain.task_types import TASK_TYPES, Layout
from service.domain.tasks import OutputKind
from service.providers import Providers, provider_hint, providers_of
from service.settings import ProviderName, Settings

SECRETS = [
    "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI=",
    "whsec_a2xpbmctd2ViaG9vay1kZW1vLWtleS0wMTIzNDU2Nzg5",
]
PICTURES = TASK_TYPES["kling.multi-image-to-image"]
FILMS = TASK_TYPES["kling.multi-image-to-video"]
BOTH = """
[gateway]
kind = "cometapi"
key_env = "GATEWAY_KEY"
default = true

[tokyo]
kind = "kling"
key = "access:secret"
webhook_secrets_env = "TOKYO_SECRETS"
types = ["*-to-video"]
slots = { video = 5, image = 2 }
"""


def read(tmp_path: Path, text: str, *, suffix: str = "toml", **environment: str) -> Providers:
    path = tmp_path / f"providers.{suffix}"
    path.write_text(text)
    return providers_of(Settings(providers=path, _env_file=None), environment)


def faults(tmp_path: Path, text: str, **environment: str) -> str:
    with pytest.raises(ConfigurationError) as raised:
        read(tmp_path, text, **environment)
    return str(raised.value)


def test_each_account_has_its_own_keys_secrets_and_slots(tmp_path: Path) -> None:
    found = read(tmp_path, BOTH, GATEWAY_KEY="sk-1", TOKYO_SECRETS=", ".join(SECRETS))
    gateway, tokyo = found.all
    assert found.default == "gateway"
    assert (gateway.name, gateway.kind, gateway.base_url) == (
        "gateway",
        ProviderName.COMETAPI,
        "https://api.cometapi.com",
    )
    assert gateway.key is not None
    assert gateway.key.get_secret_value() == "sk-1"
    assert (tokyo.account.layout, tokyo.base_url) == (Layout.OFFICIAL, "https://api-singapore.klingai.com")
    assert [secret.get_secret_value() for secret in tokyo.webhook_secrets] == SECRETS
    assert tokyo.account.slots == {OutputKind.VIDEO: 5, OutputKind.IMAGE: 2}


def test_the_file_in_the_documentation_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "providers.md").read_text()
    text = page.partition("<!-- example -->\n```toml\n")[2].partition("```")[0]
    names = ("COMETAPI_KEY", "KLING_KEY_SINGAPORE", "KLING_KEY_BEIJING")
    found = read(tmp_path, text, KLING_SECRETS_SINGAPORE=SECRETS[0], **dict.fromkeys(names, "k"))
    assert [provider.name for provider in found.all] == ["gateway", "singapore", "beijing"]
    assert found.accounts.choose(FILMS, None) == "singapore"
    assert found.accounts.choose(PICTURES, None) == "gateway"


def test_the_same_in_json(tmp_path: Path) -> None:
    text = json.dumps({"only": {"kind": "kling", "region": "beijing", "key": "k"}})
    found = read(tmp_path, text, suffix="json")
    assert found.default == "only"
    assert found.all[0].base_url == "https://api-beijing.klingai.com"


def test_neither_key_nor_secret_is_shown(tmp_path: Path) -> None:
    found = read(tmp_path, BOTH, GATEWAY_KEY="sk-1234567", TOKYO_SECRETS=SECRETS[0])
    assert "sk-1234567" not in repr(found)
    assert "access:secret" not in repr(found)
    assert SECRETS[0] not in repr(found)


@pytest.mark.parametrize(
    "field",
    [
        'url = "https://:sk-1234567@example.com"',
        'url = "https://sk-1234567@example.com"',
        'url = "https://@sk-1234567@example.com/"',
        'types = ["sk-1234567"]',
        'types = ["kling.*", "sk-1234567"]',
        'sort = "sk-1234567"',
        'webhook_secrets_env = "sk-1234567"',
    ],
)
def test_a_key_in_the_wrong_place_is_refused_and_not_repeated(tmp_path: Path, field: str) -> None:
    told = faults(tmp_path, f'[a]\nkind = "kling"\nkey = "k"\n{field}')
    assert f"[a] {field.partition(' ')[0]}" in told
    assert "sk-1234567" not in told


def test_every_fault_of_the_file_is_told_at_once(tmp_path: Path) -> None:
    told = faults(
        tmp_path,
        """
        [Tokyo]
        kind = "kling"
        key_env = "NOT_THERE"
        [b]
        kind = "cometapi"
        region = "beijing"
        key = "kl_ours"
        slots = { video = 0 }
        [c]
        kind = "other"
        colour = "red"
        [d]
        kind = "kling"
        key = "k"
        url = "ftp://example.com"
        types = ["kling.no-such-type"]
        webhook_secrets = ["whsec_short"]
        [e]
        kind = "cometapi"
        key = "half:"
        webhook_secrets = ["whsec_short"]
        default = true
        [f]
        kind = "cometapi"
        default = true
        """,
    )
    for expected in (
        "[Tokyo] a name has",
        "[Tokyo] key_env: the environment has no NOT_THERE",
        "[b] slots.video",
        "[b] region: only kind kling has any",
        "[b] key: it is a key of Klingel's own",
        "[c] kind:",
        "[c] colour:",
        "[d] url:",
        "[d] types.0:",
        "[e] key:",
        "[e] webhook_secrets:",
        "[f] it needs a key",
        "e, f: only one of them can be the default",
    ):
        assert expected in told, told
    assert "kl_ours" not in told
    assert "whsec_short" not in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it names no provider"),
        ('[a]\nkind = "cometapi"\nkey = "1"\n[b]\nkind = "cometapi"\nkey = "2"', "must be the default"),
        (
            '[a]\nkind = "sandbox"\ndefault = true\n[b]\nkind = "sandbox"',
            "only one of them can be the sandbox",
        ),
        ("a = 1", "[a]"),
        ("[a", "is not TOML"),
        ('[a]\nkind = "cometapi"\nkey = "kl_1"', "a key of Klingel's own"),
        ('[a]\nkind = "cometapi"\nkey = "1"\nregion = "beijing"', "only kind kling"),
    ],
)
def test_what_cannot_be_used_says_why(tmp_path: Path, text: str, told: str) -> None:
    assert told in faults(tmp_path, text)


def test_a_url_that_is_none_is_told_in_plain_words(tmp_path: Path) -> None:
    told = faults(tmp_path, '[a]\nkind = "cometapi"\nkey = "k"\nurl = "example.com"')
    assert '[a] url: "url" must be an absolute http(s) URL' in told
    assert "Value error" not in told


def test_how_the_sandbox_is_left_depends_on_where_it_was_chosen(tmp_path: Path) -> None:
    file = tmp_path / "providers.toml"
    assert "COMETAPI_KEY" in provider_hint(Settings(_env_file=None))
    assert provider_hint(Settings(providers=file, _env_file=None)).startswith(
        f"Name another provider in {file}"
    )


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    settings = Settings(providers=tmp_path / "none.toml", _env_file=None)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        providers_of(settings, {})


def accounts(default: str = "gateway", **types: list[str]) -> ProviderAccounts:
    layouts: Mapping[str, Any] = {"gateway": Layout.COMETAPI}
    return ProviderAccounts(
        [
            ProviderAccount(name=name, layout=layouts.get(name, Layout.OFFICIAL), types=patterns)
            for name, patterns in types.items()
        ],
        default=default,
    )


def test_a_task_goes_to_the_account_that_is_meant_for_its_type() -> None:
    several = accounts(gateway=[], tokyo=["*-to-video"])
    assert several.choose(FILMS, None) == "tokyo"
    assert several.choose(PICTURES, None) == "gateway"


def test_whoever_submits_may_name_another() -> None:
    several = accounts(gateway=[], tokyo=["*-to-video"])
    assert several.choose(FILMS, "gateway") == "gateway"


def test_what_the_default_does_not_sell_goes_to_one_that_does() -> None:
    only_official = next(row for row in TASK_TYPES.values() if not row.sold_at(Layout.COMETAPI))
    several = accounts(gateway=[], singapore=[])
    assert several.choose(only_official, None) == "singapore"


def test_the_default_may_be_kept_for_some_types() -> None:
    several = accounts(gateway=["*-to-image"], tokyo=[])
    assert several.choose(FILMS, None) == "tokyo"


@pytest.mark.parametrize(
    ("wanted", "pointer", "told"),
    [
        ("nobody", "#/provider", "There are: gateway, tokyo."),
        ("tokyo", "#/provider", "tokyo does not take kling.multi-image-to-image."),
    ],
)
def test_an_account_that_cannot_is_refused_by_name(wanted: str, pointer: str, told: str) -> None:
    several = accounts(gateway=[], tokyo=["*-to-video"])
    with pytest.raises(InvalidFields) as raised:
        several.choose(PICTURES, wanted)
    [fault] = raised.value.faults
    assert (fault.pointer, told in fault.detail) == (pointer, True)


def test_a_type_that_nobody_sells_is_told_as_such() -> None:
    with pytest.raises(InvalidFields) as raised:
        accounts(gateway=["*-to-video"]).choose(PICTURES, None)
    assert [fault.pointer for fault in raised.value.faults] == ["#/type"]
