"""`service.configuration`: whether settings go together, told together with what is wrong with each."""

from pathlib import Path

import pytest

from service.configuration import ServerSettings, load_server_settings
from service.domain.errors import ConfigurationError
from tests.settings import without_settings

POSTGRES = "postgresql://klingel:correct-horse@db.example.com/klingel"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_settings(monkeypatch, tmp_path)


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> ServerSettings:
    for name in ("KLINGEL_ROLES", "KLINGEL_PUBLIC_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load_server_settings()


def faults(monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[str]:
    with pytest.raises(ConfigurationError) as raised:
        load(monkeypatch, **variables)
    first, *others = str(raised.value).splitlines()
    assert first == "Some settings are wrong:"
    return others


def test_faults_between_settings_and_of_files_are_told_with_all_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "providers.toml").write_text('[a]\nkind = "kling"\n[b]\nkind = "midjourney"\n')
    told = faults(
        monkeypatch,
        PORT="eighty",
        KLINGEL_PROVIDERS="providers.toml",
        KLINGEL_ROLES="web",
        KLINGEL_SANDBOX_FAULTS="slow,slwo",
    )
    whole = "\n".join(told)
    for variable in ("KLINGEL_PORT", "KLINGEL_PROVIDERS", "KLINGEL_ROLES", "KLINGEL_SANDBOX_FAULTS"):
        assert f"  {variable}: " in whole
    assert ["[a]" in whole, "[b]" in whole] == [True, True]
    assert "there is no slwo. There are: slow, " in whole


def test_a_file_and_a_provider_of_the_settings_do_not_go_together(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "providers.toml").write_text('[a]\nkind = "sandbox"\n')
    [told] = faults(monkeypatch, KLINGEL_PROVIDERS="providers.toml", KLINGEL_PROVIDER="sandbox")
    assert "leave out KLINGEL_PROVIDER and KLINGEL_PROVIDER_URL" in told
    monkeypatch.delenv("KLINGEL_PROVIDER")
    assert load(monkeypatch, KLINGEL_PROVIDERS="providers.toml").providers == Path("providers.toml")


def test_keys_in_the_file_of_providers_may_stand_in_dotenv(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "providers.toml").write_text('[a]\nkind = "kling"\nkey_env = "TOKYO_KEY"\n')
    assert "TOKYO_KEY" in "".join(faults(monkeypatch, KLINGEL_PROVIDERS="providers.toml"))
    (tmp_path / ".env").write_text("TOKYO_KEY=access:secret\n")
    load(monkeypatch, KLINGEL_PROVIDERS="providers.toml")


@pytest.mark.parametrize(("roles", "missing"), [("web", "dispatch"), ("dispatch", "web")])
def test_a_role_that_nobody_could_take_is_refused(
    monkeypatch: pytest.MonkeyPatch, roles: str, missing: str
) -> None:
    """A SQLite file has one process: what that leaves undone is stored and never sent."""
    [told] = faults(monkeypatch, KLINGEL_ROLES=roles)
    assert told.startswith(f"  KLINGEL_ROLES: leaves {missing} to another process")
    assert told.endswith("set it to web,dispatch")
    load(monkeypatch, KLINGEL_ROLES="dispatch,web")


@pytest.mark.parametrize("roles", ["web", "dispatch", "web,dispatch"])
def test_processes_on_postgresql_may_share_the_roles(monkeypatch: pytest.MonkeyPatch, roles: str) -> None:
    settings = load(
        monkeypatch,
        KLINGEL_DATABASE_URL=POSTGRES,
        KLINGEL_ROLES=roles,
        KLINGEL_PUBLIC_URL="https://klingel.example.com",
    )
    assert settings.database_at == POSTGRES


def test_who_only_dispatches_must_be_told_where_callbacks_come_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would else name its own address to the provider, where nothing is taken in."""
    [told] = faults(monkeypatch, KLINGEL_DATABASE_URL=POSTGRES, KLINGEL_ROLES="dispatch")
    assert "set KLINGEL_PUBLIC_URL" in told
    load(monkeypatch, KLINGEL_DATABASE_URL=POSTGRES, KLINGEL_ROLES="web")


def test_a_faulty_setting_is_not_held_against_others(monkeypatch: pytest.MonkeyPatch) -> None:
    [told] = faults(monkeypatch, KLINGEL_DATABASE_URL="mysql://x", KLINGEL_ROLES="web")
    assert told.startswith("  KLINGEL_DATABASE_URL")
    [told] = faults(
        monkeypatch, KLINGEL_DATABASE_URL=POSTGRES, KLINGEL_ROLES="dispatch", KLINGEL_PUBLIC_URL="x"
    )
    assert told.startswith("  KLINGEL_PUBLIC_URL")
