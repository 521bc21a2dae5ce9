"""The documentation as it is written: its commands run, its code believes Klingel alone, its links lead somewhere."""

import json
import re
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from service.cli import main
from service.cli.session import Exit
from service.domain.lifecycle import TRANSITIONS
from service.domain.signatures import public_key, sign, sign_publicly
from service.domain.times import utc_now
from tests.e2e.parties import Klingel, running_klingel
from tests.e2e.processes import BIN, ROOT, run
from tests.ports import free_port
from tests.tools import program

DOCS: Final = ROOT / "docs"
# Each of their code blocks says what becomes of it here.
PAGES: Final = (
    "index.md", "start.md", "going-live.md", "concepts.md", "sinks.md", "endpoints.md", "command-line.md",
    "operations.md", "api.md", "faq.md", "providers.md", "usage.md",
)  # fmt: skip
CODE: Final = frozenset({"sh", "python", "js", "go", "php", "ruby", "java", "csharp"})
BLOCK: Final = re.compile(r"(?:^<!-- (.+?) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    mark: str  # what its comment says: `run`, `run: prints <pattern>`, `verify: <language>`, `not run: <why>`
    language: str
    code: str


def blocks(page: str) -> Sequence[Block]:
    return [Block(*groups) for groups in BLOCK.findall((DOCS / page).read_text())]


@pytest.mark.parametrize("page", PAGES)
def test_each_code_block_says_whether_it_is_run_and_if_not_why(page: str) -> None:
    for block in blocks(page):
        if block.language in CODE:
            assert re.fullmatch(r"run(: prints .+)?|verify: \w+|not run: .{10,}", block.mark), block


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.mark.startswith("run") for b in blocks(page))]
)
def test_the_commands_of_a_page_run_one_after_the_other(tmp_path: Path, page: str) -> None:
    """In one shell, beside a Klingel of their own; with its ports and its key in place of those of the page."""
    wanted = [block for block in blocks(page) if block.mark.startswith("run")]
    script = ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for number, block in enumerate(wanted):
        script.append(f"printf '\\n--- {number}\\n'")
        if block.language == "python":
            (tmp_path / f"block-{number}.py").write_text(block.code)
            script.append(f"python3 block-{number}.py")
        else:
            script.append(block.code)
    # As `make run` has it, which the first page begins with.
    told = {"KLINGEL_ALLOW_NETWORKS": "127.0.0.0/8", "KLINGEL_SANDBOX_STEP": "0.1", "PORT": str(free_port())}
    with running_klingel(tmp_path, **told) as klingel:
        text = "\n".join(script).replace("kl_...", klingel.key).replace("8000", told["PORT"])
        (tmp_path / "page.sh").write_text(re.sub(r"\b900[01]\b", str(free_port()), text))
        done = run("bash", "page.sh", folder=tmp_path, environment={**klingel.environment, **told})
    assert done.returncode == 0, done.stdout + done.stderr
    printed = re.split(r"^--- \d+\n", done.stdout, flags=re.MULTILINE)[1:]
    assert len(printed) == len(wanted)
    for block, out in zip(wanted, printed, strict=True):
        if pattern := block.mark.partition("prints ")[2]:
            assert re.search(pattern, out), (block.code, out, done.stderr)
    if "backup.db" in text:
        assert restored(tmp_path)


def restored(folder: Path) -> bool:
    """Whether a Klingel that starts from the backup knows the key of the one before."""
    for old in folder.glob("klingel.db*"):
        old.unlink()
    (folder / "backup.db").rename(folder / "klingel.db")
    with running_klingel(folder, PORT="0") as klingel:
        listed: list[Any] = klingel.call("GET", "/keys")["items"]
    return len(listed) == 1


# Around the code of the page: reads a webhook from webhook.json, and ends with 0 if it is believed, with 1 if not.
PYTHON: Final = """
import json, sys
given = json.load(open("webhook.json"))
sys.exit(0 if verified(given["secret"], given["headers"], given["body"].encode()) else 1)
"""
NODE: Final = """
const given = JSON.parse(require("node:fs").readFileSync("webhook.json"));
process.exit(verified(given.secret, given.headers, Buffer.from(given.body)) ? 0 : 1);
"""
GO: Final = """
func main() {
	var given struct { Secret, Body string; Headers map[string]string }
	raw, _ := os.ReadFile("webhook.json")
	if json.Unmarshal(raw, &given) != nil { os.Exit(2) }
	headers := http.Header{}
	for name, value := range given.Headers { headers.Set(name, value) }
	if !verified(given.Secret, headers, []byte(given.Body)) { os.Exit(1) }
}
"""
PHP: Final = """
$given = json_decode(file_get_contents('webhook.json'), true);
exit(verified($given['secret'], $given['headers'], $given['body']) ? 0 : 1);
"""
RUBY: Final = """
require "json"
given = JSON.parse(File.read("webhook.json"))
exit(verified(given["secret"], given["headers"], given["body"]) ? 0 : 1)
"""
JAVA: Final = """
class Main {
    public static void main(String[] given) throws Exception {
        var headers = new java.util.HashMap<String, String>();
        for (int at = 2; at < given.length; at += 2) headers.put(given[at], given[at + 1]);
        System.exit(Webhooks.verified(given[0], headers, given[1].getBytes()) ? 0 : 1);
    }
}
"""
Verifier = Callable[[Mapping[str, Any]], int]  # the exit code


def verifier(language: str, code: str, folder: Path) -> Verifier:
    def write(name: str, text: str) -> Path:
        (folder / name).write_text(text)
        return folder / name

    def interpreted(*command: str | Path) -> Verifier:
        def judge(given: Mapping[str, Any]) -> int:
            write("webhook.json", json.dumps(given))
            return exit_code(command, folder)

        return judge

    match language:
        case "python" | "v1a":
            return interpreted(BIN / "python", write("check.py", code + PYTHON))
        case "node":
            return interpreted(program("node"), write("check.cjs", code + NODE))
        case "php":
            return interpreted(program("php"), write("check.php", f"<?php\n{code}{PHP}"))
        case "ruby":
            return interpreted(program("ruby"), write("check.rb", code + RUBY))
        case "go":
            more = code.replace("import (", 'import (\n"encoding/json"\n"os"', 1)
            source = write("check.go", f"package main\n{more}{GO}")
            built = {"GOCACHE": str(folder / "cache"), "GOFLAGS": "-mod=mod", "GO111MODULE": "off"}
            done = run(program("go"), "build", "-o", "check", source, folder=folder, environment=built)
            assert done.returncode == 0, done.stderr
            return interpreted(folder / "check")
        case "java":
            program("javac")
            done = run("javac", "-d", folder, write("Main.java", code + JAVA), folder=folder)
            assert done.returncode == 0, done.stderr

            def java(given: Mapping[str, Any]) -> int:
                words = [word for pair in given["headers"].items() for word in pair]
                return exit_code(
                    ("java", "-cp", folder, "Main", given["secret"], given["body"], *words), folder
                )

            return java
    raise AssertionError(language)


def exit_code(command: Sequence[str | Path], folder: Path) -> int:
    done = run(*command, folder=folder)
    assert done.returncode in {0, 1}, done.stderr
    return done.returncode


def test_every_language_of_the_page_is_tried() -> None:
    marked = {
        block.mark.removeprefix("verify: ") for block in blocks("endpoints.md") if "verify" in block.mark
    }
    assert marked == {"python", "node", "go", "php", "ruby", "java", "v1a"}


@pytest.mark.parametrize("language", ["python", "node", "go", "php", "ruby", "java", "v1a"])
def test_the_signature_check_of_a_page_believes_klingel_alone(tmp_path: Path, language: str) -> None:
    [code] = [block.code for block in blocks("endpoints.md") if block.mark == f"verify: {language}"]
    judge = verifier(language, code, tmp_path)
    signer, key_of = (sign_publicly, public_key) if language == "v1a" else (sign, str)
    secret, former, foreign = (f"whsec_{b64encode(bytes([n]) * 32).decode()}" for n in (1, 2, 251))
    body = '{"type":"task.succeeded","data":{"prompt":"Zwölf Boxkämpfer 猫"}}'

    def webhook(sent_at: datetime, secrets: Sequence[str], **changes: str) -> dict[str, Any]:
        headers = {
            "webhook-id": "evt_1",
            "webhook-timestamp": str(int(sent_at.timestamp())),
            "webhook-signature": signer(body.encode(), message_id="evt_1", sent_at=sent_at, secrets=secrets),
        }
        given = {"secret": key_of(secret), "body": changes.pop("body", body)}
        return given | {"headers": headers | {name.replace("_", "-"): text for name, text in changes.items()}}

    now = utc_now()
    assert judge(webhook(now, [secret])) == 0
    assert judge(webhook(now, [former, secret])) == 0  # while a secret is being rotated
    assert judge(webhook(now, [foreign])) == 1
    assert judge(webhook(now, [secret], body=body + " ")) == 1
    assert judge(webhook(now, [secret], webhook_id="evt_2")) == 1
    assert judge(webhook(now - timedelta(minutes=6), [secret])) == 1
    assert judge(webhook(utc_now() + timedelta(minutes=6), [secret])) == 1
    assert judge(webhook(now, [secret], webhook_signature="v1,")) == 1
    assert judge(webhook(now, [secret], webhook_signature="v1a,")) == 1
    assert judge(webhook(now, [secret], webhook_signature="")) == 1
    assert judge(webhook(now, [secret], webhook_timestamp="now")) == 1


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Strict: a dead link, a dead anchor, or a page that is in no menu ends the build."""
    folder = tmp_path_factory.mktemp("site")
    built = run(BIN / "properdocs", "build", "--strict", "--site-dir", folder, folder=ROOT)
    assert built.returncode == 0, built.stderr
    return folder


def test_every_link_resolves_and_every_page_is_in_the_navigation(site: Path) -> None:
    pages = {path.relative_to(DOCS).with_suffix("") for path in DOCS.rglob("*.md")}
    front = (site / "index.html").read_text()
    for page in pages - {Path("index")}:
        where = page.parent if page.name == "README" else page
        assert (site / where / "index.html").exists(), page
        assert f'href="{where.as_posix()}/"' in front, page


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md"])
def test_the_links_of_the_front_pages_resolve(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_site_shows_nothing_from_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link|iframe|source)\b[^>]*?(?:src|href)="([^"]+)"', page.read_text()
        )
        assert [url for url in loaded if urlsplit(url).netloc] == []
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", style.read_text())


def test_the_drawing_has_every_transition(site: Path) -> None:
    drawn = re.search(r"<title>States of a task: (.*?)</title>", (site / "states" / "index.html").read_text())
    assert drawn is not None
    told = {
        (before, signal, after)
        for before, after, signals in re.findall(r"(\w+) to (\w+): ([^;]+)", drawn[1])
        for signal in signals.split(", ")
    }
    assert told == {(str(before), str(signal), str(after)) for (before, signal), after in TRANSITIONS.items()}


def test_what_is_watched_is_measured(klingel: Klingel) -> None:
    """Each metric in the alert rules and on the dashboard is one that Klingel has."""
    text = klingel.http.get("/metrics").text
    families = re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE)
    there = {name for name, _ in families}
    there |= {
        name + end for name, kind in families if kind == "histogram" for end in ("_bucket", "_count", "_sum")
    }
    for file in ("alerts.yml", "grafana-dashboard.json"):
        named = set(re.findall(r"\bklingel_[a-z_]+", (DOCS / "monitoring" / file).read_text()))
        assert len(named) > 5
        assert named - there == set()
    assert set(re.findall(r"`(klingel_[a-z_]+)", (DOCS / "operations.md").read_text())) - there == set()


def test_prometheus_takes_the_alert_rules(tmp_path: Path) -> None:
    checked = run(program("promtool"), "check", "rules", DOCS / "monitoring" / "alerts.yml", folder=tmp_path)
    assert checked.returncode == 0, checked.stderr


# What a Klingel measures minute by minute, and which alerts that is.
WELL: Final = {
    'up{job="klingel"}': "1+0x200",
    'klingel_tasks{job="klingel",status="submitted"}': "2+0x200",
    'klingel_callbacks_total{job="klingel",verdict="advanced"}': "0+1x200",
    'klingel_callbacks_total{job="klingel",verdict="forged"}': "0+0x200",
    'klingel_oldest_due_delivery_seconds{job="klingel"}': "2+0x200",
    'klingel_dead_letters{job="klingel"}': "3+0x200",
    'klingel_provider_calls_total{job="klingel",kind="create",outcome="accepted"}': "0+1x200",
    'klingel_provider_calls_total{job="klingel",kind="create",outcome="refused"}': "0+0x200",
    'klingel_provider_calls_total{job="klingel",kind="create",outcome="unknown"}': "0+0x200",
    'klingel_commit_seconds_bucket{job="klingel",le="0.25"}': "0+60x200",
    'klingel_commit_seconds_bucket{job="klingel",le="1"}': "0+60x200",
    'klingel_commit_seconds_bucket{job="klingel",le="+Inf"}': "0+60x200",
}
ILLS: Final[Mapping[str, Mapping[str, str]]] = {
    "KlingelDown": {'up{job="klingel"}': "0+0x200"},
    "KlingelDeliveriesLate": {'klingel_oldest_due_delivery_seconds{job="klingel"}': "400+0x200"},
    "KlingelDeadLetters": {'klingel_dead_letters{job="klingel"}': "3+1x200"},
    "KlingelProviderUnclear": {
        'klingel_provider_calls_total{job="klingel",kind="create",outcome="unknown"}': "0+1x200"
    },
    "KlingelProviderRefuses": {
        'klingel_provider_calls_total{job="klingel",kind="create",outcome="refused"}': "0+1x200",
        'klingel_provider_calls_total{job="klingel",kind="create",outcome="accepted"}': "7+0x200",
    },
    "KlingelNoCallbacks": {'klingel_callbacks_total{job="klingel",verdict="advanced"}': "9+0x200"},
    "KlingelForgedCallbacks": {'klingel_callbacks_total{job="klingel",verdict="forged"}': "0+1x200"},
    "KlingelDiskSlow": {'klingel_commit_seconds_bucket{job="klingel",le="0.25"}': "0+30x200"},
}


@pytest.mark.parametrize("ill", [None, *ILLS])
def test_each_alert_tells_of_its_ill_and_none_of_a_klingel_that_is_well(
    tmp_path: Path, ill: str | None
) -> None:
    series = {**WELL, **({} if ill is None else ILLS[ill])}
    case = {
        "rule_files": [str(DOCS / "monitoring" / "alerts.yml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": "190m",
                        "exp_samples": []
                        if ill is None
                        else [{"labels": f'{{alertname="{ill}"}}', "value": 1}],
                    }
                ],
            }
        ],
    }
    (tmp_path / "case.yml").write_text(json.dumps(case))  # JSON is YAML
    tested = run(program("promtool"), "test", "rules", tmp_path / "case.yml", folder=tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_the_dashboard_is_one_that_grafana_can_import() -> None:
    dashboard = json.loads((DOCS / "monitoring" / "grafana-dashboard.json").read_text())
    assert dashboard["schemaVersion"] >= 30
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)) >= 8
    for panel in dashboard["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"  # the one that is chosen at the import
        assert all(target["expr"].count("(") == target["expr"].count(")") for target in panel["targets"])


def test_the_exit_codes_are_those_of_the_command() -> None:
    rows = re.findall(r"^\| (\d+) \| ", (DOCS / "command-line.md").read_text(), re.MULTILINE)
    assert {int(code) for code in rows} == {int(code) for code in Exit}
    told = run("klingel", "--help", folder=ROOT).stdout
    for code in rows:
        assert re.search(rf"^ *{code} +\w", told, re.MULTILINE)


def test_every_command_is_on_the_page_and_has_an_example(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = run("klingel", "--help", folder=tmp_path, environment={"COLUMNS": "200"}).stdout
    commands = set(re.findall(r"^│ ([a-z]+) ", told, re.MULTILINE))
    page = (DOCS / "command-line.md").read_text()
    assert len(commands) > 12
    for command in commands:
        assert re.search(rf"`{command}\b", page), command
        assert main([command, "--help"]) == 0  # here: a process of its own would take a second for each
        assert "Examples" in capsys.readouterr().out, command


def test_completion_completes(tmp_path: Path) -> None:
    """As bash asks for it, once it was installed."""
    installed = run("klingel", "--install-completion", folder=tmp_path, environment={"SHELL": "/bin/bash"})
    assert installed.returncode == 0, installed.stderr
    [script] = [path for path in tmp_path.rglob("*klingel*") if path.is_file()]
    asks = (
        f"source {script}; COMP_WORDS=(klingel endp); COMP_CWORD=1; COMP_LINE='klingel endp'; COMP_POINT=12; "
        "$(complete -p klingel | sed -E 's/.*-F ([^ ]+).*/\\1/') klingel endp klingel; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        [str(shutil.which("bash")), "-c", asks], capture_output=True, text=True, check=False, timeout=90
    )
    assert "endpoints" in done.stdout.split(), done.stderr
