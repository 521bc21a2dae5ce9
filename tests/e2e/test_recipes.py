"""The recipes of the documentation, each run in the tool that it is for."""

import json
import secrets
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess
from types import MappingProxyType
from typing import Any, Final

import httpx
import pytest

from service.domain.signatures import sign
from service.domain.times import utc_now
from tests.e2e.parties import Klingel, running_klingel
from tests.e2e.processes import PATIENCE_S, ROOT, run, running, until
from tests.ports import free_port
from tests.tools import node_package, program

RECIPES = ROOT / "docs" / "recipes"


def test_node_red_makes_pictures_then_a_film_of_them_and_believes_nobody_else(tmp_path: Path) -> None:
    node, node_red = program("node"), node_package("node-red") / "red.js"
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    settings = {"uiHost": "127.0.0.1", "uiPort": port, "flowFile": "flows.json"}
    (tmp_path / "settings.js").write_text(f"module.exports = {json.dumps(settings)};")
    (tmp_path / "flows.json").write_bytes((RECIPES / "node-red-flow.json").read_bytes())
    with running_klingel(
        tmp_path, PORT="0", KLINGEL_ALLOW_NETWORKS="127.0.0.0/8", KLINGEL_SANDBOX_STEP="0.1"
    ) as klingel:
        environment = {
            "KLINGEL_URL": klingel.url,
            "KLINGEL_API_KEY": klingel.key,
            "KLINGEL_WEBHOOK_SECRET": "whsec_" + b64encode(secrets.token_bytes(32)).decode(),
            "NODE_RED_URL": origin,
        }
        command = (node, node_red, "--userDir", tmp_path, "--settings", tmp_path / "settings.js")
        with running(*command, folder=tmp_path, environment=environment) as flow:
            flow.says("Started flows")
            forged = httpx.post(
                f"{origin}/klingel", json={"type": "task.succeeded"}, timeout=PATIENCE_S, trust_env=False
            )
            assert forged.status_code == 401

            httpx.post(f"{origin}/inject/begin", timeout=PATIENCE_S, trust_env=False).raise_for_status()

            until(
                lambda: httpx.get(f"{origin}/film", timeout=PATIENCE_S, trust_env=False).content,
                "a film in Node-RED",
            )
            film = httpx.get(f"{origin}/film", timeout=PATIENCE_S, trust_env=False).json()
        pictures = klingel.task(film["metadata"]["pictures"])
        assert [output["kind"] for output in film["outputs"]] == ["video"]
        assert klingel.task(film["id"])["input"]["image_list"] == [
            {"image": output["url"]} for output in pictures["outputs"]
        ]
        assert status_queries(klingel) == 0


NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
CASES = [
    pytest.param({}, True, id="as it came"),
    pytest.param({"body": '{"type":"task.failed"}'}, False, id="another body"),
    pytest.param({"id": "evt_2"}, False, id="another id"),
    pytest.param({"signature": "v1,AAAA"}, False, id="no signature of ours"),
]


@pytest.mark.parametrize(("forged", "is_believed"), CASES)
@pytest.mark.parametrize("tool", ["n8n", "zapier"])
def test_a_recipes_signature_check_believes_klingel_alone(
    tmp_path: Path, tool: str, forged: dict[str, str], is_believed: bool
) -> None:
    """The code as the recipe has it, with what its tool would give it."""
    event = {"type": "task.succeeded", "data": {"task": {"id": "task_1", "outputs": []}}}
    checked = rung(tmp_path, tool, event, forged)
    assert (checked.returncode == 0) is is_believed, checked.stderr
    assert ("task.succeeded" in checked.stdout) is is_believed


@pytest.mark.parametrize("tool", ["n8n", "zapier"])
def test_a_recipes_code_takes_the_test_event_that_its_tool_learns_from(tmp_path: Path, tool: str) -> None:
    """It is of an endpoint, and has no task."""
    checked = rung(tmp_path, tool, {"type": "endpoint.test", "data": {"endpoint": {"id": "end_1"}}})
    assert checked.returncode == 0, checked.stderr
    assert "endpoint.test" in checked.stdout


def rung(
    folder: Path, tool: str, event: Mapping[str, Any], forged: Mapping[str, str] = NOTHING
) -> CompletedProcess[str]:
    """The recipe's code, run over an event as it comes, but for what is forged of it."""
    secret = "whsec_" + b64encode(secrets.token_bytes(32)).decode()
    body, now = json.dumps(event), utc_now()
    signature = sign(body.encode(), message_id="evt_1", sent_at=now, secrets=[secret])
    given = {"id": "evt_1", "timestamp": str(int(now.timestamp())), "signature": signature, "body": body}
    (folder / "check.cjs").write_text(SURROUNDINGS[tool]({**given, **forged}, secret))
    return run(program("node"), "check.cjs", folder=folder)


def in_n8n(given: dict[str, str], secret: str) -> str:
    nodes = json.loads((RECIPES / "n8n-workflow.json").read_text())["nodes"]
    [code] = [node["parameters"]["jsCode"] for node in nodes if "jsCode" in node["parameters"]]
    headers = {f"webhook-{name}": given[name] for name in ("id", "timestamp", "signature")}
    return f"""
        const $env = {{ KLINGEL_WEBHOOK_SECRET: {json.dumps(secret)} }};
        const $input = {{ all: () => [{{ json: {{ headers: {json.dumps(headers)} }} }}] }};
        const helpers = {{ getBinaryDataBuffer: async () => Buffer.from({json.dumps(given["body"])}) }};
        (async function () {{ {code} }}).call({{ helpers }}).then((items) => console.log(JSON.stringify(items)));
    """


def in_zapier(given: dict[str, str], secret: str) -> str:
    code = (RECIPES / "zapier.md").read_text().split("```js\n", 1)[1].split("```", 1)[0]
    return f"""
        const inputData = {json.dumps({**given, "secret": secret})};
        let output;
        {code}
        console.log(JSON.stringify(output));
    """


SURROUNDINGS = {"n8n": in_n8n, "zapier": in_zapier}


def status_queries(klingel: Klingel) -> float:
    return sum(
        value
        for name, value in klingel.metrics().items()
        if name.startswith("klingel_provider_status_queries_total")
    )
