"""The `klingel` command, against a server that is played at the HTTP transport."""

import base64
import io
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from rich.console import Console

from service.cli import main
from service.cli.session import Session

TASK: dict[str, Any] = {
    "id": "task_1",
    "type": "kling.multi-image-to-video",
    "status": "queued",
    "provider": "sandbox",
    "provider_task_id": None,
    "external_task_id": "task_1",
    "metadata": {},
    "parent_id": None,
    "outputs": [],
    "error": None,
    "created_at": "2020-11-22T05:30:00.000Z",
    "updated_at": "2020-11-22T05:30:00.000Z",
    "submitted_at": None,
    "finished_at": None,
    "deadline_at": "2020-11-22T06:30:00.000Z",
    "overdue_at": None,
}
SUBMITTED = TASK | {"status": "submitted"}
SUCCEEDED = TASK | {
    "status": "succeeded",
    "finished_at": "2020-11-22T05:32:04.000Z",
    "outputs": [
        {"kind": "video", "index": 0, "url": "https://cdn.test/a.mp4?sig=1&x=[b]", "duration_s": 5.0},
        {
            "kind": "video",
            "index": 1,
            "url": "https://cdn.test/b.mp4",
            "stored_url": "http://k.test/v1/files/b.mp4",
        },
    ],
}
FAILED = TASK | {"status": "failed", "error": {"code": "1301", "message": "\x1b[2Jrisk [bold]control"}}
ENDPOINT = {
    "id": "end_1",
    "kind": "webhook",
    "config": {"url": "https://hooks.test/a"},
    "types": ["task.*"],
    "filter": None,
    "description": None,
    "enabled": True,
}
NOT_FOUND = {"type": "/problems/not-found", "title": "Not found", "status": 404, "detail": "No such thing."}
EMPTY: dict[str, Any] = {"items": [], "next_cursor": None}


def event(number: int, task: dict[str, Any], kind: str | None = None) -> dict[str, Any]:
    return {
        "id": f"evt_{number}",
        "type": kind or f"task.{task['status']}",
        "timestamp": f"2020-11-22T05:30:0{number}.000Z",
        "sequence": number,
        "data": {
            "task": task,
            "transition": {"from": "queued", "to": task["status"], "at": "2020-11-22T05:30:00Z"},
        },
    }


def stream(*events: dict[str, Any]) -> httpx.Response:
    frames = (f"id: {one['id']}\nevent: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events)
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, text="".join(frames))


@dataclass
class Run:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.out.splitlines()]

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Klingel:
    """The server as the command meets it: answers queue up per call, and every request is kept."""

    answers: dict[str, list[httpx.Response | BaseException]] = field(default_factory=dict)
    requests: list[httpx.Request] = field(default_factory=list)
    environ: dict[str, str] = field(
        default_factory=lambda: {"KLINGEL_API_KEY": "kl_1", "KLINGEL_URL": "http://k.test"}
    )

    def on(self, call: str, *answers: object, status: int = 200) -> None:
        """`call` is e.g. `GET /v1/tasks`; what is neither answer nor exception is sent as JSON."""
        ready = (httpx.Response, BaseException)
        self.answers.setdefault(call, []).extend(
            one if isinstance(one, ready) else httpx.Response(status, json=one) for one in answers
        )

    def run(self, *tokens: str, terminal: bool = False) -> Run:
        out, err = io.StringIO(), io.StringIO()
        code = main(
            tokens,
            session=Session(
                environ=self.environ,
                out=Console(file=out, force_terminal=terminal, width=60, highlight=False),
                err=Console(file=err, force_terminal=terminal, width=60, highlight=False),
                transport=httpx.MockTransport(self._answer),
                sleep=lambda _: None,
            ),
        )
        return Run(code, out.getvalue(), err.getvalue())

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers[f"{request.method} {request.url.path}"].pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    @property
    def asked(self) -> list[str]:
        return [f"{one.method} {one.url.raw_path.decode()}" for one in self.requests]

    @property
    def body(self) -> Any:
        return json.loads(self.requests[0].content)


@pytest.fixture
def klingel() -> Iterator[Klingel]:
    server = Klingel()
    yield server
    assert not any(server.answers.values()), "an answer was not asked for"


@pytest.fixture(autouse=True)
def in_berlin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# The command as a whole


def test_help_tells_the_exit_codes_and_where_the_server_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for word in ("Exit codes", "130", "KLINGEL_URL", "KLINGEL_API_KEY", "submit", "serve", "--version"):
        assert word in shown


@pytest.mark.parametrize(
    "command", ["submit", "watch", "tasks", "events", "endpoints", "deliveries", "bots", "keys", "usage"]
)
def test_each_client_command_s_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"klingel {command} " in capsys.readouterr().out.partition("Examples")[2]


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("0.")


@pytest.mark.parametrize(
    "tokens",
    [
        ["no-such"],
        ["tasks", "no-such"],
        ["tasks", "show"],
        ["tasks", "--status", "done"],
        ["submit", "--image", "a.png"],
        ["submit", "--type", "video", "--n", "two"],
        ["submit", "--type", "video", "--n", "2.5"],
        ["events", "--limit", "2.5"],
        ["endpoints", "update", "end_1", "--rate-per-minute", "0.5"],
        ["endpoints", "update", "end_1", "--rate-per-minute", "0x10"],
        ["bots", "update", "bot_1", "--open-tasks", "-1"],
        ["endpoints", "replay", "end_1"],
        ["keys", "create", "--name", "x", "--role", "owner"],
    ],
)
def test_a_wrong_command_line_ends_with_2_and_says_why(
    tokens: list[str], klingel: Klingel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert klingel.run(*tokens).code == 2
    assert "Error" in capsys.readouterr().err
    assert klingel.requests == []


def test_without_a_key_nothing_is_asked(klingel: Klingel) -> None:
    klingel.environ.clear()
    run = klingel.run("tasks")
    assert (run.code, run.out) == (2, "")
    assert "KLINGEL_API_KEY" in run.err


def test_a_server_that_cannot_be_reached_ends_with_4(klingel: Klingel) -> None:
    klingel.on("GET /v1/tasks", httpx.ConnectError("Connection refused"))
    run = klingel.run("tasks", "--json")
    assert (run.code, run.out) == (4, "")
    assert run.err == "Cannot reach http://k.test: Connection refused\n"


def test_a_problem_is_shown_with_every_fault_and_ends_with_3(klingel: Klingel) -> None:
    problem = {
        "type": "/problems/invalid-body",
        "title": "Unprocessable",
        "status": 422,
        "detail": "The body has 2 faults.\x1b[2J",
        "request_id": "req_1",
        "errors": [
            {"detail": "needs 2 to 4 images", "pointer": "#/input/image_list"},
            {"detail": "is no [such] model", "pointer": "#/input/model_name"},
        ],
    }
    klingel.on("POST /v1/tasks", problem, status=422)
    run = klingel.run("submit", "--type", "video")
    assert (run.code, run.out) == (3, "")
    assert run.err.splitlines() == [
        "Unprocessable (422 invalid-body)",
        "The body has 2 faults.\ufffd[2J",
        "  #/input/image_list  needs 2 to 4 images",
        "  #/input/model_name  is no [such] model",
        "  request_id: req_1",
    ]


@pytest.mark.parametrize(
    ("command", "call"),
    [
        ("tasks", "GET /v1/tasks"),
        ("tasks show x", "GET /v1/tasks/x"),
        ("events --follow", "GET /v1/events"),
        ("usage", "GET /v1/usage"),
        ("prune", "POST /v1/prune"),
    ],
)
def test_a_program_gets_the_problem_as_the_api_answered_it(klingel: Klingel, command: str, call: str) -> None:
    klingel.on(call, NOT_FOUND, status=404)
    run = klingel.run(*command.split(), "--json")
    assert (run.code, run.json) == (3, NOT_FOUND)
    assert run.out.count("\n") == 1
    assert run.err.startswith("Not found (404 not-found)")


def test_an_answer_of_somebody_else_s_is_called_that(klingel: Klingel) -> None:
    klingel.on("GET /v1/tasks", httpx.Response(502, html="<h1>Bad gateway</h1>"))
    run = klingel.run("tasks")
    assert (run.code, run.out) == (3, "")
    assert run.err.startswith("Bad Gateway (502)\nThis is not an answer of Klingel's")


def test_ctrl_c_ends_with_130(klingel: Klingel) -> None:
    klingel.on("GET /v1/tasks", KeyboardInterrupt())
    assert klingel.run("tasks").code == 130


def test_completion_knows_the_commands_and_choices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # it adds a line to the shell's start file
    assert main(["--install-completion", "--shell", "bash", "--output", "done.bash"]) == 0
    script = Path("done.bash").read_text()
    assert "unconfirmed" in script
    assert "rotate-secret" in script
    assert "done.bash" in (tmp_path / ".bashrc").read_text()


# submit


def test_a_video_is_submitted_with_files_urls_and_flags(klingel: Klingel) -> None:
    Path("a.png").write_bytes(b"\x89PNG a")
    Path("mask.png").write_bytes(b"\x89PNG mask")
    klingel.on("POST /v1/tasks", SUBMITTED, status=201)
    run = klingel.run(
        "submit", "--type", "video", "--image", "a.png", "--image", "HTTPS://example.com/b.png",
        "--prompt", "They meet", "--negative-prompt", "rain", "--model", "kling-v1-6", "--mode", "pro",
        "--duration", "10", "--aspect-ratio", "1:1", "--cfg-scale", "0", "--static-mask", "mask.png",
        "--external-task-id", "mine-1", "--metadata", "order=12=3", "--metadata", "shop=", "--deadline", "90",
        "--callback-url", "https://hooks.test/x", "--idempotency-key", "k1",
    )  # fmt: skip
    assert (run.code, run.out) == (0, "task_1\n")
    assert run.err.endswith("\nsubmitted; follow it with: klingel watch task_1\n")
    assert klingel.body == {
        "type": "kling.multi-image-to-video",
        "input": {
            "image_list": [
                {"image": base64.b64encode(b"\x89PNG a").decode()},
                {"image": "HTTPS://example.com/b.png"},
            ],
            "prompt": "They meet",
            "negative_prompt": "rain",
            "model_name": "kling-v1-6",
            "mode": "pro",
            "duration": "10",
            "aspect_ratio": "1:1",
            "cfg_scale": 0.0,
            "static_mask": base64.b64encode(b"\x89PNG mask").decode(),
        },
        "external_task_id": "mine-1",
        "metadata": {"order": "12=3", "shop": ""},
        "callback_url": "https://hooks.test/x",
        "deadline_s": 90.0,
    }
    (request,) = klingel.requests
    assert request.headers["Idempotency-Key"] == "k1"
    assert request.headers["Authorization"] == "Bearer kl_1"
    assert "Prefer" not in request.headers
    assert request.extensions["timeout"]["read"] > 600  # the longest KLINGEL_SUBMIT_WAIT


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--type", "virtual-try-on"], r"kling\.virtual-try-on is retired: .*\.\n"),
        (
            ["--type", "image", "--model", "kling-v2"],
            r"kling-v2 is retired at Kling, .* --model kling-v2-1 .*\n",
        ),
        (["--type", "multi-image-to-image"], r"kling-v2 is retired at Kling, .* --model kling-v2-1 .*\n"),
        (["--type", "multi-image-to-image", "--model", "kling-v2-1"], ""),
        (["--type", "image"], ""),
        (["--type", "of-tomorrow", "--model", "kling-v2"], ""),
    ],
)
def test_a_retired_type_or_model_is_submitted_and_one_line_says_so(
    klingel: Klingel, flags: list[str], said: str
) -> None:
    klingel.on("POST /v1/tasks", SUBMITTED, status=201)
    run = klingel.run("submit", *flags)
    assert (run.code, run.out) == (0, "task_1\n")
    assert re.fullmatch(said + "submitted; follow it with: klingel watch task_1\n", run.err)


def test_an_image_task_has_its_own_field_names(klingel: Klingel) -> None:
    klingel.on("POST /v1/tasks", SUBMITTED, status=201)
    one, two, three = (f"http://cdn.test/{name}.png" for name in "abc")
    klingel.run(
        "submit", "--type", "kling.multi-image-to-image", "--image", one, two, "--n", "2",
        "--scene-image", two, "--style-image", three,
    )  # fmt: skip
    assert klingel.body == {
        "type": "kling.multi-image-to-image",
        "input": {
            "subject_image_list": [{"subject_image": one}, {"subject_image": two}],
            "n": 2,
            "scene_image": two,
            "style_image": three,
        },
    }


@pytest.mark.parametrize(
    ("flags", "type", "input"),
    [
        (["--type", "image", "--prompt", "a"], "kling.image-generation", {"prompt": "a"}),
        (["--type", "video", "--prompt", "a"], "kling.text-to-video", {"prompt": "a"}),
        (["--type", "video", "--image", "http://a/1"], "kling.image-to-video", {"image": "http://a/1"}),
        (
            ["--type", "kling.omni-video", "--image", "http://a/1", "--set", "duration=7", "multi_shot=false"],
            "kling.omni-video",
            {"image_list": [{"image_url": "http://a/1"}], "duration": "7", "multi_shot": False},
        ),
        (
            ["--type", "kling.new.text-to-video", "--prompt", "a", "--set", "settings.duration=5", "settings.audio=off"],
            "kling.new.text-to-video",
            {"prompt": "a", "settings": {"duration": 5, "audio": "off"}},
        ),
        (
            ["--type", "kling.text-to-audio", "--prompt", "rain", "--duration", "5.5"],
            "kling.text-to-audio",
            {"prompt": "rain", "duration": 5.5},
        ),
        (["--type", "text-to-audio", "--prompt", "5"], "kling.text-to-audio", {"prompt": "5"}),
        (
            ["--type", "kling.effects", "--image", "http://a/1", "--duration", "5", "--set", "effect_scene=jelly"],
            "kling.effects",
            {"input": {"image": "http://a/1", "duration": "5"}, "effect_scene": "jelly"},
        ),
        (
            ["--type", "kling.effects", "--image", "http://a/1", "http://a/2"],
            "kling.effects",
            {"input": {"images": ["http://a/1", "http://a/2"]}},
        ),
        (
            ["--type", "kling.new.text-to-video", "--prompt", "a", "--duration", "5", "--set", "settings.audio=off"],
            "kling.new.text-to-video",
            {"prompt": "a", "settings": {"duration": 5, "audio": "off"}},
        ),
        (
            ["--type", "newer.than-this", "--prompt", "7", "--duration", "5"],
            "newer.than-this",
            {"prompt": "7", "duration": "5"},
        ),
        (
            ["--type", "kling.video-extend", "--set", "video_id=881203390284693505"],
            "kling.video-extend",
            {"video_id": "881203390284693505"},
        ),
        (["--type", "kling.avatar", "--image", "http://a/1"], "kling.avatar", {"image": "http://a/1"}),
        (
            ["--type", "newer.than-this", "--image", "http://a/1", "--set", "deep.er=1"],
            "newer.than-this",
            {"image_list": [{"image": "http://a/1"}], "deep": {"er": 1}},
        ),
    ],
)  # fmt: skip
def test_flags_become_the_fields_of_the_type(
    klingel: Klingel, flags: list[str], type: str, input: dict[str, Any]
) -> None:
    klingel.on("POST /v1/tasks", SUBMITTED, status=201)
    klingel.run("submit", *flags)
    assert klingel.body == {"type": type, "input": input}


def test_a_field_within_what_is_no_object_is_named(klingel: Klingel) -> None:
    run = klingel.run("submit", "--type", "video", "--prompt", "a", "--set", "prompt.deep=1")
    assert "--set prompt.deep: prompt is no object" in run.err


def test_flags_for_what_stands_in_contents_say_how_to_say_it(klingel: Klingel) -> None:
    run = klingel.run(
        "submit", "--type", "kling.new.image-to-video", "--prompt", "a", "--image", "http://a/1", "--duration", "5"
    )  # fmt: skip
    assert run.code == 2
    assert klingel.requests == []
    image, prompt = run.err.splitlines()
    assert image.startswith("--image: ")
    assert prompt.startswith("--prompt: ")
    assert "--set 'contents=[" in image
    assert "--set 'contents=[" in prompt


def test_a_file_with_pictures_says_which_type_is_meant(klingel: Klingel) -> None:
    raw = {"prompt": "a", "image_list": [{"image": "http://a/1"}, {"image": "http://a/2"}]}
    Path("input.json").write_text(json.dumps(raw))
    klingel.on("POST /v1/tasks", SUBMITTED, status=201)
    klingel.run("submit", "--type", "video", "--input", "input.json")
    assert klingel.body == {"type": "kling.multi-image-to-video", "input": raw}


TYPE = {
    "name": "kling.text-to-audio",
    "summary": "A sound from text",
    "makes": ["audio"],
    "paths": [{"layout": "official", "path": "/v1/audio/text-to-audio"}],
    "models": [{"name": "kling-x", "retired": True}],
    "retired": {"text": "It is gone.", "source": "a page", "confidence": "guessed"},
    "notes": [{"text": "3.0 to 10.0 s.", "source": "Kling", "confidence": "documented by Kling"}],
    "input_schema": {"type": "object"},
    "examples": [{"prompt": "rain"}],
}


def test_the_types_are_listed_and_one_is_told_whole(klingel: Klingel) -> None:
    klingel.on("GET /v1/task-types", {"items": [TYPE], "next_cursor": None}, status=200)
    listed = klingel.run("types").out
    assert "kling.text-to-audio" in listed
    assert "A sound from text (retired)" in listed
    klingel.on("GET /v1/task-types", {"items": [TYPE], "next_cursor": None}, status=200)
    told = klingel.run("types", "text-to-audio").out
    for part in (
        "It is gone.",
        "kling-x (retired)",
        "3.0 to 10.0 s. [Kling; documented by Kling]",
        '"type": "kling.text-to-audio",\n  "input": {\n    "prompt": "rain"',
    ):
        assert part in told
    klingel.on("GET /v1/task-types", {"items": [TYPE], "next_cursor": None}, status=200)
    unknown = klingel.run("types", "nothing")
    assert unknown.code == 3
    assert "kling.text-to-audio" in unknown.err


def test_a_raw_input_lies_under_the_flags(klingel: Klingel, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = {"prompt": "from the file", "dynamic_masks": [{"mask": "m"}]}
    Path("input.json").write_text(json.dumps(raw))
    klingel.on("POST /v1/tasks", SUBMITTED, SUBMITTED, status=201)
    klingel.run("submit", "--type", "video", "--input", "input.json", "--prompt", "from the flag")
    assert klingel.body["input"] == raw | {"prompt": "from the flag"}
    klingel.requests.clear()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(json.dumps(raw).encode())))
    klingel.run("submit", "--type", "video", "--input", "-")
    assert klingel.body["input"] == raw


def test_files_that_cannot_be_used_are_named_all_at_once(klingel: Klingel) -> None:
    Path("empty.png").touch()
    Path("list.json").write_text("[]")
    run = klingel.run(
        "submit", "--type", "video", "--image", "no.png", "empty.png", ".", "http://cdn.test/a.png",
        "--static-mask", "gone.png", "--input", "list.json",
    )  # fmt: skip
    assert run.code == 2
    assert run.err.splitlines() == [
        "list.json: not a JSON object",
        "no.png: No such file or directory",
        "empty.png: the file is empty",
        ".: Is a directory",
        "gone.png: No such file or directory",
    ]
    assert klingel.requests == []


@pytest.mark.parametrize("value", ["novalue", "=x"])
def test_metadata_is_key_value(klingel: Klingel, value: str) -> None:
    run = klingel.run("submit", "--type", "video", "--metadata", "a=b", value)
    assert (run.code, run.err) == (2, f"--metadata takes KEY=VALUE, not {value}\n")


def test_async_asks_not_to_wait(klingel: Klingel) -> None:
    klingel.on("POST /v1/tasks", TASK, status=202)
    run = klingel.run("submit", "--type", "image", "--async", "--json")
    assert (run.code, run.json, run.err) == (0, TASK, "")
    assert klingel.requests[0].headers["Prefer"] == "respond-async"


def test_follow_ups_are_read_from_files(klingel: Klingel) -> None:
    follow_up = {"on": "task.succeeded", "submit": {"type": "kling.multi-image-to-video", "input": {}}}
    Path("film.json").write_text(json.dumps(follow_up))
    Path("broken.json").write_text("[")
    klingel.on("POST /v1/tasks", SUBMITTED, status=201)
    images = ("--image", "https://a.test/1.png", "--image", "https://a.test/2.png")
    two = ("--follow-up", "film.json", "--follow-up", "film.json")
    assert klingel.run("submit", "--type", "image", *images, *two).code == 0
    assert klingel.body["follow_ups"] == [follow_up, follow_up]
    run = klingel.run("submit", "--type", "image", "--follow-up", "broken.json", "--follow-up", "none.json")
    assert run.code == 2
    assert "broken.json: not JSON" in run.err
    assert "none.json: No such file" in run.err


def test_each_submit_has_its_own_idempotency_key_and_a_lost_answer_names_it(klingel: Klingel) -> None:
    klingel.on("POST /v1/tasks", httpx.ReadTimeout("timed out"), httpx.ReadTimeout("timed out"))
    runs = [klingel.run("submit", "--type", "video") for _ in range(2)]
    keys = [request.headers["Idempotency-Key"] for request in klingel.requests]
    assert len({*keys}) == 2
    for run, key in zip(runs, keys, strict=True):
        assert run.code == 4
        assert f"--idempotency-key {key}" in run.err


@pytest.mark.parametrize("code", ["provider-refused", "provider-payment-required", "provider-misconfigured"])
def test_a_task_that_the_provider_refuses_was_rejected_and_ends_with_1(klingel: Klingel, code: str) -> None:
    task = {"id": "task_1", "status": "rejected"}
    problem = NOT_FOUND | {"type": f"/problems/{code}", "provider_code": 1201, "task": task}
    klingel.on("POST /v1/tasks", problem, problem, status=422)
    run = klingel.run("submit", "--type", "video")
    assert (run.code, run.out) == (1, "")
    assert {"  provider_code: 1201", "  task: task_1"} <= {*run.err.splitlines()}
    for_programs = klingel.run("submit", "--type", "video", "--json")
    assert (for_programs.code, for_programs.json) == (1, problem)


def test_a_repeated_submit_of_a_failed_task_ends_with_1(klingel: Klingel) -> None:
    klingel.on("POST /v1/tasks", FAILED, SUCCEEDED)
    assert klingel.run("submit", "--type", "video", "--idempotency-key", "k").code == 1
    assert klingel.run("submit", "--type", "video", "--idempotency-key", "k").code == 0


# watch


def test_watch_prints_progress_beside_and_the_urls_as_the_result(klingel: Klingel) -> None:
    klingel.on("POST /v1/tasks", TASK, status=202)
    events = [event(1, SUBMITTED), event(2, SUBMITTED, "task.overdue"), event(3, SUCCEEDED)]
    klingel.on("GET /v1/tasks/task_1/events", stream(*events))
    run = klingel.run("submit", "--type", "video", "--watch")
    assert run.code == 0
    assert run.lines == ["https://cdn.test/a.mp4?sig=1&x=[b]", "https://cdn.test/b.mp4"]
    assert run.err.splitlines() == [
        "task_1 queued",
        "2020-11-22 06:30  submitted",
        "2020-11-22 06:30  overdue",
        "2020-11-22 06:30  succeeded",
    ]
    assert klingel.requests[0].headers["Prefer"] == "respond-async"


def test_watch_says_that_outputs_may_come_later(klingel: Klingel) -> None:
    klingel.on("GET /v1/tasks/task_1", SUCCEEDED | {"outputs": []})
    run = klingel.run("watch", "task_1")
    assert (run.code, run.lines) == (0, [])
    assert "klingel tasks show task_1" in run.err


def test_watch_takes_up_a_cut_stream_where_it_was(klingel: Klingel) -> None:
    klingel.on("GET /v1/tasks/task_1", TASK)
    klingel.on(
        "GET /v1/tasks/task_1/events",
        stream(event(1, SUBMITTED)),
        httpx.ConnectError("refused"),
        stream(event(2, SUCCEEDED)),
    )
    run = klingel.run("watch", "task_1", "--json")
    assert (run.code, run.json) == (0, SUCCEEDED)
    assert [one.headers.get("Last-Event-ID") for one in klingel.requests] == [None, None, "evt_1", "evt_1"]
    assert klingel.requests[1].headers["Accept"] == "text/event-stream"


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_watching_a_task_fail_ends_with_1(klingel: Klingel, flags: tuple[str, ...]) -> None:
    klingel.on("GET /v1/tasks/task_1", TASK)
    klingel.on("GET /v1/tasks/task_1/events", stream(event(1, FAILED)))
    run = klingel.run("watch", "task_1", *flags)
    assert run.code == 1
    if flags:
        assert run.json == FAILED
    else:
        assert run.out == ""
        assert run.err.splitlines()[-1] == "task_1 failed: \ufffd[2Jrisk [bold]control (1301)"


def test_a_task_that_has_ended_needs_no_stream(klingel: Klingel) -> None:
    klingel.on("GET /v1/tasks/task_1", SUCCEEDED)
    assert klingel.run("watch", "task_1").lines[1] == "https://cdn.test/b.mp4"
    assert klingel.asked == ["GET /v1/tasks/task_1"]


def test_watch_of_an_unknown_task_ends_with_3(klingel: Klingel) -> None:
    klingel.on("GET /v1/tasks/task_9", NOT_FOUND, status=404)
    run = klingel.run("watch", "task_9")
    assert (run.code, run.out) == (3, "")
    assert run.err == "Not found (404 not-found)\nNo such thing.\n"


def test_leaving_a_watch_says_that_the_task_goes_on(klingel: Klingel) -> None:
    klingel.on("GET /v1/tasks/task_1", TASK)
    klingel.on("GET /v1/tasks/task_1/events", KeyboardInterrupt())
    run = klingel.run("watch", "task_1")
    assert run.code == 130
    assert "klingel watch task_1" in run.err


def test_a_terminal_gets_a_live_line_and_colours(klingel: Klingel) -> None:
    klingel.on("GET /v1/tasks/task_1", TASK)
    klingel.on("GET /v1/tasks/task_1/events", stream(event(1, SUBMITTED), event(2, SUCCEEDED)))
    run = klingel.run("watch", "task_1", terminal=True)
    assert run.out.splitlines()[0] == "https://cdn.test/a.mp4?sig=1&x=[b]"
    assert "task_1 queued" in run.err
    assert "\x1b[32msucceeded" in run.err
    assert "\x1b[?25h" in run.err  # the cursor is shown again


# tasks


def test_tasks_are_listed_with_filters(klingel: Klingel) -> None:
    overdue = TASK | {"id": "task_2", "external_task_id": "mine-2", "overdue_at": "2020-11-22T06:30:00.000Z"}
    klingel.on("GET /v1/tasks", {"items": [SUCCEEDED, overdue], "next_cursor": "c2"})
    run = klingel.run(
        "tasks", "--status", "queued", "--type", "t", "--external-task-id", "mine", "--metadata", "order=1", "a.b=c d",
        "--limit", "2", "--cursor", "c1",
    )  # fmt: skip
    assert run.code == 0
    assert [line.split() for line in run.lines] == [
        ["ID", "TYPE", "STATUS", "CREATED", "TOOK", "EXTERNAL", "ID"],
        ["task_1", "kling.multi-image-to-video", "succeeded", "2020-11-22", "06:30", "2", "m", "04", "s"],
        ["task_2", "kling.multi-image-to-video", "queued", "overdue", "2020-11-22", "06:30", "mine-2"],
    ]
    assert run.err == "More: --cursor c2, or --all\n"
    assert dict(klingel.requests[0].url.params) == {
        "status": "queued",
        "type": "t",
        "external_task_id": "mine",
        "metadata.order": "1",
        "metadata.a.b": "c d",
        "limit": "2",
        "cursor": "c1",
    }


def test_all_fetches_every_page_as_one_list(klingel: Klingel) -> None:
    klingel.on(
        "GET /v1/tasks", {"items": [TASK], "next_cursor": "c1"}, {"items": [SUCCEEDED], "next_cursor": None}
    )
    run = klingel.run("tasks", "list", "--all", "--json")
    assert run.json == {"items": [TASK, SUCCEEDED], "next_cursor": None}
    assert klingel.asked == ["GET /v1/tasks", "GET /v1/tasks?cursor=c1"]


@pytest.mark.parametrize("resource", ["tasks", "events", "endpoints", "deliveries", "bots", "keys"])
def test_lists_can_be_empty_and_always_speak_json(klingel: Klingel, resource: str) -> None:
    klingel.on(f"GET /v1/{resource}", EMPTY, EMPTY)
    run = klingel.run(resource)
    assert (run.code, run.out, run.err) == (0, "", "There are none.\n")
    run = klingel.run(resource, "list", "--json")
    assert (run.json, run.err) == (EMPTY, "")


def test_output_for_a_pipe_is_wide_and_plain(klingel: Klingel) -> None:
    long = "https://hooks.test/" + "a" * 500
    klingel.on("GET /v1/endpoints", {"items": [ENDPOINT | {"config": {"url": long}}], "next_cursor": None})
    run = klingel.run("endpoints")
    assert long in run.lines[1]
    assert "\x1b" not in run.out


def test_one_task_is_shown_with_outputs_and_transitions(klingel: Klingel) -> None:
    transitions = [
        {"from": "queued", "to": "submitted", "at": "2020-11-22T05:30:01.000Z"},
        {"from": "submitted", "to": "succeeded", "at": "2020-11-22T05:32:05.000Z"},
    ]
    klingel.on("GET /v1/tasks/task_1", SUCCEEDED | {"input": {"prompt": "Hi"}, "transitions": transitions})
    run = klingel.run("tasks", "show", "task_1")
    assert run.code == 0
    assert 'input             {"prompt": "Hi"}' in run.lines
    assert "created_at        2020-11-22 06:30" in run.lines
    assert "0  video  5 s       https://cdn.test/a.mp4?sig=1&x=[b]" in run.lines
    assert any(line.endswith("http://k.test/v1/files/b.mp4") for line in run.lines)
    assert "submitted  succeeded  2020-11-22 06:32  2 m 04 s" in run.lines
    assert "error" not in run.out


def test_a_refresh_is_one_post(klingel: Klingel) -> None:
    klingel.on("POST /v1/tasks/task_1/refresh", FAILED, FAILED)
    run = klingel.run("tasks", "refresh", "task_1")
    assert any(line.split() == ["error", "\ufffd[2Jrisk", "[bold]control", "(1301)"] for line in run.lines)
    assert klingel.run("tasks", "refresh", "task_1", "--json").json == FAILED
    assert klingel.asked == ["POST /v1/tasks/task_1/refresh"] * 2


def test_callbacks_are_the_evidence(klingel: Klingel) -> None:
    items = [
        {
            "id": "cbk_1",
            "received_at": "2020-11-22T05:30:01Z",
            "verdict": "advanced",
            "reason": None,
            "body": {"a": 1},
        },
        {
            "id": "cbk_2",
            "received_at": "2020-11-22T05:30:02Z",
            "verdict": "unreadable",
            "reason": "no JSON",
            "body": "<",
        },
    ]
    klingel.on(
        "GET /v1/tasks/task_1/callbacks",
        *({"items": [one], "next_cursor": cursor} for one, cursor in zip(items, ["c1", None], strict=True)),
    )
    klingel.on("GET /v1/tasks/task_1/callbacks", {"items": items, "next_cursor": None})
    assert klingel.run("tasks", "callbacks", "task_1").lines == [
        "2020-11-22 06:30  advanced",
        '  {"a": 1}',
        "2020-11-22 06:30  unreadable: no JSON",
        "  <",
    ]
    assert klingel.run("tasks", "callbacks", "task_1", "--json").json == {"items": items, "next_cursor": None}


# events


def test_events_are_listed(klingel: Klingel) -> None:
    disabled = {"id": "evt_2", "type": "endpoint.disabled", "timestamp": "2020-11-22T05:30:00Z", "data": {}}
    klingel.on("GET /v1/events", {"items": [event(1, SUBMITTED), disabled], "next_cursor": None})
    run = klingel.run("events", "--type", "task.submitted")
    assert run.lines[1:] == [
        "evt_1  2020-11-22 06:30  task.submitted     1         task_1",
        "evt_2  2020-11-22 06:30  endpoint.disabled",
    ]
    assert klingel.asked == ["GET /v1/events?type=task.submitted"]


def test_following_prints_each_event_until_the_server_is_gone_for_good(klingel: Klingel) -> None:
    events = stream(event(1, SUBMITTED), event(2, SUCCEEDED))
    klingel.on("GET /v1/events", events, *(httpx.ConnectError("refused") for _ in range(8)))
    run = klingel.run("events", "--follow")
    assert run.code == 4
    assert run.lines == [
        "2020-11-22 06:30  task.submitted  task_1  evt_1",
        "2020-11-22 06:30  task.succeeded  task_1  evt_2",
    ]


def test_following_as_json_is_one_object_a_line_from_where_it_is_told(klingel: Klingel) -> None:
    events = [event(6, FAILED), event(7, SUCCEEDED)]
    klingel.on("GET /v1/events", stream(*events), KeyboardInterrupt())
    run = klingel.run("events", "--follow", "--json", "--since", "evt_5", "--type", "task.succeeded")
    assert run.code == 130
    assert [json.loads(line) for line in run.lines] == events[1:]
    assert klingel.requests[0].headers["Last-Event-ID"] == "evt_5"


@pytest.mark.parametrize("flags", [("--since", "evt_1"), ("--follow", "--limit", "3"), ("--follow", "--all")])
def test_flags_that_do_not_go_together_are_refused(klingel: Klingel, flags: tuple[str, ...]) -> None:
    assert klingel.run("events", *flags).code == 2
    assert klingel.requests == []


def test_an_event_is_shown(klingel: Klingel) -> None:
    klingel.on("GET /v1/events/evt_1", event(1, SUBMITTED), event(1, SUBMITTED))
    assert klingel.run("events", "show", "evt_1").lines[1] == "type       task.submitted"
    assert klingel.run("events", "show", "evt_1", "--json").json == event(1, SUBMITTED)


def test_it_is_told_why_endpoints_got_an_event(klingel: Klingel) -> None:
    """All of them, in as many pages as that takes."""
    sent = {
        "endpoint": ENDPOINT,
        "sent": True,
        "reason": "selected",
        "detail": "It takes task.*.",
        "delivery": {"id": "dlv_1", "status": "dead", "attempts": 9, "reason": "answered"},
        "replays": 0,
    }
    left = {
        "endpoint": ENDPOINT | {"id": "end_2"},
        "sent": False,
        "reason": "filter",
        "detail": "Its filter gives false.",
        "delivery": None,
        "replays": 0,
    }
    pages = [{"items": [sent], "next_cursor": "end_1"}, {"items": [left], "next_cursor": None}]
    klingel.on("GET /v1/events/evt_1/explain", *pages, *pages)
    run = klingel.run("events", "explain", "evt_1", "--endpoint", "end_9")
    assert run.lines == [
        "ENDPOINT  KIND     SENT  REASON    DELIVERY  STATUS  ATTEMPTS  LAST      WHY",
        "end_1     webhook  yes   selected  dlv_1     dead    9         answered  It takes task.*.",
        "end_2     webhook  no    filter                                          Its filter gives false.",
    ]
    asked = "GET /v1/events/evt_1/explain?endpoint_id=end_9&limit=200"
    assert klingel.asked == [asked, f"{asked}&cursor=end_1"]
    assert klingel.run("events", "explain", "evt_1", "--json").json == [sent, left]


def test_it_is_said_that_there_was_nobody_to_get_an_event(klingel: Klingel) -> None:
    klingel.on("GET /v1/events/evt_1/explain", EMPTY)
    run = klingel.run("events", "explain", "evt_1")
    assert (run.code, run.out, run.err) == (0, "", "There was no endpoint that it could have gone to.\n")


# endpoints


def test_an_endpoint_is_made_and_its_secret_shown_once(klingel: Klingel) -> None:
    klingel.on("POST /v1/endpoints", ENDPOINT | {"secret": "whsec_x"}, status=201)
    run = klingel.run(
        "endpoints", "create", "--url", "https://hooks.test/a", "--types", "task.*", "output.stored",
        "--filter", "data.task.type == 'x'", "--description", "mine", "--header", "X-A=1=2", "--header", "X-B=",
        "--rate-per-minute", "20", "--config", "format=cloudevents",
    )  # fmt: skip
    assert run.code == 0
    assert "secret   whsec_x" in run.lines
    assert "not shown again" in run.err
    assert "verify signatures" in run.err
    assert klingel.body == {
        "kind": "webhook",
        "config": {
            "format": "cloudevents",
            "url": "https://hooks.test/a",
            "headers": {"X-A": "1=2", "X-B": ""},
        },
        "types": ["task.*", "output.stored"],
        "filter": "data.task.type == 'x'",
        "description": "mine",
        "rate_per_minute": 20,
    }


def test_nobody_is_told_to_verify_what_is_not_signed(klingel: Klingel) -> None:
    made = ENDPOINT | {"kind": "wecom", "config": {}, "secret": "whsec_x"}
    klingel.on("POST /v1/endpoints", made, status=201)
    run = klingel.run(
        "endpoints", "create", "--kind", "wecom", "--config", "webhook_url=https://hooks.test/a"
    )
    assert (run.code, run.err) == (0, "")


def test_an_update_sends_only_what_changes(klingel: Klingel) -> None:
    klingel.on("PATCH /v1/endpoints/end_1", ENDPOINT, ENDPOINT, ENDPOINT, ENDPOINT)
    for flags in (
        ("--disable",),
        ("--enable", "--filter", ""),
        ("--rate-per-minute", "0"),
        ("--url", "https://b.test", "--types", "task.failed"),
    ):
        assert klingel.run("endpoints", "update", "end_1", *flags).code == 0
    assert [json.loads(one.content) for one in klingel.requests] == [
        {"enabled": False},
        {"enabled": True, "filter": None},
        {"rate_per_minute": None},
        {"config": {"url": "https://b.test"}, "types": ["task.failed"]},
    ]
    assert klingel.run("endpoints", "update", "end_1").code == 2


def test_an_endpoint_is_listed_shown_and_deleted(klingel: Klingel) -> None:
    broken = ENDPOINT | {"id": "end_2", "enabled": False, "disabled_reason": "410"}
    klingel.on("GET /v1/endpoints", {"items": [ENDPOINT, broken], "next_cursor": None})
    klingel.on("GET /v1/endpoints/end_1", ENDPOINT)
    klingel.on("DELETE /v1/endpoints/end_1", httpx.Response(204))
    assert klingel.run("endpoints", "list").lines == [
        "ID     KIND     ENABLED  TYPES   URL",
        "end_1  webhook  yes      task.*  https://hooks.test/a",
        "end_2  webhook  no: 410  task.*  https://hooks.test/a",
    ]
    assert "enabled  true" in klingel.run("endpoints", "show", "end_1").lines
    run = klingel.run("endpoints", "delete", "end_1")
    assert (run.code, run.out, run.err) == (0, "", "Deleted end_1\n")


def test_an_endpoint_is_tested_rotated_and_replayed(klingel: Klingel) -> None:
    klingel.on("POST /v1/endpoints/end_1/test", {"event_id": "evt_1", "delivery_id": "dlv_1"}, status=202)
    klingel.on("POST /v1/endpoints/end_1/rotate-secret", ENDPOINT | {"secret": "whsec_y"})
    klingel.on("POST /v1/endpoints/end_1/replay", {"deliveries": 3}, {"deliveries": 4}, status=202)
    assert klingel.run("endpoints", "test", "end_1").lines == ["event_id     evt_1", "delivery_id  dlv_1"]
    run = klingel.run("endpoints", "rotate-secret", "end_1")
    assert "secret   whsec_y" in run.lines
    assert "not shown again" in run.err
    assert klingel.run("endpoints", "replay", "end_1", "--since", "2026-11-22T00:00:00Z").lines == [
        "deliveries  3"
    ]
    run = klingel.run(
        "endpoints", "replay", "end_1", "--since", "2026-11-22T00:00:00Z", "--only", "all", "--json"
    )
    assert run.json == {"deliveries": 4}
    assert [json.loads(one.content) for one in klingel.requests[2:]] == [
        {"since": "2026-11-22T00:00:00Z", "only": "failed"},
        {"since": "2026-11-22T00:00:00Z", "only": "all"},
    ]


# deliveries

DELIVERY = {
    "id": "dlv_1",
    "event_id": "evt_1",
    "event_type": "task.succeeded",
    "task_id": "task_1",
    "endpoint_id": "end_1",
    "status": "dead",
    "attempts": 2,
    "next_attempt_at": None,
    "created_at": "2020-11-22T05:30:00.000Z",
}


def test_deliveries_are_listed_with_filters(klingel: Klingel) -> None:
    klingel.on("GET /v1/deliveries", {"items": [DELIVERY | {"reason": "timed out"}], "next_cursor": None})
    run = klingel.run(
        "deliveries",
        "list",
        "--endpoint",
        "end_1",
        "--kind",
        "archive",
        "--status",
        "dead",
        "--event",
        "evt_1",
        "--task",
        "task_1",
    )
    assert run.lines == [
        "ID     EVENT           STATUS  ATTEMPTS  CREATED           ENDPOINT  TASK    REASON",
        "dlv_1  task.succeeded  dead    2         2020-11-22 06:30  end_1     task_1  timed out",
    ]
    assert dict(klingel.requests[0].url.params) == {
        "endpoint_id": "end_1",
        "kind": "archive",
        "status": "dead",
        "event_id": "evt_1",
        "task_id": "task_1",
    }


def test_a_delivery_is_shown_with_its_attempts(klingel: Klingel) -> None:
    attempts = [
        {
            "number": 1,
            "started_at": "2020-11-22T05:30:00.000Z",
            "duration_ms": 412,
            "status_code": 503,
            "outcome": "retry",
            "reason": "503 Service Unavailable",
            "response_excerpt": "busy\x1b[2J",
        },
        {
            "number": 2,
            "started_at": "2020-11-22T05:30:05.000Z",
            "duration_ms": 15000,
            "status_code": None,
            "outcome": "dead",
            "reason": "timed out",
            "response_excerpt": None,
        },
    ]
    klingel.on("GET /v1/deliveries/dlv_1", DELIVERY | {"attempts": attempts})
    run = klingel.run("deliveries", "show", "dlv_1")
    assert "status       dead" in run.lines
    assert run.lines[-3:] == [
        "#  STARTED           TOOK    HTTP  OUTCOME  REASON                   RESPONSE",
        "1  2020-11-22 06:30  412 ms  503   retry    503 Service Unavailable  busy\ufffd[2J",
        "2  2020-11-22 06:30  15.0 s        dead     timed out",
    ]


def test_a_replay_is_a_new_delivery(klingel: Klingel) -> None:
    again = DELIVERY | {"id": "dlv_2", "status": "due", "attempts": 0}
    klingel.on("POST /v1/deliveries/dlv_1/replay", again, again, status=201)
    assert klingel.run("deliveries", "replay", "dlv_1").lines[0].split() == ["id", "dlv_2"]
    assert klingel.run("deliveries", "replay", "dlv_1", "--json").json == again


# keys


def test_a_key_is_printed_alone_so_that_a_script_can_take_it(klingel: Klingel) -> None:
    made = {
        "id": "key_1",
        "key": "kl_new",
        "name": "ci",
        "account": "shop",
        "role": "member",
        "created_at": "2020-11-22T05:30:00.000Z",
    }
    klingel.on("POST /v1/keys", made, made, status=201)
    run = klingel.run("keys", "create", "--name", "ci", "--account", "shop")
    assert (run.code, run.out) == (0, "kl_new\n")
    assert "key_1 ci: member of account shop" in run.err
    assert klingel.run("keys", "create", "--name", "ci", "--role", "admin", "--json").json == made
    assert [json.loads(one.content) for one in klingel.requests] == [
        {"name": "ci", "role": "member", "account": "shop"},
        {"name": "ci", "role": "admin"},
    ]


def test_forgetting_is_waited_for_as_long_as_it_takes(klingel: Klingel) -> None:
    klingel.on("POST /v1/prune", {"deliveries": 12_000_000, "kept_files": 3})
    run = klingel.run("prune")
    assert run.lines == ["12000000  deliveries", "       3  kept files"]
    (request,) = klingel.requests
    timeout = request.extensions["timeout"]
    assert (timeout["read"], timeout["connect"]) == (None, 10)


def test_keys_are_listed_and_revoked(klingel: Klingel) -> None:
    key = {
        "id": "key_1",
        "name": "ci",
        "account": "shop",
        "role": "member",
        "created_at": "2020-11-22T05:30:00.000Z",
    }
    klingel.on("GET /v1/keys", {"items": [key], "next_cursor": None})
    klingel.on("DELETE /v1/keys/key_1", httpx.Response(204), httpx.Response(204))
    assert klingel.run("keys").lines[1] == "key_1  ci    shop     member  2020-11-22 06:30"
    assert klingel.run("keys", "revoke", "key_1").err == "Revoked key_1\n"
    run = klingel.run("keys", "revoke", "key_1", "--json")
    assert (run.code, run.out, run.err) == (0, "", "")


# bots

BOT = {
    "id": "bot_1",
    "platform": "mattermost",
    "url": "https://k.test/chat/mattermost/bot_1",
    "config": {"server": "https://chat.test", "command_token": "••••"},
    "allow": [{"workspace": "T1", "user": "U1"}, {"chat": "C1"}],
    "open_tasks": 3,
    "description": None,
}


def test_a_bot_is_made_of_what_its_platform_needs_and_says_where_it_listens(klingel: Klingel) -> None:
    klingel.on("POST /v1/bots", BOT, status=201)
    run = klingel.run(
        "bots", "create", "--platform", "mattermost", "--allow", "workspace=T1,user=U1", "chat=C1",
        "--config", "server=https://chat.test", "command_token=a=b", "--open-tasks", "5",
    )  # fmt: skip
    assert klingel.body == {
        "platform": "mattermost",
        "config": {"server": "https://chat.test", "command_token": "a=b"},
        "allow": [{"workspace": "T1", "user": "U1"}, {"chat": "C1"}],
        "open_tasks": 5,
    }
    assert "https://k.test/chat/mattermost/bot_1" in run.out
    assert (run.code, run.err) == (0, "")


def test_a_bot_that_obeys_nobody_is_warned_of(klingel: Klingel) -> None:
    klingel.on("POST /v1/bots", BOT | {"allow": []}, BOT | {"allow": []}, status=201)
    tokens = ("bots", "create", "--platform", "mattermost")
    assert "obeys nobody" in klingel.run(*tokens).err
    assert klingel.run(*tokens, "--json").err == ""
    assert klingel.body == {"platform": "mattermost", "config": {}}


def test_bots_are_listed_with_whom_they_obey(klingel: Klingel) -> None:
    klingel.on("GET /v1/bots", {"items": [BOT, BOT | {"allow": []}], "next_cursor": None})
    _, first, second = klingel.run("bots").lines
    assert (
        first
        == "bot_1  mattermost  workspace=T1,user=U1 chat=C1  3           https://k.test/chat/mattermost/bot_1"
    )
    assert "nobody" in second


def test_a_bot_is_changed_in_what_is_given_and_may_obey_nobody(klingel: Klingel) -> None:
    klingel.on("PATCH /v1/bots/bot_1", BOT, BOT)
    klingel.run("bots", "update", "bot_1", "--description", "")
    assert klingel.body == {"description": None}
    klingel.requests.clear()
    klingel.run("bots", "update", "bot_1", "--allow", "nobody")
    assert klingel.body == {"allow": []}
    run = klingel.run("bots", "update", "bot_1")
    assert (run.code, "Nothing to change" in run.err) == (2, True)
    run = klingel.run("bots", "update", "bot_1", "--allow", "ada")
    assert (run.code, run.err) == (2, "--allow takes KEY=VALUE, not ada\n")


def test_a_bot_is_shown_and_deleted(klingel: Klingel) -> None:
    klingel.on("GET /v1/bots/bot_1", BOT)
    klingel.on("DELETE /v1/bots/bot_1", httpx.Response(204), httpx.Response(204))
    assert klingel.run("bots", "show", "bot_1", "--json").json == BOT
    assert klingel.run("bots", "delete", "bot_1").err == "Deleted bot_1\n"
    assert klingel.run("bots", "delete", "bot_1", "--json").out == ""


# The server's own commands


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_wrong_settings_end_with_2_all_named(
    command: str, klingel: Klingel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KLINGEL_PORT", "many")
    monkeypatch.setenv("KLINGEL_SUBMIT_WAIT", "-1")
    run = klingel.run(command)
    assert (run.code, run.out) == (2, "")
    assert "KLINGEL_PORT" in run.err
    assert "KLINGEL_SUBMIT_WAIT" in run.err


def test_the_sandbox_refuses_what_it_does_not_know_before_it_starts(klingel: Klingel) -> None:
    run = klingel.run(
        "sandbox", "--fault", "slow", "sloow", "--webhook-secret", "short", "--allow-network", "10.0.0.1/8"
    )
    assert run.code == 2
    assert run.err.startswith("There is no fault sloow: choose from slow, fail,")
    assert "--webhook-secret" in run.err
    assert "--allow-network: 10.0.0.1/8 has host bits set" in run.err


def test_client_commands_do_not_load_the_server() -> None:
    """They would take as long to start as the whole service does."""
    import subprocess  # noqa: PLC0415

    script = "import sys, service.cli; print([m for m in ('starlette', 'uvicorn', 'pydantic', 'PIL', 'av') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == "[]\n"


# usage


USAGE = {
    "from": "2026-11-01",
    "to": "2026-11-22",
    "by": "metadata.customer",
    "items": [
        {"value": None, "amount": "1.5", "unit": "units", "tasks": 2},
        {"value": "7", "amount": "0.28", "unit": "USD", "tasks": 1},
    ],
    "truncated": False,
    "totals": [
        {"unit": "USD", "amount": "0.28", "tasks": 1},
        {"unit": "units", "amount": "1.5", "tasks": 2},
    ],
}
BUDGET = {
    "account": "shop",
    "unit": "units",
    "period": "month",
    "limit": "10",
    "spent": "12.5",
    "exceeded": True,
    "since": "2026-11-01T00:00:00.000Z",
    "until": "2026-12-01T00:00:00.000Z",
}


def test_usage_is_a_table_with_its_sums_beside_it(klingel: Klingel) -> None:
    klingel.on("GET /v1/usage", USAGE, USAGE, {**USAGE, "items": [], "totals": []})
    run = klingel.run("usage", "--by", "metadata.customer", "--from", "2026-11-01", "--account", "shop")
    assert run.lines == [
        "VALUE   AMOUNT  UNIT   TASKS",
        "(none)  1.5     units  2",
        "7       0.28    USD    1",
    ]
    assert run.err == "2026-11-01 to 2026-11-22 (UTC): 0.28 USD, 1.5 units\n"
    assert dict(klingel.requests[0].url.params) == {
        "by": "metadata.customer",
        "from": "2026-11-01",
        "account": "shop",
    }
    assert klingel.run("usage", "--json").json == USAGE
    assert klingel.run("usage").err == "Nothing was charged.\n"


def test_budgets_are_listed_set_and_taken_away(klingel: Klingel) -> None:
    klingel.on("GET /v1/budgets", {"items": [BUDGET]}, {"items": []})
    klingel.on("PUT /v1/budgets", BUDGET, BUDGET, httpx.Response(204))
    assert klingel.run("usage", "budgets").lines[1] == (
        "shop     month   12.5   10     units  exceeded  2026-12-01"
    )
    assert klingel.run("usage", "budgets").err == "There are none.\n"
    assert klingel.run("usage", "budget", "--account", "shop", "--limit", "10").lines[1].startswith("shop")
    assert klingel.run("usage", "budget", "--limit", "10", "--json").json == BUDGET
    taken = klingel.run("usage", "budget", "--unit", "USD", "--period", "day", "--limit", "none")
    assert taken.err == "There is no such budget now.\n"
    bodies = [json.loads(request.content) for request in klingel.requests if request.method == "PUT"]
    assert bodies[0] == {"account": "shop", "unit": "units", "period": "month", "limit": "10"}
    assert bodies[2] == {"unit": "USD", "period": "day", "limit": None}
