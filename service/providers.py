"""Which accounts Klingel has at providers: the one that the settings name, or several from a file."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from pydantic_core import PydanticCustomError

from service.domain.errors import ConfigurationError
from service.domain.faults import PREDICATE, InvalidFields, accept, pointer_token
from service.domain.providers import ProviderAccount, ProviderAccounts
from service.domain.signatures import InvalidSecret, check_secret
from service.domain.task_types import TASK_TYPES, Layout
from service.domain.tasks import OutputKind
from service.domain.urls import is_http_url
from service.settings import PROVIDER_URLS, REGIONS, ProviderName, Region, Settings

LAYOUTS: Final[Mapping[ProviderName, Layout]] = {
    ProviderName.COMETAPI: Layout.COMETAPI,
    ProviderName.KLING: Layout.OFFICIAL,
    ProviderName.SANDBOX: Layout.SANDBOX,
}

# It is a step of callback URLs, and stands beside the names of other fields.
NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
LARGEST_FILE: Final = 256 * 1024
MOST_ACCOUNTS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredProvider:
    """One account at a provider, with all that is needed to use it.

    Args:
        key: None for the sandbox inside, which needs none.
        webhook_secrets: `whsec_…`; several while one is being replaced.
        is_embedded: whether it is the sandbox that Klingel itself serves.
    """

    account: ProviderAccount
    kind: ProviderName
    base_url: str
    key: SecretStr | None
    webhook_secrets: Sequence[SecretStr]
    is_embedded: bool

    @property
    def name(self) -> str:
        return self.account.name


@dataclass(frozen=True, slots=True)
class Providers:
    all: Sequence[ConfiguredProvider]
    default: str

    @property
    def accounts(self) -> ProviderAccounts:
        return ProviderAccounts([provider.account for provider in self.all], default=self.default)

    @property
    def embedded(self) -> ConfiguredProvider | None:
        """The sandbox that Klingel itself serves, if it does."""
        return next((provider for provider in self.all if provider.is_embedded), None)


def _url(value: str) -> str:
    parts = urlsplit(value) if is_http_url(value) else None
    if (
        parts is None or parts.query or parts.fragment or "@" in parts.netloc
    ):  # a password would be shown with it
        raise PydanticCustomError(
            PREDICATE, "must be an absolute http(s) URL without query, e.g. https://api.cometapi.com"
        )
    return value.rstrip("/")


def _type(pattern: str) -> str:
    alone = ProviderAccount(name="", layout=Layout.SANDBOX, types=[pattern])
    if not any(alone.names(row) for row in TASK_TYPES.values()):
        # Told by its place alone: what is no type may be a key that was put there.
        raise PydanticCustomError(PREDICATE, "must be the name of a task type, or a pattern that fits one")
    return pattern


class AccountTable(BaseModel):
    """One account, as the file has it."""

    model_config = ConfigDict(strict=True, extra="forbid", defer_build=True)

    kind: Literal["cometapi", "kling", "sandbox"]
    region: Literal["singapore", "beijing"] | None = None
    url: Annotated[str, AfterValidator(_url)] | None = None
    key: str | None = None
    key_env: str | None = None
    webhook_secrets: list[str] = []
    webhook_secrets_env: str | None = None
    types: list[Annotated[str, AfterValidator(_type)]] = []
    slots: dict[Literal["image", "video", "audio"], Annotated[int, Field(ge=1, le=10_000)]] = {}
    default: bool = False


def providers_of(settings: Settings, environment: Mapping[str, str]) -> Providers:
    """
    Args:
        environment: where the file's keys and secrets may stand, by the names that it gives.

    Raises:
        ConfigurationError: names every fault of the file at once.
    """
    if settings.providers is None:
        return _of_settings(settings)
    return read_providers(settings.providers, environment, local_url=settings.local_url)


def read_providers(file: Path, environment: Mapping[str, str], *, local_url: str = "") -> Providers:
    """As `providers_of`.

    Args:
        local_url: of this process, where it serves the sandbox; not needed to find what is wrong.
    """
    return _Reading(environment, local_url).providers(file)


def provider_hint(settings: Settings) -> str:
    """How to leave the sandbox."""
    if settings.providers is not None:
        return f"Name another provider in {settings.providers} for the real thing."
    return "Set COMETAPI_KEY for the real thing."


def _of_settings(settings: Settings) -> Providers:
    kind = settings.provider_name
    only = ConfiguredProvider(
        account=ProviderAccount(name=kind, layout=LAYOUTS[kind]),
        kind=kind,
        base_url=settings.provider_base_url,
        key=settings.provider_key,
        webhook_secrets=settings.provider_webhook_secret,
        is_embedded=settings.embeds_sandbox,
    )
    return Providers([only], kind)


class _Reading:
    """Of one file: what is wrong is gathered, with its place."""

    def __init__(self, environment: Mapping[str, str], local_url: str) -> None:
        self._environment = environment
        self._local_url = local_url
        self._faults: list[str] = []

    def providers(self, path: Path) -> Providers:
        """
        Raises:
            ConfigurationError: with every fault.
        """
        tables = _tables(path)
        found = [provider for name, raw in tables.items() for provider in self._provider(name, raw)]
        defaults = [
            name for name, raw in tables.items() if isinstance(raw, dict) and raw.get("default") is True
        ]
        if not tables:
            self._faults.append("it names no provider")
        if len(tables) > MOST_ACCOUNTS:
            self._faults.append(f"it names more than {MOST_ACCOUNTS} providers")
        if len(defaults) > 1:
            self._faults.append(f"{', '.join(defaults)}: only one of them can be the default")
        if len(tables) > 1 and not defaults:
            self._faults.append("one of them must be the default: default = true")
        if len([provider for provider in found if provider.is_embedded]) > 1:
            self._faults.append(
                "only one of them can be the sandbox that Klingel itself serves; give others a url"
            )
        if self._faults:
            told = "\n".join(f"  {fault}" for fault in self._faults)
            raise ConfigurationError(f"The file of providers, {path} (KLINGEL_PROVIDERS), is wrong:\n{told}")
        return Providers(found, defaults[0] if defaults else found[0].name)

    def _provider(self, name: str, raw: object) -> Iterator[ConfiguredProvider]:
        """The one, unless it has faults."""
        before = len(self._faults)
        if not NAME.fullmatch(name):
            self._fault(name, "a name has up to 32 small letters, digits and '-', and begins with a letter")
        try:
            table = accept(AccountTable, raw)
        except InvalidFields as error:
            for fault in error.faults:
                self._fault(name, f"{fault.pointer.removeprefix('#/').replace('/', '.')}: {fault.detail}")
            faulty = {fault.pointer.split("/")[1] for fault in error.faults if "/" in fault.pointer}
            if not isinstance(raw, dict) or "kind" in faulty:
                return
            # What is well formed is looked at too, so that all is told at once.
            table = AccountTable(
                **{field: value for field, value in raw.items() if pointer_token(field) not in faulty}
            )
        kind = ProviderName(table.kind)
        key = self._key(name, table, kind)
        secrets = self._secrets(name, table)
        if table.region is not None and kind is not ProviderName.KLING:
            self._fault(name, "region: only kind kling has any")
        if table.region is not None and table.url is not None:
            self._fault(name, "give either a url or a region")
        is_embedded = kind is ProviderName.SANDBOX and table.url is None
        if len(self._faults) > before:
            return
        yield ConfiguredProvider(
            account=ProviderAccount(
                name=name,
                layout=LAYOUTS[kind],
                types=tuple(table.types),
                slots={OutputKind(word): number for word, number in table.slots.items()},
            ),
            kind=kind,
            base_url=table.url or self._usual_url(kind, table),
            key=key,
            webhook_secrets=secrets,
            is_embedded=is_embedded,
        )

    def _usual_url(self, kind: ProviderName, table: AccountTable) -> str:
        match kind:
            case ProviderName.SANDBOX:
                return f"{self._local_url}/sandbox"
            case ProviderName.KLING:
                return REGIONS[Region(table.region or Region.SINGAPORE)]
            case _:
                return PROVIDER_URLS[kind]

    def _key(self, name: str, table: AccountTable, kind: ProviderName) -> SecretStr | None:
        if table.key is not None and table.key_env is not None:
            self._fault(name, "give either key or key_env")
            return None
        key = table.key if table.key_env is None else self._from_environment(name, "key_env", table.key_env)
        if key is None:
            if table.key_env is None and kind is not ProviderName.SANDBOX:
                self._fault(name, "it needs a key, or a key_env that says which environment variable has it")
            return None
        if key.startswith("kl_"):
            self._fault(name, "key: it is a key of Klingel's own; the provider's is wanted")
        access, colon, secret = key.strip().partition(":")
        if (
            not access
            or (colon and not secret)
            or not key.isascii()
            or not key.isprintable()
            or " " in key.strip()
        ):
            self._fault(name, "key: it is an API key, or ACCESS:SECRET for the official API")
        return SecretStr(key)

    def _secrets(self, name: str, table: AccountTable) -> list[SecretStr]:
        secrets = [*table.webhook_secrets]
        if table.webhook_secrets_env is not None:
            listed = self._from_environment(name, "webhook_secrets_env", table.webhook_secrets_env)
            secrets += [part.strip() for part in (listed or "").split(",") if part.strip()]
        for secret in secrets:
            try:
                check_secret(secret)
            except InvalidSecret as error:
                self._fault(name, f"webhook_secrets: {error}")
        return [SecretStr(secret) for secret in secrets]

    def _from_environment(self, name: str, field: str, variable: str) -> str | None:
        value = self._environment.get(variable, "").strip()
        if not value:
            # What looks like no variable may be a key that was put there.
            told = variable if VARIABLE.fullmatch(variable) else "variable of this name"
            self._fault(name, f"{field}: the environment has no {told}")
            return None
        return value

    def _fault(self, name: str, detail: str) -> None:
        self._faults.append(f"[{name}] {detail}")


def _tables(path: Path) -> Mapping[str, Any]:
    """
    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        text = path.read_text()
        if len(text) > LARGEST_FILE:
            raise ConfigurationError(f"The file of providers, {path} (KLINGEL_PROVIDERS), is too large.")
        read = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(
            f"The file of providers, {path} (KLINGEL_PROVIDERS), cannot be read: {error.strerror}."
        ) from None
    except (ValueError, RecursionError) as error:
        what = "JSON" if path.suffix == ".json" else "TOML"
        raise ConfigurationError(
            f"The file of providers, {path} (KLINGEL_PROVIDERS), is not {what}: {error}."
        ) from None
    if not isinstance(read, dict):
        raise ConfigurationError(f"The file of providers, {path} (KLINGEL_PROVIDERS), has no table of names.")
    return read
