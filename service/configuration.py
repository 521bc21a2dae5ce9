"""The settings of a process that serves: also whether they go together, and what the files that they name say."""

from pathlib import Path

from pydantic import SecretStr, ValidationInfo, field_validator

from service.domain.errors import ConfigurationError
from service.providers import read_providers
from service.settings import Role, Settings, environment, load


class ServerSettings(Settings):
    """A setting that is faulty itself is not held against others: its own fault is told."""

    @field_validator("providers")
    @classmethod
    def _alone_and_whole(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is None:
            return None
        if info.data.get("provider") is not None or info.data.get("provider_url") is not None:
            raise ValueError("names all providers: leave out KLINGEL_PROVIDER and KLINGEL_PROVIDER_URL")
        try:
            read_providers(value, environment())
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("roles")
    @classmethod
    def _all_taken(cls, value: frozenset[Role], info: ValidationInfo) -> frozenset[Role]:
        """What this process leaves undone another one has to do, and it is said where that one is reached."""
        missing = ", ".join(sorted(frozenset(Role) - value))
        if missing and "database_url" in info.data and _is_sqlite(info.data["database_url"]):
            raise ValueError(
                f"leaves {missing} to another process, and a SQLite file serves one process at a time: nothing would do "
                "it. Leave it out, or set it to web,dispatch"
            )
        if Role.WEB not in value and info.data.get("public_url", "") is None:
            raise ValueError(
                "sends tasks whose callbacks come in at other processes: set KLINGEL_PUBLIC_URL to where those are "
                "reached"
            )
        return value

    @field_validator("sandbox_faults")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value:
            from handlers.providers.sandbox import Fault  # noqa: PLC0415 - where faults are wanted

            if unknown := [word for word in value if word not in set(Fault)]:
                raise ValueError(f"there is no {', '.join(unknown)}. There are: {', '.join(Fault)}")
        return value


def _is_sqlite(url: SecretStr | None) -> bool:
    return url is None or url.get_secret_value().startswith("sqlite:")


def load_server_settings() -> ServerSettings:
    """
    Raises:
        ConfigurationError: names every faulty setting at once, and every fault of the files; or `.env` cannot be read.
    """
    return load(ServerSettings)
