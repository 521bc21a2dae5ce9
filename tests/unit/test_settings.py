"""`service.settings`: what the operator chooses, and how a wrong choice is said."""

import stat
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from service.domain.errors import ConfigurationError
from service.settings import SECRET_FILE, ProviderName, Role, Settings, load_settings
from storage.opening import open_database
from tests.settings import without_settings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_settings(monkeypatch, tmp_path)


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def faults(monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[str]:
    with pytest.raises(ConfigurationError) as raised:
        load(monkeypatch, **variables)
    first, *others = str(raised.value).splitlines()
    assert first == "Some settings are wrong:"
    return [line.strip() for line in others]


def test_nothing_set_is_a_sandbox_on_this_machine() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.is_local) == ("127.0.0.1", 8000, True)
    assert settings.provider_name is ProviderName.SANDBOX
    assert settings.embeds_sandbox
    assert settings.provider_base_url == "http://127.0.0.1:8000/sandbox"
    assert settings.reachable_url == "http://127.0.0.1:8000"
    assert settings.database_at == Path("klingel.db")
    assert settings.roles == {Role.WEB, Role.DISPATCH}
    assert settings.allow_networks == ()


def test_all_faults_are_said_at_once_each_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    said = faults(
        monkeypatch,
        PORT="eighty",
        KLINGEL_SECRET="short",
        KLINGEL_API_KEY="short",
        KLINGEL_PROVIDER="midjourney",
        KLINGEL_PUBLIC_URL="klingel.example.com",
        KLINGEL_PROVIDER_URL="https://api.example.com?key=1",
        KLINGEL_PROVIDER_WEBHOOK_SECRET="whsec_short",
        KLINGEL_DATABASE_URL="mysql://localhost",
        KLINGEL_SUBMIT_WAIT="-1",
        KLINGEL_ALLOW_NETWORKS="10.0.0.0/8,10.0.0.1/8",
        KLINGEL_ROLES="web,cook",
        KLINGEL_LOG="xml",
    )
    named = {line.split(":")[0] for line in said}
    assert named == {
        "KLINGEL_PORT",
        "KLINGEL_SECRET",
        "KLINGEL_API_KEY",
        "KLINGEL_PROVIDER",
        "KLINGEL_PUBLIC_URL",
        "KLINGEL_PROVIDER_URL",
        "KLINGEL_PROVIDER_WEBHOOK_SECRET",
        "KLINGEL_DATABASE_URL",
        "KLINGEL_SUBMIT_WAIT",
        "KLINGEL_ALLOW_NETWORKS",
        "KLINGEL_ROLES",
        "KLINGEL_LOG",
    }


@pytest.mark.parametrize("url", ["http://x:99999", "http://x:0", "http://x:port", "http://[x", "http://"])
def test_a_url_at_which_nobody_can_be_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    said = faults(monkeypatch, KLINGEL_PUBLIC_URL=url, KLINGEL_PROVIDER_URL=url, KLINGEL_TRACES_URL=url)
    assert [line.partition(":")[0] for line in said] == [
        "KLINGEL_PUBLIC_URL",
        "KLINGEL_PROVIDER_URL",
        "KLINGEL_TRACES_URL",
    ]
    assert all("must be an absolute http(s) URL" in line for line in said)


def test_no_fault_repeats_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    said = faults(
        monkeypatch,
        KLINGEL_SECRET="hunter2",
        KLINGEL_API_KEY="hunter2",
        KLINGEL_PROVIDER_WEBHOOK_SECRET="hunter2",
    )
    assert len(said) == 3
    assert "hunter2" not in "".join(said)


def test_settings_do_not_show_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(
        monkeypatch,
        KLINGEL_SECRET="hidden-hidden-hidden",
        KLINGEL_API_KEY="hidden-hidden-hidden",
        KLINGEL_PROVIDER_KEY="hidden-hidden-hidden",
    )
    assert "hidden" not in repr(settings) + str(settings) + settings.model_dump_json()


# Where they come from


@pytest.mark.parametrize(
    ("variables", "key"),
    [
        ({"COMETAPI_KEY": "sk-1"}, "sk-1"),
        ({"KLINGEL_PROVIDER_KEY": "sk-2"}, "sk-2"),
        ({"COMETAPI_KEY": "sk-1", "KLINGEL_PROVIDER_KEY": "sk-2"}, "sk-2"),
    ],
)
def test_a_key_for_cometapi_makes_it_the_provider(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], key: str
) -> None:
    settings = load(monkeypatch, **variables)
    assert settings.provider_key is not None
    assert settings.provider_key.get_secret_value() == key
    assert settings.provider_name is ProviderName.COMETAPI
    assert settings.provider_base_url == "https://api.cometapi.com"
    assert not settings.embeds_sandbox


@pytest.mark.parametrize("provider", ["cometapi", "kling"])
def test_a_provider_that_costs_money_needs_its_key(monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    [said] = faults(monkeypatch, KLINGEL_PROVIDER=provider)
    assert "KLINGEL_PROVIDER_KEY" in said
    assert "COMETAPI_KEY" in said


def test_a_missing_key_is_told_together_with_other_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    said = faults(monkeypatch, KLINGEL_PROVIDER="kling", PORT="x", KLINGEL_ROLES=",")
    assert [name in " ".join(said) for name in ("KLINGEL_PROVIDER_KEY", "PORT", "KLINGEL_ROLES")] == [
        True
    ] * 3


def test_a_chosen_provider_stands_also_where_a_key_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, COMETAPI_KEY="sk-1", KLINGEL_PROVIDER="sandbox").embeds_sandbox


def test_a_sandbox_somewhere_else_is_not_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, KLINGEL_PROVIDER_URL="http://sandbox.example.com/")
    assert settings.provider_base_url == "http://sandbox.example.com"
    assert not settings.embeds_sandbox


@pytest.mark.parametrize(
    ("variables", "host", "port"),
    [
        ({"PORT": "5000"}, "127.0.0.1", 5000),
        ({"HOST": "0.0.0.0", "PORT": "5000"}, "0.0.0.0", 5000),
        ({"KLINGEL_HOST": "::1", "HOST": "0.0.0.0", "KLINGEL_PORT": "1", "PORT": "2"}, "::1", 1),
    ],
)
def test_host_and_port_are_read_as_procfile_hosts_set_them(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], host: str, port: int
) -> None:
    settings = load(monkeypatch, **variables)
    assert (settings.host, settings.port) == (host, port)


@pytest.mark.parametrize(
    ("host", "url", "local"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000", True),
        ("0.0.0.0", "http://127.0.0.1:8000", False),
        ("::", "http://[::1]:8000", False),
        ("::1", "http://[::1]:8000", True),
        ("2001:db8::1", "http://[2001:db8::1]:8000", False),
        ("klingel.lan", "http://klingel.lan:8000", False),
    ],
)
def test_this_machine_reaches_this_process_wherever_it_listens(
    monkeypatch: pytest.MonkeyPatch, host: str, url: str, local: bool
) -> None:
    settings = load(monkeypatch, HOST=host)
    assert (settings.local_url, settings.is_local) == (url, local)


def test_lists_are_separated_by_commas_and_spaces_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(
        monkeypatch,
        KLINGEL_SECRET="the-new-secret-0123, the-old-secret-0123,",
        KLINGEL_ALLOW_NETWORKS="10.0.0.0/8, ::1/128",
        KLINGEL_ROLES="dispatch",
    )
    assert settings.secrets() == ["the-new-secret-0123", "the-old-secret-0123"]
    assert settings.allow_networks == (ip_network("10.0.0.0/8"), ip_network("::1/128"))
    assert settings.roles == {Role.DISPATCH}


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, KLINGEL_PORT="", KLINGEL_ROLES="", COMETAPI_KEY="", KLINGEL_SECRET="")
    assert (settings.port, settings.provider_name) == (8000, ProviderName.SANDBOX)


def test_roles_that_name_none_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    [said] = faults(monkeypatch, KLINGEL_ROLES=" , ")
    assert "must name web, dispatch, or both" in said


def test_a_dot_env_file_is_read_and_the_environment_goes_before_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("KLINGEL_PORT=1\nCOMETAPI_KEY=sk-1\nSOMETHING_ELSE=x\n")
    settings = load(monkeypatch, KLINGEL_PORT="2")
    assert (settings.port, settings.provider_name) == (2, ProviderName.COMETAPI)


def test_a_dot_env_file_in_another_encoding_is_said(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes("KLINGEL_SECRET=schlüssel-schlüssel\n".encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"\.env is not UTF-8") as told:
        load_settings()
    assert "schl" not in str(told.value)


def test_the_database_stands_in_the_data_directory_unless_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load(monkeypatch, KLINGEL_DATA_DIR="/data").database_at == Path("/data/klingel.db")
    named = load(monkeypatch, KLINGEL_DATA_DIR="/data", KLINGEL_DATABASE_URL="sqlite:////elsewhere/k.db")
    assert named.database_at == Path("/elsewhere/k.db")


# The secret


def settings_in(folder: Path, **more: Any) -> Settings:
    return load_settings(data_dir=folder, **more)


def test_a_secret_is_made_once_for_nobody_else_to_read_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    [made] = settings_in(folder).secrets()
    assert len(made) >= 32
    assert stat.S_IMODE((folder / SECRET_FILE).stat().st_mode) == 0o600
    assert settings_in(folder).secrets() == [made]
    assert [file.name for file in folder.iterdir()] == [SECRET_FILE]


def test_two_folders_have_two_secrets(tmp_path: Path) -> None:
    assert settings_in(tmp_path / "a").secrets() != settings_in(tmp_path / "b").secrets()


def test_a_secret_that_was_half_made_is_made_anew(tmp_path: Path) -> None:
    """The process died before the file had its name."""
    draft = (tmp_path / SECRET_FILE).with_suffix(".new")
    draft.touch(mode=0o600)
    draft.write_text("half")
    [made] = settings_in(tmp_path).secrets()
    assert len(made) >= 32
    assert stat.S_IMODE((tmp_path / SECRET_FILE).stat().st_mode) == 0o600


def test_a_secret_that_is_set_needs_no_file(tmp_path: Path) -> None:
    assert settings_in(tmp_path, secret="set-by-hand-0123456").secrets() == ["set-by-hand-0123456"]
    assert not list(tmp_path.iterdir())


def test_a_damaged_secret_file_is_said_and_never_replaced(tmp_path: Path) -> None:
    """A new secret would make every stored credential unreadable and every callback URL a stranger's."""
    (tmp_path / SECRET_FILE).write_text("\n")
    with pytest.raises(ConfigurationError, match="is damaged: restore it, or set KLINGEL_SECRET"):
        settings_in(tmp_path).secrets()
    assert (tmp_path / SECRET_FILE).read_text() == "\n"


def test_a_data_directory_that_cannot_be_used_is_said_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="KLINGEL_DATA_DIR"):
        settings_in(tmp_path / "file").secrets()


@pytest.mark.parametrize(
    ("url", "kept_at"),
    [
        (None, "file:///srv/klingel%20data/files"),
        ("file:///mnt/kept", "file:///mnt/kept"),
        ("s3://bucket/folder", "s3://bucket/folder"),
        ("gs://bucket", "gs://bucket"),
        ("az://container", "az://container"),
        ("none:", None),
    ],
)
def test_outputs_are_kept_beside_the_database_unless_something_else_is_said(
    monkeypatch: pytest.MonkeyPatch, url: str | None, kept_at: str | None
) -> None:
    named = {} if url is None else {"KLINGEL_STORE_URL": url}
    assert load(monkeypatch, KLINGEL_DATA_DIR="/srv/klingel data", **named).kept_at == kept_at


@pytest.mark.parametrize(
    "url",
    ["files", "/srv/files", "file://files", "file:relative", "s3://", "ftp://host/x", "memory:///", "https://host/x",
     "s3://key:secret@bucket", "s3://bucket?x=1", "none"],
)  # fmt: skip
def test_a_store_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    [said] = faults(monkeypatch, KLINGEL_STORE_URL=url)
    assert "KLINGEL_STORE_URL" in said
    assert "secret" not in said


def test_a_key_of_klingels_own_is_no_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drop-in client has it in its `COMETAPI_KEY`, a name that Klingel reads, too."""
    said = faults(monkeypatch, COMETAPI_KEY="kl_abcdefghijklmnopqrstuvwxyz")
    assert any("is a key of Klingel's own" in line for line in said)


# PostgreSQL

POSTGRES = "postgresql://klingel:correct-horse@db.example.com/klingel"


def test_the_password_in_a_url_is_not_shown_with_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, KLINGEL_DATABASE_URL=POSTGRES)
    assert "correct-horse" not in f"{settings!r} {settings}"
    [said] = faults(monkeypatch, KLINGEL_DATABASE_URL="mysql://klingel:correct-horse@db.example.com/klingel")
    assert "correct-horse" not in said
    assert "postgresql://user:password@host/database" in said


@pytest.mark.parametrize(
    "where",
    [
        "klingel:s3cretXYZ/more@127.0.0.1",
        "klingel:1234/more@127.0.0.1",
        "klingel:s3cretXYZ#more@127.0.0.1",
        "klingel:1234#more@127.0.0.1",
        "klingel:s3cretXYZ?more@127.0.0.1",
        "klingel:s3cret@XYZ@127.0.0.1",
        "klingel:s[3c@127.0.0.1",
        "klingel:s3c]@127.0.0.1",
        "klingel:s3cret@127.0.0.1:99999",
        "klingel:s3cret@127.0.0.1:0",
        "klingel:s3cret@127.0.0.1:s3cret",
        "klingel:s3cret@one,,two",
    ],
)
def test_a_password_that_is_not_encoded_is_said_and_no_part_of_it(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    [said] = faults(monkeypatch, KLINGEL_DATABASE_URL=f"postgresql://{where}/klingel")
    assert "KLINGEL_DATABASE_URL: must be postgresql://user:password@host:port/database" in said
    assert "percent-encoded" in said
    assert not any(part in said for part in ("s3c", "XYZ", "more", "1234", "s["))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://klingel:s3cret%2FXYZ%40:!$&@db.example.com:5433/klingel?sslmode=verify-full",
        "postgres://klingel@one:5432,two:5433,[::1]:5434/klingel?target_session_attrs=primary",
        "postgresql://klingel@/db?host=/run/postgresql&password=p",
        "postgresql://klingel@%2Frun%2Fpostgresql/db",
        "postgresql:///db?user=me@tenant",
        "postgresql://",
    ],
)
def test_every_place_that_postgresql_may_be_at_can_be_named(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    assert load(monkeypatch, KLINGEL_DATABASE_URL=url).database_at == url


def test_processes_on_postgresql_do_not_each_make_a_secret_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"needs the same secret.*KLINGEL_SECRET"):
        load(monkeypatch, KLINGEL_DATABASE_URL=POSTGRES, KLINGEL_DATA_DIR=str(tmp_path)).secrets()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "klingel.secret").write_text("a-secret-that-all-machines-see\n")
    shared = load(monkeypatch, KLINGEL_DATABASE_URL=POSTGRES, KLINGEL_DATA_DIR=str(tmp_path))
    assert shared.secrets() == ["a-secret-that-all-machines-see"]
    named = load(monkeypatch, KLINGEL_DATABASE_URL=POSTGRES, KLINGEL_SECRET="a-secret-0123456789")
    assert named.secrets() == ["a-secret-0123456789"]


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "storage.postgres", raising=False)
    monkeypatch.delattr("storage.postgres", raising=False)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'klingel\[postgres\]'"):
        open_database(POSTGRES)
