"""What people say in a chat becomes tasks, and these tell of themselves in one message. On Mattermost, for all."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from handlers.chat.commands import AT_A_TIME, AT_A_TIME_OF_ACCOUNT, AT_A_TIME_OF_BOT
from handlers.chat.desk import WAITING_OF_BOT
from service.doors.bodies import SMALL_BODY
from service.doors.sharing import BODIES_BYTES_OF_ONE
from service.lane import BREAKS_AFTER
from storage.columns import milliseconds
from tests.fakes.mattermost import BOT_TOKEN, CHANNEL, ELSEWHERE, HOOK, FakeMattermost
from tests.integration.cdn import running_cdn, sends
from tests.integration.chat import ASKED, USER, Chat, bot_body, opened_chat, running_mattermost
from tests.integration.klingel import (
    IMAGE_INPUT,
    START,
    FakeKling,
    Klingel,
    ManualClock,
    callback,
    picture,
    png,
    refused,
    running_klingel,
    succeed,
)

FILES = ("f" * 26, "g" * 26)


@pytest.fixture(autouse=True)
def _pictures_hang_as_long_as_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("pictures.SILENCE", "pictures.DEADLINE", "commands.WORK_DEADLINE"):
        monkeypatch.setattr(f"handlers.chat.{limit}", timedelta(minutes=4))


@pytest.fixture
async def mattermost(anyio_backend: str) -> AsyncIterator[FakeMattermost]:
    async with running_mattermost() as mattermost:
        yield mattermost


@pytest.fixture
async def chat(klingel: Klingel, mattermost: FakeMattermost) -> Chat:
    return await opened_chat(klingel, mattermost)


# From a command to its result


async def test_a_command_becomes_a_task_and_one_message_tells_its_whole_story(chat: Chat) -> None:
    klingel = chat.klingel
    assert await chat.say(ASKED + " n=2") == "On its way."
    task = await chat.until_submitted()
    assert (task["type"], task["metadata"]) == (
        "kling.multi-image-to-image",
        {"chat": "mattermost", "user": USER},
    )
    [create] = klingel.kling.creates
    assert (create["prompt"], create["n"]) == ("a cat in a hat", 2)
    assert [one["subject_image"] for one in create["subject_image_list"]] == [picture("a"), picture("b")]
    await chat.until_shown("Picture submitted")
    await klingel.call_back(callback(task, "processing"))
    await chat.until_shown("Picture in the making")
    await klingel.call_back(succeed(task))
    post = await chat.until_shown("Picture ready")
    assert len(chat.mattermost.posts) == 1
    assert len(post.history) == 3
    assert post.attachment["image_url"] == picture("out")
    assert "a cat in a hat" in post.attachment["text"]
    assert "asked for by ada" in post.attachment["text"]
    assert "cmd" not in post.attachment["text"]
    assert task["id"].removeprefix("task_") not in post.attachment["text"]  # it stands where it was asked for
    assert [action["name"] for action in post.attachment["actions"]] == ["Again", "Make a video of it"]


async def test_attached_pictures_go_along(chat: Chat) -> None:
    """Fetched from the platform, for the provider cannot open them there."""
    files = {name: png(shade) for shade, name in enumerate(FILES)}
    response = await chat.tell(chat.mattermost.said("kling video it moves duration=10", files=files))
    assert (response.status_code, response.json()) == (200, {})
    await chat.until_submitted()
    [create] = chat.klingel.kling.creates
    assert (create["prompt"], create["duration"], len(create["image_list"])) == ("it moves", "10", 2)
    assert not create["image_list"][0]["image"].startswith("http")
    post = await chat.until_shown("Video submitted")
    assert post.root == next(iter(chat.mattermost.posts))


async def test_why_a_task_failed_is_said(chat: Chat) -> None:
    await chat.say(ASKED)
    task = await chat.until_submitted()
    await chat.klingel.call_back(callback(task, "failed", task_status_msg="too *dark*"))
    post = await chat.until_shown("Picture failed")
    assert r"too \*dark\*" in post.attachment["text"]


async def test_what_the_provider_refuses_is_said(chat: Chat) -> None:
    chat.klingel.kling.answers(refused(400, 1201, "bad picture"))
    await chat.say(ASKED)
    post = await chat.until_shown("Picture refused")
    assert "bad picture" in post.attachment["text"]


# Once


async def test_the_same_command_again_is_no_second_task(chat: Chat) -> None:
    """Also when both come at once, and when it comes again after the task has ended."""
    body = chat.mattermost.command(ASKED)
    answers = await asyncio.gather(*(chat.tell(body) for _ in range(5)))
    assert {answer.json()["text"] for answer in answers} == {"On its way."}
    task = await chat.until_submitted()
    await chat.klingel.call_back(succeed(task))
    await chat.until_shown("Picture ready")
    assert (await chat.tell(body)).json()["text"] == "On its way."
    await chat.until_done()
    assert len(chat.klingel.kling.creates) == len(await chat.tasks()) == 1


async def test_a_command_that_was_written_down_survives_a_crash(
    tmp_path: Path, mattermost: FakeMattermost
) -> None:
    """Answered, but nothing was begun; by a process that only answers."""
    async with running_klingel(tmp_path / "one", roles="web") as klingel:
        chat = await opened_chat(klingel, mattermost)
        await chat.say(ASKED)
        assert klingel.kling.creates == []
        left = await klingel.snapshot(tmp_path / "two")
    async with running_klingel(left) as klingel:
        again = Chat(klingel, mattermost, chat.bot)
        await again.until_submitted()
        await again.until_shown("Picture submitted")


async def test_a_crash_between_the_task_and_the_note_of_it_makes_no_second_one(
    tmp_path: Path, mattermost: FakeMattermost
) -> None:
    """However long nobody started it again: longer than an idempotency key is remembered. Its pictures may be gone."""
    kling, clock = FakeKling(), ManualClock()
    files = {name: png(shade) for shade, name in enumerate(FILES)}
    async with running_klingel(tmp_path / "one", kling=kling, clock=clock) as klingel:
        chat = await opened_chat(klingel, mattermost)
        await chat.tell(mattermost.said("kling image a cat", files=files))
        task = await chat.until_submitted()
        await chat.until_done()
        left = await klingel.snapshot(tmp_path / "two")
    mattermost.files.clear()
    klingel.places.rows(
        left,
        "update commands set task_id = null, tries = 0, next_try_at = created_at, taken_by = ?",
        klingel.state["presence"].id,
    )
    clock.advance(days=3)
    async with running_klingel(left, kling=kling, clock=clock) as klingel:
        again = Chat(klingel, mattermost, chat.bot)
        await again.until_done()
        assert [one["id"] for one in await again.tasks()] == [task["id"]]
        assert klingel.rows("select task_id from commands") == [{"task_id": task["id"]}]
    assert len(kling.creates) == 1
    assert chat.told == []


# Who may


@pytest.mark.parametrize(
    ("allow", "may"),
    [
        ([], False),
        ([{"user": "somebody"}], False),
        ([{"user": USER, "chat": ELSEWHERE}], False),
        ([{"workspace": "w"}, {"user": USER, "chat": CHANNEL}], True),
    ],
)
async def test_a_bot_obeys_those_it_was_told_to(
    klingel: Klingel, mattermost: FakeMattermost, allow: list[dict[str, str]], may: bool
) -> None:
    chat = await opened_chat(klingel, mattermost, allow=allow)
    for text in (ASKED, "status", "help"):
        assert ("may not take orders" in await chat.say(text)) is not may
    assert len(klingel.rows("select id from commands")) == may


async def test_a_name_is_no_proof(klingel: Klingel, mattermost: FakeMattermost) -> None:
    chat = await opened_chat(klingel, mattermost, allow=[{"user": "ada"}])
    assert "may not take orders" in await chat.say(ASKED, user_name="ada")


async def test_a_strangers_buttons_do_nothing(chat: Chat) -> None:
    await chat.say(ASKED)
    await chat.klingel.call_back(succeed(await chat.until_submitted()))
    await chat.until_shown("Picture ready")
    told = await chat.press("Again", user_id="stranger", channel_id=ELSEWHERE)
    assert "may not take orders" in told
    assert len(chat.klingel.rows("select id from commands")) == 1


async def test_one_person_has_only_so_many_tasks_open(klingel: Klingel, mattermost: FakeMattermost) -> None:
    chat = await opened_chat(klingel, mattermost, open_tasks=2)
    said = await asyncio.gather(*(chat.say(ASKED) for _ in range(4)))
    assert sorted(words[:10] for words in said) == ["On its way", "On its way", "You have 2", "You have 2"]
    assert await chat.say(ASKED, user_id="another") == "On its way."
    await chat.until_submitted(3)
    assert "You have 2 tasks open already" in await chat.say(ASKED)
    mine = next(one for one in await chat.tasks() if one["metadata"]["user"] == USER)
    numbers = [mine["id"] in create["callback_url"] for create in klingel.kling.creates]
    await klingel.call_back(succeed(mine), number=numbers.index(True))
    assert await chat.say(ASKED) == "On its way."


async def test_a_lost_callback_holds_nobodys_place_once_its_task_is_overdue(
    klingel: Klingel, mattermost: FakeMattermost
) -> None:
    chat = await opened_chat(klingel, mattermost, open_tasks=1)
    await chat.say(ASKED)
    lost = await chat.until_submitted()
    assert "You have a task open already" in await chat.say(ASKED)
    klingel.clock.advance(minutes=15)
    await klingel.until_row(lost["id"], overdue_at=milliseconds(klingel.clock()))
    assert await chat.say(ASKED) == "On its way."
    await chat.until_submitted(2)
    assert "You have a task open already" in await chat.say(ASKED)


async def test_what_is_overdue_before_it_was_sent_holds_its_place(
    klingel: Klingel, mattermost: FakeMattermost
) -> None:
    """It may still be made, and paid for."""
    klingel.kling.otherwise = refused(429, 1303)
    chat = await opened_chat(klingel, mattermost, open_tasks=1)
    await chat.say(ASKED)
    await chat.until_done()
    [waiting] = await chat.tasks()
    klingel.clock.advance(minutes=15)
    await klingel.until_row(waiting["id"], overdue_at=milliseconds(klingel.clock()))
    assert "You have a task open already" in await chat.say(ASKED)


@pytest.mark.parametrize(
    "body", [b"", b"token=", b"\xff", b'{"token": 1}', b"token=gr4u5hp1rjg1mxm9gcqo8x5c1f&command=/kling"]
)
async def test_what_is_forged_is_refused(chat: Chat, body: bytes) -> None:
    assert (await chat.tell(body)).status_code == 401
    assert (await chat.tell(body, content_type="application/json")).status_code == 401


async def test_there_is_no_bot_but_at_its_own_address(chat: Chat) -> None:
    body = chat.mattermost.command("help")
    for path in (chat.path[:-1], chat.path.replace("mattermost", "nowhere"), "/chat/mattermost/bot_1"):
        response = await chat.klingel.http.post(path, content=body)
        assert (response.status_code, response.text) == (404, "Not found\n")
    assert (await chat.klingel.http.post(chat.path, content=b"x" * 1024 * 1025)).status_code == 413


# What cannot be


async def test_faults_of_what_was_asked_for_are_told(chat: Chat) -> None:
    assert await chat.say(f"image a cat n=99 aspect_ratio=5:4 {picture('a')}") == "On its way."
    await chat.until_done()
    await chat.mattermost.until(1)
    [told] = chat.told
    assert told.startswith("I cannot submit that:")
    assert told.count("\n- ") == 2
    assert chat.klingel.kling.creates == []


@pytest.mark.parametrize(
    ("command", "type"),
    [
        ("image a cat", "kling.image-generation"),
        ("video a cat", "kling.text-to-video"),
        (f"video a cat {picture('a')}", "kling.image-to-video"),
    ],
)
async def test_words_alone_or_one_picture_are_enough(chat: Chat, command: str, type: str) -> None:
    assert await chat.say(command) == "On its way."
    await chat.klingel.kling.until(1)
    [task] = (await chat.klingel.http.get("/v1/tasks")).json()["items"]
    assert (task["type"], chat.klingel.kling.creates[0]["prompt"]) == (type, "a cat")


async def test_a_picture_that_is_none_is_told_of(chat: Chat) -> None:
    files = {FILES[0]: b"<html>", FILES[1]: png()}
    await chat.tell(chat.mattermost.said("kling image a cat", files=files))
    await chat.until_done()
    await chat.mattermost.until(3)
    assert chat.post.message.startswith("I cannot submit that:")


async def test_a_picture_that_does_not_come_now_is_fetched_later(chat: Chat) -> None:
    files = {FILES[0]: png()}
    chat.mattermost.answers(503)
    await chat.tell(chat.mattermost.said("kling image a cat", files=files))

    async def tried() -> bool:
        return chat.klingel.rows("select tries from commands") == [{"tries": 1}]

    await chat.klingel.until(tried)
    assert chat.klingel.kling.creates == []
    chat.klingel.clock.advance(seconds=2)
    await chat.until_submitted()


async def test_a_picture_that_never_comes_is_told_of(chat: Chat) -> None:
    chat.mattermost.next_answers = [(503, {}, "")] * 5
    files = {FILES[0]: png()}
    await chat.tell(chat.mattermost.said("kling image a cat", files=files))
    for tries in range(1, 6):

        async def tried(tries: int = tries) -> bool:
            [row] = chat.klingel.rows("select tries from commands")
            return bool(row["tries"] == tries)

        await chat.klingel.until(tried)
        chat.klingel.clock.advance(minutes=1)
    await chat.mattermost.until(6)
    assert "I could not submit it: the platform answered 503" in chat.post.message
    assert chat.klingel.kling.creates == []


async def test_a_picture_that_is_gone_is_told_of_at_once(chat: Chat) -> None:
    await chat.tell(chat.mattermost.said("kling image a cat", file_ids=FILES[0]))
    await chat.until_done()
    await chat.mattermost.until(2)
    assert "I cannot have a picture that you attached" in chat.post.message


async def test_pictures_that_hang_hold_up_nobody_elses_commands(
    klingel: Klingel, mattermost: FakeMattermost
) -> None:
    slow = await opened_chat(klingel, mattermost)
    async with running_mattermost() as another:
        chat = await opened_chat(klingel, another)
        mattermost.gate = asyncio.Event()
        for number in range(6):
            said = mattermost.said("kling image a cat", file_ids=FILES[0], user_id=f"user{number}")
            assert (await slow.tell(said)).status_code == 200
        await mattermost.until(4)
        await chat.say(ASKED)
        await chat.until_submitted()
        assert len(mattermost.requests) == 4  # so many commands of one bot at a time
        mattermost.gate.set()


# Somebody's too many


async def test_more_pictures_than_a_task_takes_are_refused_before_any_is_fetched(chat: Chat) -> None:
    names = [f"{number:026d}" for number in range(100)]
    files = dict.fromkeys(names, png(1))
    await chat.tell(chat.mattermost.said("kling image a cat", files=files))
    await chat.until_done()
    await chat.mattermost.until(1)
    assert "it takes at most 4 pictures" in chat.post.message
    assert [call for call in chat.mattermost.calls if "/files/" in call] == []


async def test_an_accounts_many_bots_hold_up_no_other_accounts_commands(
    klingel: Klingel, mattermost: FakeMattermost
) -> None:
    mattermost.gate = asyncio.Event()
    async with klingel.another_account() as other, running_mattermost() as another:
        for number in range(AT_A_TIME // AT_A_TIME_OF_BOT):
            made = await other.post("/v1/bots", json=bot_body(mattermost.url))
            slow = Chat(klingel, mattermost, made.json())
            for turn in range(AT_A_TIME_OF_BOT):
                user = f"user{number}of{turn}"
                await slow.tell(mattermost.said("kling image a cat", file_ids=FILES[0], user_id=user))
        await mattermost.until(AT_A_TIME_OF_ACCOUNT)
        chat = await opened_chat(klingel, another)
        await chat.say(ASKED)
        await chat.until_submitted()
        assert len(mattermost.requests) == AT_A_TIME_OF_ACCOUNT
        mattermost.gate.set()


async def test_pictures_wait_for_room_in_memory_and_that_counts_as_no_try(chat: Chat) -> None:
    klingel = chat.klingel
    large = dict.fromkeys(FILES, b"\x89PNG" + bytes(SMALL_BODY))
    room = klingel.state["shares"].bodies
    with room.hold("one") as one, room.hold("two") as two:
        for holding in (one, two):
            holding.grow_to(BODIES_BYTES_OF_ONE + SMALL_BODY)
        await chat.tell(chat.mattermost.said("kling image a cat", files=large))

        async def is_put_off() -> bool:
            [row] = klingel.rows("select created_at, next_try_at, tries from commands")
            assert row["tries"] == 0
            return bool(row["next_try_at"] == row["created_at"] + 2000)

        await klingel.until(is_put_off)
    klingel.clock.advance(seconds=2)
    await chat.until_done()
    assert klingel.rows("select tries from commands") == [{"tries": 1}]


async def test_what_fetched_pictures_take_is_given_back(chat: Chat) -> None:
    await chat.tell(
        chat.mattermost.said("kling image a cat", files=dict.fromkeys(FILES, bytes(SMALL_BODY * 2)))
    )
    await chat.until_done()
    room = chat.klingel.state["shares"].bodies
    with room.hold("one") as one, room.hold("two") as two:
        for holding in (one, two):
            holding.grow_to(BODIES_BYTES_OF_ONE + SMALL_BODY)  # all that there is


async def test_only_so_many_commands_of_a_bot_wait(tmp_path: Path, mattermost: FakeMattermost) -> None:
    async with running_klingel(tmp_path, roles="web") as klingel:
        chat = await opened_chat(klingel, mattermost)
        for number in range(WAITING_OF_BOT):
            assert await chat.say(ASKED, user_id=f"user{number}") == "On its way."
        assert (await chat.say(ASKED, user_id="late")).startswith("Too much is waiting here already")
        another = await opened_chat(klingel, mattermost)
        assert await another.say(ASKED, user_id="late") == "On its way."


# Words


async def test_help_and_what_is_not_understood_are_answered_at_once(chat: Chat) -> None:
    assert "aspect" in await chat.say("help")
    assert await chat.say("") == await chat.say("help")
    assert "dance" in await chat.say("dance")
    assert chat.klingel.rows("select id from commands") == []


async def test_status_shows_ones_own_tasks_and_nobody_elses(chat: Chat) -> None:
    assert "asked for nothing yet" in await chat.say("status")
    await chat.say(ASKED)
    task = await chat.until_submitted()
    assert await chat.say("status") == "submitted: a cat in a hat"
    await chat.klingel.call_back(succeed(task))
    status = await chat.say("status")
    assert status.startswith("succeeded: a cat in a hat")
    assert picture("out").partition("/")[0] in status
    assert "asked for nothing yet" in await chat.say("status", user_id="another")


# Buttons


async def test_again_makes_the_same_once_more(chat: Chat) -> None:
    files = {name: png(shade) for shade, name in enumerate(FILES)}
    await chat.tell(chat.mattermost.said("kling image a cat n=2", files=files))
    await chat.klingel.call_back(succeed(await chat.until_submitted()))
    await chat.until_shown("Picture ready")
    assert await chat.press("Again") == "On its way."
    await chat.until_submitted(2)
    first, second = chat.klingel.kling.creates
    names = ("prompt", "n", "subject_image_list")
    assert [first[name] for name in names] == [second[name] for name in names]
    await chat.until_shown("Picture submitted")
    assert "a cat" in chat.post.attachment["text"]


async def test_a_video_is_made_of_what_was_made(chat: Chat) -> None:
    await chat.say(ASKED)
    await chat.klingel.call_back(succeed(await chat.until_submitted()))
    await chat.until_shown("Picture ready")
    await chat.press("Make a video of it")
    task = await chat.until_submitted(2)
    assert task["type"] == "kling.multi-image-to-video"
    create = chat.klingel.kling.creates[1]
    assert create["prompt"] == "a cat in a hat"
    assert [one["image"] for one in create["image_list"]] == [picture("out"), picture("a"), picture("b")]


async def test_a_button_pressed_twice_by_the_platform_counts_once(chat: Chat) -> None:
    await chat.say(ASKED)
    await chat.klingel.call_back(succeed(await chat.until_submitted()))
    await chat.until_shown("Picture ready")
    for _ in range(2):
        await chat.press("Again", trigger_id="the same")
    await chat.until_submitted(2)
    await chat.until_done()
    assert len(await chat.tasks()) == 2


async def test_a_button_of_another_bots_task_does_nothing(chat: Chat) -> None:
    """Although they have an account and a server in common, and so the proof is good."""
    await chat.say(ASKED)
    await chat.klingel.call_back(succeed(await chat.until_submitted()))
    await chat.until_shown("Picture ready")
    other = await opened_chat(chat.klingel, chat.mattermost)
    _, body = chat.mattermost.press(list(chat.mattermost.posts)[-1], "Again")
    assert (await other.tell(body, content_type="application/json")).status_code == 200
    await other.until_done()
    assert len(await chat.tasks()) == 1


# One message


async def test_an_older_event_that_comes_later_shows_nothing(chat: Chat) -> None:
    chat.mattermost.answers(500)
    await chat.say(ASKED)
    task = await chat.until_submitted()
    await chat.klingel.until(lambda: _attempted(chat.klingel))
    await chat.klingel.call_back(succeed(task))
    await chat.until_shown("Picture ready")
    chat.klingel.clock.advance(minutes=1)
    found = await chat.klingel.until_deliveries("delivered", "delivered")
    assert found[0]["reason"] == "a later state is shown already"
    assert len(chat.mattermost.posts) == len(chat.post.history) == 1


async def _attempted(klingel: Klingel) -> bool:
    return bool(klingel.rows("select 1 from attempts"))


async def test_two_events_at_once_make_one_message(chat: Chat) -> None:
    chat.mattermost.gate = asyncio.Event()
    await chat.say(ASKED)
    task = await chat.until_submitted()
    await chat.mattermost.until(1)
    await chat.klingel.call_back(callback(task, "processing"))
    await chat.klingel.call_back(succeed(task))
    chat.mattermost.gate.set()
    await chat.klingel.until_deliveries("delivered", "delivered", "delivered")
    assert len(chat.mattermost.posts) == 1
    assert chat.post.attachment["title"] == "Picture ready"


async def test_where_nothing_can_be_edited_the_end_is_said_once(
    tmp_path: Path, mattermost: FakeMattermost
) -> None:
    """However many of the outputs are kept after it."""
    async with running_klingel(tmp_path, store_url=None) as klingel, running_cdn() as cdn:
        chat = await opened_chat(klingel, mattermost, allow=[{"chat": ELSEWHERE}])
        await chat.say(ASKED + " n=2", channel_id=ELSEWHERE)
        task = await chat.until_submitted()
        images = [
            {"index": number, "url": cdn.at(f"/{number}.png", sends(png(90 + number)))} for number in (0, 1)
        ]
        await klingel.call_back(callback(task, "succeed", task_result={"images": images}))
        told = await klingel.until_deliveries(*["delivered"] * 4)
        assert [one["event_type"] for one in told][2:] == ["output.stored"] * 2
        [said] = mattermost.responses
        assert said["attachments"][0]["title"] == "2 pictures ready"


async def test_a_restart_goes_on_with_the_same_message(tmp_path: Path, mattermost: FakeMattermost) -> None:
    kling = FakeKling()
    async with running_klingel(tmp_path, kling=kling) as klingel:
        chat = await opened_chat(klingel, mattermost)
        await chat.say(ASKED)
        task = await chat.until_submitted()
        await klingel.until_deliveries("delivered")
    async with running_klingel(tmp_path, kling=kling) as klingel:
        await klingel.call_back(succeed(task))
        await Chat(klingel, mattermost, chat.bot).until_shown("Picture ready")
    assert len(mattermost.posts) == 1


async def test_a_deleted_bot_hears_and_says_nothing_more(chat: Chat) -> None:
    await chat.say(ASKED)
    task = await chat.until_submitted()
    await chat.until_shown("Picture submitted")
    assert (await chat.klingel.http.delete(f"/v1/bots/{chat.bot['id']}")).status_code == 204
    assert (await chat.tell(chat.mattermost.command(ASKED))).status_code == 404
    await chat.klingel.call_back(succeed(task))
    [_, last] = await chat.klingel.until_deliveries("delivered", "dead")
    assert last["reason"] == "its bot was deleted"
    assert (await chat.klingel.task(task["id"]))["status"] == "succeeded"
    assert chat.klingel.rows("select credentials from bots") == [{"credentials": None}]


async def test_what_a_deleted_bot_was_asked_and_had_not_begun_is_forgotten(
    tmp_path: Path, mattermost: FakeMattermost
) -> None:
    async with running_klingel(tmp_path / "one", roles="web") as klingel:
        chat = await opened_chat(klingel, mattermost)
        await chat.say(ASKED)
        await klingel.http.delete(f"/v1/bots/{chat.bot['id']}")
        left = await klingel.snapshot(tmp_path / "two")
    async with running_klingel(left) as klingel:
        await Chat(klingel, mattermost, chat.bot).until_done()
        assert klingel.rows("select id from tasks") == []


# Endpoints of one's own


async def test_an_incoming_webhook_is_told_the_end_alone(
    klingel: Klingel, mattermost: FakeMattermost
) -> None:
    """It cannot edit, and three messages for a task are two too many; whoever wants them says so."""
    config = {"webhook_url": f"{mattermost.url}/hooks/{HOOK}"}
    shown = await klingel.endpoint(kind="mattermost", config=config)
    assert shown["config"] == {"webhook_url": "••••"}
    task = await klingel.submit()
    await klingel.call_back(callback(task, "processing"))
    await klingel.call_back(succeed(task))
    await klingel.until_deliveries(*["delivered"] * 3)
    [sent] = mattermost.hooked
    assert sent["attachments"][0]["title"] == "Picture ready"
    assert "actions" not in sent["attachments"][0]
    changed = {"config": {"updates": "each"}}
    assert (await klingel.http.patch(f"/v1/endpoints/{shown['id']}", json=changed)).status_code == 200
    await klingel.submit()
    await klingel.until_deliveries(*["delivered"] * 4)
    assert len(mattermost.hooked) == 2


@pytest.mark.parametrize("updates", ["edited", "final", "each"])
async def test_a_chat_of_ones_own_is_told_of_which_task_and_what_was_asked_for(
    klingel: Klingel, mattermost: FakeMattermost, updates: str
) -> None:
    """Also when its message is edited, which takes the place of all that it said."""
    config = {"server": mattermost.url, "bot_token": BOT_TOKEN, "channel_id": CHANNEL, "updates": updates}
    await klingel.endpoint(kind="mattermost", config=config)
    task = await klingel.submit(input=IMAGE_INPUT | {"prompt": "a cat\nin a hat"})
    await klingel.call_back(succeed(task))
    await klingel.until_deliveries("delivered", "delivered")
    told = [one for post in mattermost.posts.values() for one in post.history]
    assert len(told) == (1 if updates == "final" else 2)
    for one in told:
        text = one["props"]["attachments"][0]["text"].replace("\\_", "_")
        assert "> a cat in a hat\n" in text
        assert task["id"] in text


async def test_a_dead_chat_is_not_well_again_with_each_event_that_is_not_for_it(
    klingel: Klingel, mattermost: FakeMattermost
) -> None:
    """Of each task that begins it is told nothing, which proves nothing of it: it rests, and its failures add up."""
    config = {"webhook_url": f"{mattermost.url}/hooks/{HOOK}"}
    chat = await klingel.endpoint(kind="mattermost", config=config)
    for number in range(1, BREAKS_AFTER + 1):
        mattermost.answers(500)
        await klingel.call_back(succeed(await klingel.submit()))
        told = ["delivered", "pending"] * number

        async def has_failed(told: list[str] = told) -> bool:
            shown = await klingel.deliveries()
            return [one["status"] for one in shown] == told and all(one["attempts"] for one in shown)

        await klingel.until(has_failed)
    shown = (await klingel.http.get(f"/v1/endpoints/{chat['id']}")).json()
    assert (shown["failures"], shown["failing_since"]) == (BREAKS_AFTER, "2026-11-22T12:00:00.000Z")
    await klingel.endpoint()
    await klingel.call_back(succeed(await klingel.submit()))
    await klingel.receiver.until(2)
    assert len(mattermost.requests) == BREAKS_AFTER  # it rests
    klingel.clock.advance(seconds=1)
    await mattermost.until(BREAKS_AFTER + 1)


async def test_a_test_event_reaches_a_chat(klingel: Klingel, mattermost: FakeMattermost) -> None:
    config = {"webhook_url": f"{mattermost.url}/hooks/{HOOK}"}
    endpoint = await klingel.endpoint(kind="mattermost", config=config)
    assert (await klingel.http.post(f"/v1/endpoints/{endpoint['id']}/test")).status_code == 202
    await klingel.until_deliveries("delivered")
    assert mattermost.hooked[0]["attachments"][0]["title"] == "Klingel rings"


async def test_a_bots_place_cannot_be_named_by_others(klingel: Klingel, chat: Chat) -> None:
    """An endpoint that a caller makes speaks with its own tokens, not with a bot's."""
    for config in (
        {"bot": chat.bot["id"]},
        {"bot": chat.bot["id"], "webhook_url": "https://example.com/hooks/x"},
    ):
        response = await klingel.http.post("/v1/endpoints", json={"kind": "mattermost", "config": config})
        assert response.status_code == 422
        assert "#/config/bot" in [fault["pointer"] for fault in response.json()["errors"]]


# Upkeep


async def test_what_was_said_is_forgotten_with_its_events(chat: Chat) -> None:
    klingel = chat.klingel
    config = {"server": chat.mattermost.url, "bot_token": "q4k8o7p5zjdpdnnm8ecqrxcbde", "channel_id": CHANNEL}
    await klingel.endpoint(kind="mattermost", config=config)
    await chat.say(ASKED)
    await klingel.call_back(succeed(await chat.until_submitted()))
    await chat.say(ASKED)
    await chat.until_submitted(2)
    await klingel.until_deliveries(*["delivered"] * 6)
    assert len(klingel.rows("select * from chat_messages")) == 4
    klingel.clock.now += timedelta(
        days=2 * 365
    )  # nobody is woken: what is counted is this order's work alone
    forgotten = (await klingel.http.post("/v1/prune")).json()
    assert (forgotten["commands"], forgotten["tasks"]) == (1, 1)
    # What is open is kept, and so is what it says.
    assert len(klingel.rows("select * from commands")) == 1
    assert len(klingel.rows("select * from chat_messages")) == 2


async def test_a_rotated_secret_opens_what_the_former_one_sealed(
    tmp_path: Path, mattermost: FakeMattermost
) -> None:
    old, new = "a-secret-for-tests-0123456789", "another-secret-for-tests-9876543210"
    kling = FakeKling()
    async with running_klingel(tmp_path, kling=kling) as klingel:
        chat = await opened_chat(klingel, mattermost)
        await chat.say(ASKED)
        task = await chat.until_submitted()
        await klingel.until_deliveries("delivered")
    async with running_klingel(tmp_path, kling=kling, secret=f"{new},{old}") as klingel:
        again = Chat(klingel, mattermost, chat.bot)
        await klingel.call_back(succeed(task))
        await again.until_shown("Picture ready")
        assert await again.say(ASKED) == "On its way."
        await again.until_submitted(2)
    async with running_klingel(tmp_path, kling=kling, secret=new) as klingel:
        response = await Chat(klingel, mattermost, chat.bot).tell(mattermost.command(ASKED))
        assert response.status_code == 503  # the platform may ask again when it is put right


async def test_no_secret_and_no_prompt_lies_open_on_the_disk(chat: Chat) -> None:
    await chat.say(ASKED)
    await chat.until_submitted()
    await chat.until_shown("Picture submitted")
    rows = json.dumps(
        [chat.klingel.rows(f"select * from {table}") for table in ("bots", "commands", "endpoints")]
    )
    for secret in (
        "gr4u5hp1rjg1mxm9gcqo8x5c1e",
        "q4k8o7p5zjdpdnnm8ecqrxcbde",
        "/hooks/commands/",
        "a cat in a hat",
    ):
        assert secret not in rows


def test_the_far_side_and_klingel_have_one_clock() -> None:
    assert FakeMattermost().now == START
