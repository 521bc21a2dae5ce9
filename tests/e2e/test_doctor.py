"""`klingel doctor`: what it finds, and that a script can tell."""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from tests.e2e.parties import ADMIN_KEY, Klingel, running_klingel
from tests.e2e.processes import PATIENCE_S, run
from tests.ports import free_port
from tests.postgres import Databases

Findings = Mapping[str, Mapping[str, Any]]


class Stranger:
    """Whoever answers where Klingel, or a provider, is thought to be."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []  # method, path, authorization
        self.status = 200
        self.headers: dict[str, str] = {}
        self.date: datetime | None = None
        self.url = ""


@contextmanager
def running_stranger() -> Iterator[Stranger]:
    stranger = Stranger()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            stranger.asked.append((self.command, self.path, self.headers.get("authorization", "")))
            self.send_response(stranger.status)
            for name, value in stranger.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST = answer  # noqa: N815 - as the standard library names them

        def date_time_string(self, timestamp: float | None = None) -> str:
            return format_datetime(stranger.date or datetime.now(UTC), usegmt=True)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    stranger.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield stranger
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    with running_stranger() as stranger:
        yield stranger


def doctor(folder: Path, *options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return run("klingel", "doctor", *options, folder=folder, environment=environment)


def findings(done: "subprocess.CompletedProcess[str]") -> Findings:
    return {one["check"]: one for one in json.loads(done.stdout)["findings"]}


def verdicts(done: "subprocess.CompletedProcess[str]") -> dict[str, str]:
    return {check: one["verdict"] for check, one in findings(done).items()}


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    return {"PORT": str(free_port()), "KLINGEL_API_KEY": ADMIN_KEY}


def test_of_a_klingel_that_is_well_it_finds_nothing_wrong(tmp_path: Path, settings: dict[str, str]) -> None:
    with running_klingel(tmp_path, **settings) as klingel:
        done = doctor(tmp_path, "--json", **settings)
        told = doctor(tmp_path, **settings)
        assert klingel.call("GET", "/tasks")["items"] == []
        counted = [
            count for name, count in klingel.metrics().items() if name.startswith("klingel_callbacks_total")
        ]
        assert set(counted) == {0}  # what Klingel sends to itself is nobody's callback
    assert (done.returncode, told.returncode) == (0, 0), done.stdout
    assert verdicts(done) == {
        "settings": "ok",
        "disk": "ok",
        "fsync": "ok",
        "database": "ok",
        "server": "ok",
        "public URL": "ok",
        "provider key": "unknown",  # the sandbox has none
        "clock": "unknown",
    }
    assert re.search(
        r"^ok +public URL +a callback through \S+ arrived here after \d+ ms$", told.stdout, re.MULTILINE
    )
    assert ADMIN_KEY not in done.stdout + told.stdout
    assert not list(tmp_path.glob(".klingel-doctor-*"))


def test_without_a_server_it_says_how_to_start_one(tmp_path: Path, settings: dict[str, str]) -> None:
    done = doctor(tmp_path, "--json", **settings)
    assert done.returncode == 1
    assert verdicts(done) == {
        "settings": "ok",
        "disk": "ok",
        "fsync": "ok",
        "database": "unknown",
        "server": "fault",
        "public URL": "unknown",
        "provider key": "unknown",
        "clock": "unknown",
    }
    assert "klingel serve" in findings(done)["server"]["remedy"]
    assert list(tmp_path.iterdir()) == []  # it looks, and leaves nothing


def test_every_faulty_setting_is_named(tmp_path: Path) -> None:
    done = doctor(tmp_path, "--json", KLINGEL_PROVIDER="cometapi", KLINGEL_PUBLIC_URL="klingel.example.com")
    assert done.returncode == 1
    assert verdicts(done) == {"settings": "fault"}
    assert "KLINGEL_PUBLIC_URL" in findings(done)["settings"]["detail"]
    assert "KLINGEL_PROVIDER_KEY" in findings(done)["settings"]["detail"]


def test_a_database_that_is_none_is_found(tmp_path: Path, settings: dict[str, str]) -> None:
    (tmp_path / "klingel.db").write_bytes(b"no database" * 1000)
    done = doctor(tmp_path, "--json", **settings)
    assert done.returncode == 1
    assert findings(done)["database"]["verdict"] == "fault"
    assert "backup" in findings(done)["database"]["remedy"]


def public_url(folder: Path, settings: dict[str, str], url: str) -> Mapping[str, Any]:
    told = {**settings, "KLINGEL_PUBLIC_URL": url}
    with running_klingel(folder, **told):
        done = doctor(folder, "--json", **told)
    assert done.returncode == (0 if findings(done)["public URL"]["verdict"] == "ok" else 1)
    return findings(done)["public URL"]


def test_a_public_url_at_which_somebody_else_answers_is_found(
    tmp_path: Path, settings: dict[str, str], stranger: Stranger
) -> None:
    found = public_url(tmp_path, settings, stranger.url)
    assert (found["verdict"], "something else answers there: 200" in found["detail"]) == ("fault", True)
    [(method, path, authorization)] = stranger.asked
    assert re.fullmatch(r"/callbacks/sandbox/task_[0-9a-f]{32}/[\w-]{43}", path)
    assert (method, authorization) == ("POST", "")  # no key goes there
    assert path.rsplit("/", 1)[1] not in found["detail"]


def test_where_klingel_was_told_to_listen_need_not_be_said_again(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    """As after `PORT=8123 make run`, in another terminal."""
    with running_klingel(tmp_path, **settings) as klingel:
        asked = {"KLINGEL_URL": klingel.url, "KLINGEL_API_KEY": klingel.key}
        done = doctor(tmp_path, "--json", **asked)
        differing = doctor(tmp_path, "--json", **asked, KLINGEL_PUBLIC_URL="https://klingel.example.com")
    assert (done.returncode, findings(done)["public URL"]["verdict"]) == (0, "ok"), done.stdout
    assert "https://klingel.example.com" in findings(differing)["public URL"]["detail"]
    assert findings(differing)["public URL"]["verdict"] == "fault"


def test_a_public_url_that_redirects_is_found(
    tmp_path: Path, settings: dict[str, str], stranger: Stranger
) -> None:
    stranger.status, stranger.headers = 301, {"location": "https://elsewhere.example.com/callbacks/secret"}
    found = public_url(tmp_path, settings, stranger.url)
    assert found["verdict"] == "fault"
    assert "redirected to https://elsewhere.example.com," in found["detail"]
    assert "secret" not in found["detail"]


def test_a_public_url_at_which_nobody_answers_is_found(tmp_path: Path, settings: dict[str, str]) -> None:
    found = public_url(tmp_path, settings, f"http://127.0.0.1:{free_port()}")
    assert found["verdict"] == "fault"
    assert "KLINGEL_PUBLIC_URL" in found["remedy"]


def test_a_real_provider_needs_a_public_url(tmp_path: Path, settings: dict[str, str]) -> None:
    done = doctor(tmp_path, "--json", "--no-provider", **settings, COMETAPI_KEY="sk-real")
    assert "which only this machine reaches" in findings(done)["public URL"]["detail"]
    assert findings(done)["provider key"]["verdict"] == "unknown"


def test_a_provider_on_this_machine_needs_none_and_is_not_asked_unless_it_may_be(
    tmp_path: Path, settings: dict[str, str], stranger: Stranger
) -> None:
    local = settings | {"COMETAPI_KEY": "sk-real", "KLINGEL_PROVIDER_URL": stranger.url}
    with running_klingel(tmp_path, **local):
        done = doctor(tmp_path, "--json", "--no-provider", **local)
    assert done.returncode == 0, done.stdout
    assert findings(done)["public URL"]["verdict"] == "ok"
    assert stranger.asked == []


@pytest.mark.parametrize(
    ("status", "verdict"), [(200, "ok"), (401, "fault"), (403, "fault"), (404, "unknown")]
)
def test_the_provider_key_is_tried_by_a_read_that_concerns_no_task(
    tmp_path: Path, settings: dict[str, str], stranger: Stranger, status: int, verdict: str
) -> None:
    stranger.status = status
    real = settings | {"COMETAPI_KEY": "sk-real", "KLINGEL_PROVIDER_URL": stranger.url}
    found = findings(doctor(tmp_path, "--json", **real))
    assert found["provider key"]["verdict"] == verdict
    assert found["clock"]["verdict"] == "ok"
    assert stranger.asked == [("GET", "/v1/models", "Bearer sk-real")]
    assert "sk-real" not in json.dumps(found)


def test_kling_s_own_api_is_asked_for_the_last_day_s_costs(
    tmp_path: Path, settings: dict[str, str], stranger: Stranger
) -> None:
    kling = {"KLINGEL_PROVIDER": "kling", "KLINGEL_PROVIDER_KEY": "access:secret"}
    doctor(tmp_path, "--json", **settings, **kling, KLINGEL_PROVIDER_URL=stranger.url)
    [(method, path, authorization)] = stranger.asked
    query = httpx.URL(path).params
    assert (method, httpx.URL(path).path) == ("GET", "/account/costs")
    assert int(query["end_time"]) - int(query["start_time"]) == 86_400_000
    assert authorization.count(".") == 2  # a signed token


@pytest.mark.parametrize(("off", "word"), [(120, "behind"), (-120, "ahead of")])
def test_a_wrong_clock_is_found(
    tmp_path: Path, settings: dict[str, str], stranger: Stranger, off: int, word: str
) -> None:
    stranger.date = datetime.now(UTC) + timedelta(seconds=off)
    real = settings | {"COMETAPI_KEY": "sk-real", "KLINGEL_PROVIDER_URL": stranger.url}
    clock = findings(doctor(tmp_path, "--json", **real))["clock"]
    assert clock["verdict"] == "fault"
    assert word in clock["detail"]


def test_no_folder_s_file_leads_the_key_to_another_machine(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HOST=192.0.2.1\n")
    done = doctor(tmp_path, "--json", "--no-provider", KLINGEL_API_KEY=ADMIN_KEY, PORT="1")
    assert "no address of this machine" in findings(done)["settings"]["detail"]


def test_a_member_may_not_probe(klingel: Klingel) -> None:
    member = klingel.call("POST", "/keys", {"name": "member", "role": "member"}, answers=201)["key"]
    refused = httpx.post(
        f"{klingel.url}/v1/probe",
        headers={"authorization": f"Bearer {member}"},
        timeout=PATIENCE_S,
        trust_env=False,
    )
    assert refused.status_code == 403


async def test_where_no_process_dispatches_it_says_so(
    tmp_path: Path, settings: dict[str, str], postgres: Databases
) -> None:
    shared = {
        **settings,
        "KLINGEL_DATABASE_URL": await postgres.create(),
        "KLINGEL_SECRET": "a-secret-of-all-the-processes-here",
    }
    with running_klingel(tmp_path, KLINGEL_ROLES="web", **shared):
        found = findings(doctor(tmp_path, "--json", **shared))["processes"]
        assert (found["verdict"], found["detail"].split(",")[0]) == ("fault", "1 shares the database")
        assert "KLINGEL_ROLES=dispatch" in found["remedy"]
        other = shared | {"PORT": str(free_port())}
        with running_klingel(tmp_path, **other):
            assert findings(doctor(tmp_path, "--json", **shared))["processes"]["verdict"] == "ok"
