"""What the operator chooses: environment and `.env`, read once at start. Nothing else looks there."""

import ipaddress
import os
import re
import secrets
from collections import ChainMap
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service import dotenv
from service.domain.errors import ConfigurationError
from service.domain.signatures import InvalidSecret, check_secret
from service.domain.urls import is_http_url

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ProviderName(StrEnum):
    COMETAPI = "cometapi"
    KLING = "kling"
    SANDBOX = "sandbox"


class Region(StrEnum):
    """Where an account at the official API was made: its keys are good there alone."""

    SINGAPORE = "singapore"
    BEIJING = "beijing"


class Role(StrEnum):
    WEB = "web"
    DISPATCH = "dispatch"


class LogFormat(StrEnum):
    CONSOLE = "console"
    JSON = "json"


REGIONS: Final = {
    Region.SINGAPORE: "https://api-singapore.klingai.com",
    Region.BEIJING: "https://api-beijing.klingai.com",
}
PROVIDER_URLS: Final = {
    ProviderName.COMETAPI: "https://api.cometapi.com",
    ProviderName.KLING: REGIONS[Region.SINGAPORE],
}
NO_STORE: Final = "none:"
SECRET_FILE: Final = "klingel.secret"  # noqa: S105 - the name of a file


# One of those between the `@` and the path of PostgreSQL's URL.
_DATABASE_HOST: Final = re.compile(r"(?:\[[^\[\]]+\]|[^\[\]:]*)(?::(?P<port>[0-9]{1,5}))?")


def _seconds(default: float, *, most: float, text: str) -> Any:
    return Field(default, ge=0, le=most, description=text)


class Settings(BaseSettings):
    """Every field has a line in the README's table; a test compares the two."""

    model_config = SettingsConfigDict(
        env_prefix="KLINGEL_",
        env_file=dotenv.DOTENV,
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    host: str = Field(
        "127.0.0.1",
        validation_alias=AliasChoices("KLINGEL_HOST", "HOST"),
        description="address to listen on",
    )
    port: int = Field(
        8000,
        ge=0,
        le=65535,
        validation_alias=AliasChoices("KLINGEL_PORT", "PORT"),
        description="port to listen on; 0 takes a free one",
    )
    public_url: str | None = Field(None, description="where the provider reaches Klingel")
    database_url: SecretStr | None = Field(
        None, description="where tasks and events are kept; `postgresql://…` for many processes and machines"
    )
    data_dir: Path = Field(Path(), description="database, input files, generated secret")
    secret: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        description="encrypts secrets at rest and makes callback URLs; several, comma-separated, newest first",
    )
    api_key: SecretStr | None = Field(None, description="an admin key, at least 16 characters")
    provider: ProviderName | None = Field(None, description="`cometapi`, `kling` or `sandbox`")
    provider_url: str | None = Field(None, description="base URL of the provider")
    provider_region: Region = Field(
        Region.SINGAPORE, description="of an account at the official API: `singapore` or `beijing`"
    )
    providers: Path | None = Field(
        None, description="a file that names several provider accounts, instead of the one above and below"
    )
    provider_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("KLINGEL_PROVIDER_KEY", "COMETAPI_KEY"),
        validate_default=True,
        description="the provider's API key",
    )
    provider_timeout: float = Field(60, gt=0, le=600, description="seconds for one request to the provider")
    provider_webhook_secret: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="verifies signatures on the provider's callbacks when set; several while rotating"
    )
    submit_wait: float = _seconds(30, most=600, text="seconds a submit waits for the provider's answer")
    confirm_after: float = _seconds(
        120, most=86_400, text="seconds before an unconfirmed create is sent again"
    )
    queue_max_age: float = _seconds(86_400, most=2_592_000, text="seconds a task may wait to be accepted")
    deadline_image: float = _seconds(900, most=2_592_000, text="seconds until an image task is overdue")
    deadline_audio: float = _seconds(900, most=2_592_000, text="seconds until an audio task is overdue")
    deadline_video: float = _seconds(3600, most=2_592_000, text="seconds until a video task is overdue")
    allow_networks: Annotated[tuple[Network, ...], NoDecode] = Field(
        (), description="private networks (CIDRs, comma-separated) whose receivers may be dialled"
    )
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = Field(
        (), description="addresses of proxies (CIDRs, comma-separated) whose X-Forwarded-For is believed"
    )
    retention_days: int = Field(
        30, ge=1, le=36_500, description="days that events, deliveries, callbacks are kept"
    )
    task_retention_days: int = Field(
        365,
        ge=1,
        le=36_500,
        description="days that ended tasks and their input files are kept; at least as long as events",
    )
    store_url: str | None = Field(None, description="where outputs are kept; `none:` keeps nothing")
    file_max_bytes: int = Field(
        1024 * 1024 * 1024, ge=1, le=1024**4, description="bytes of the largest output that is kept"
    )
    file_retention_days: int = Field(365, ge=1, le=36_500, description="days that outputs are kept")
    traces_url: str | None = Field(None, description="where OpenTelemetry traces go, as OTLP over HTTP")
    account_streams: int = Field(
        1500, ge=1, le=65_536, description="live streams that one account may have open"
    )
    roles: Annotated[frozenset[Role], NoDecode] = Field(
        frozenset(Role), description="what this process does: `web`, `dispatch`"
    )
    log: LogFormat | None = Field(None, description="`console` or `json`")
    sandbox_step: float = _seconds(1.0, most=3600, text="seconds between the states of a sandbox task")
    sandbox_faults: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="faults that the embedded sandbox shows on every task"
    )

    @field_validator(
        "secret",
        "provider_webhook_secret",
        "allow_networks",
        "trusted_proxies",
        "roles",
        "sandbox_faults",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @field_validator("secret")
    @classmethod
    def _long_enough(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(secret.get_secret_value()) < 16 for secret in value):
            raise ValueError("each secret needs at least 16 characters")
        return value

    @field_validator("api_key")
    @classmethod
    def _key_long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 16:
            raise ValueError("an admin key needs at least 16 characters")
        return value

    @field_validator("provider_webhook_secret")
    @classmethod
    def _can_sign(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in value:
            try:
                check_secret(secret.get_secret_value())
            except InvalidSecret as error:
                raise ValueError(str(error)) from None
        return value

    @field_validator("public_url", "provider_url", "traces_url")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not is_http_url(value) or urlsplit(value).query or urlsplit(value).fragment:
            raise ValueError(
                "must be an absolute http(s) URL without query, e.g. https://klingel.example.com"
            )
        return value.rstrip("/")

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        kind, separator, rest = value.get_secret_value().partition("://")
        if kind == "sqlite" and rest.startswith("/") and rest.strip("/").strip():
            return value
        if kind not in {"postgresql", "postgres"} or not separator:
            raise ValueError("must be sqlite:///path/to/file.db or postgresql://user:password@host/database")
        if not _is_whole(value.get_secret_value()):
            # Told without any of it: what was meant as the password may stand anywhere in it.
            raise ValueError(
                "must be postgresql://user:password@host:port/database, with user and password percent-encoded: / as %2F, "
                "# as %23, ? as %3F, @ as %40, [ as %5B"
            )
        return value

    @field_validator("store_url")
    @classmethod
    def _known_store(cls, value: str | None) -> str | None:
        if value is None or value == NO_STORE:
            return value
        parts = urlsplit(value)
        if parts.scheme == "file":
            known = parts.netloc in {"", "localhost"} and parts.path.startswith("/")
        else:
            known = parts.scheme in {"s3", "gs", "az"} and bool(parts.netloc)
        if not known or parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError(
                "must be file:///path/to/folder, s3://bucket/folder, gs://bucket/folder, az://container/folder or none:"
            )
        return value

    @field_validator("provider_key")
    @classmethod
    def _needed_by_the_provider(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        provider = info.data.get("provider")
        if value is None and provider not in {None, ProviderName.SANDBOX}:
            raise ValueError(f"KLINGEL_PROVIDER={provider} needs it (COMETAPI_KEY will do too)")
        if value is not None and value.get_secret_value().startswith("kl_"):
            # Drop-in clients have one in their COMETAPI_KEY, which Klingel reads as well.
            raise ValueError("is a key of Klingel's own; the provider's is wanted (also in COMETAPI_KEY)")
        return value

    @field_validator("roles")
    @classmethod
    def _some_role(cls, value: frozenset[Role]) -> frozenset[Role]:
        if not value:
            raise ValueError("must name web, dispatch, or both")
        return value

    @property
    def provider_name(self) -> ProviderName:
        if self.provider is not None:
            return self.provider
        return ProviderName.SANDBOX if self.provider_key is None else ProviderName.COMETAPI

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return self.host in {"127.0.0.1", "::1", "localhost"}

    @property
    def local_url(self) -> str:
        """How this machine reaches this process."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104 - a comparison
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        return f"http://{host}:{self.port}"

    @property
    def reachable_url(self) -> str:
        return self.public_url or self.local_url

    @property
    def is_reached_by_https(self) -> bool:
        return self.reachable_url.startswith("https:")

    @property
    def provider_base_url(self) -> str:
        if self.provider_url is not None:
            return self.provider_url
        if self.provider_name is ProviderName.SANDBOX:
            return f"{self.local_url}/sandbox"
        if self.provider_name is ProviderName.KLING:
            return REGIONS[self.provider_region]
        return PROVIDER_URLS[self.provider_name]

    @property
    def embeds_sandbox(self) -> bool:
        return self.provider_name is ProviderName.SANDBOX and self.provider_url is None

    @property
    def database_at(self) -> Path | str:
        """The path of a SQLite file, or PostgreSQL's URL, which may hold a password."""
        if self.database_url is None:
            return self.data_dir / "klingel.db"
        url = self.database_url.get_secret_value()
        return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:") else url

    @property
    def has_one_process(self) -> bool:
        """A SQLite file serves one."""
        return isinstance(self.database_at, Path)

    @property
    def kept_at(self) -> str | None:
        """The store's URL; None where nothing is to be kept."""
        if self.store_url == NO_STORE:
            return None
        return self.store_url or (self.data_dir.absolute() / "files").as_uri()

    @property
    def inputs_path(self) -> Path:
        """Where pictures that came as Base64 are kept, by their hash."""
        return self.data_dir / "inputs"

    def secrets(self) -> list[str]:
        """What `KLINGEL_SECRET` lists, or the secret kept in the data directory, made when there is none.

        Raises:
            ConfigurationError: the secret file cannot be read or made, or others would make one of their own.
        """
        if self.secret:
            return [secret.get_secret_value() for secret in self.secret]
        path = self.data_dir / SECRET_FILE
        if not self.has_one_process and not path.exists():
            raise ConfigurationError(
                "Every process on one PostgreSQL database needs the same secret, and would make its own: set "
                "KLINGEL_SECRET, e.g. to what `openssl rand -base64 32` prints, and keep it."
            )
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                # Written whole under another name first: a crash leaves no half secret behind.
                draft = path.with_suffix(".new")
                draft.touch(mode=0o600)
                with draft.open("w") as file:
                    file.write(secrets.token_urlsafe(32) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                draft.rename(path)
            secret = path.read_text(errors="replace").strip()
        except OSError as error:
            raise ConfigurationError(
                f"The secret file {path} cannot be used: {error.strerror}. "
                "Set KLINGEL_SECRET, or point KLINGEL_DATA_DIR at a writable folder."
            ) from None
        if len(secret) < 16:
            raise ConfigurationError(f"The secret file {path} is damaged: restore it, or set KLINGEL_SECRET.")
        return [secret]


class _DotEnv(BaseSettings):
    model_config = SettingsConfigDict(
        env_file=dotenv.DOTENV, env_file_encoding="utf-8", extra="allow", case_sensitive=True
    )


def environment() -> Mapping[str, str]:
    """What a file of providers may take its keys from: the environment, and `.env` behind it.

    Raises:
        ConfigurationError: `.env` cannot be read.
    """
    with dotenv.reading():
        found = _DotEnv().model_extra or {}
    return ChainMap(os.environ, {name: str(value) for name, value in found.items()})


def load_settings(**overrides: object) -> Settings:
    """
    Raises:
        ConfigurationError: names every faulty setting at once; or `.env` cannot be read.
    """
    return load(Settings, **overrides)


Some = TypeVar("Some", bound=Settings)


def load(kind: type[Some], **overrides: object) -> Some:
    """As `load_settings`."""
    try:
        with dotenv.reading():
            return kind(**overrides)  # type: ignore[arg-type]  # values come as text and are parsed
    except ValidationError as error:
        lines = [
            f"  {_variable(fault['loc'])}: {fault['msg'].removeprefix('Value error, ')}".replace("\n", "\n  ")
            for fault in error.errors()
        ]
        raise ConfigurationError("Some settings are wrong:\n" + "\n".join(lines)) from None


def _is_whole(url: str) -> bool:
    """Whether each part of PostgreSQL's URL is what it seems to be: a `/`, `?`, `#`, `@` or `[` in a password makes others
    of it.
    """
    try:
        parts = urlsplit(url)
        parse_qsl(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        return False
    user, _, hosts = parts.netloc.rpartition("@")
    if "@" in user + parts.path or parts.fragment:
        return False
    found = [_DATABASE_HOST.fullmatch(host) for host in hosts.split(",")]
    if any(host is None or not (host[0] or len(found) == 1) for host in found):
        return False
    return all(1 <= int(host["port"]) <= 65_535 for host in found if host is not None and host["port"])


def _variable(location: tuple[int | str, ...]) -> str:
    if not location:
        return "settings"
    name = str(location[0])
    return name if name.isupper() else f"KLINGEL_{name.upper()}"
