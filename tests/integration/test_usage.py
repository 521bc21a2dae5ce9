"""What tasks cost: told by the provider, kept, shown, summed; and budgets that end what may be spent."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.cdn import running_cdn, sends
from tests.integration.klingel import Klingel, callback, png, pointers, running_klingel, succeed


def charged(units: str, **more: Any) -> dict[str, Any]:
    return {
        "final_unit_deduction": units,
        "final_balance_deduction": {"quota": "0", "list_price": "0"},
        **more,
    }


async def spend(klingel: Klingel, units: str, **body: Any) -> dict[str, Any]:
    """A task that ended, and has cost so much."""
    task = await klingel.submit(**body)
    sent = {**task, "external_task_id": klingel.kling.creates[-1]["external_task_id"]}
    response = await klingel.call_back(succeed(sent, **charged(units)))
    assert response.status_code == 200, response.text
    return await klingel.task(task["id"])


async def usage(klingel: Klingel, **query: str) -> dict[str, Any]:
    response = await klingel.http.get("/v1/usage", params=query)
    assert response.status_code == 200, response.text
    shown: dict[str, Any] = response.json()
    return shown


def rows(shown: dict[str, Any]) -> Sequence[tuple[str | None, str, str, int]]:
    return [(item["value"], item["amount"], item["unit"], item["tasks"]) for item in shown["items"]]


async def put_budget(klingel: Klingel, **body: Any) -> httpx.Response:
    return await klingel.http.put("/v1/budgets", json=body)


# What a task has cost


async def test_a_task_shows_what_it_has_cost_once_it_has_ended(klingel: Klingel) -> None:
    task = await klingel.submit()
    assert task["cost"] is None
    ended = await spend(klingel, "16.50", metadata={"order": "1"})
    assert ended["cost"] == [{"amount": "16.5", "unit": "units"}]
    last = (await klingel.events(ended["id"]))[-1]
    assert last["data"]["task"]["cost"] == ended["cost"]


async def test_a_cost_that_comes_late_is_taken_once(klingel: Klingel) -> None:
    """The outputs were told without it; a refresh or a repeated callback tells it."""
    task = await klingel.submit()
    await klingel.call_back(succeed(task))
    assert (await klingel.task(task["id"]))["cost"] is None
    for _ in range(2):
        await klingel.call_back(succeed(task, **charged("8")))
    assert (await klingel.task(task["id"]))["cost"] == [{"amount": "8", "unit": "units"}]
    assert await klingel.verdicts(task["id"]) == ["advanced", "duplicate", "duplicate"]
    assert (await usage(klingel))["totals"] == [{"unit": "units", "amount": "8", "tasks": 1}]


async def test_an_output_that_is_kept_costs_nothing_more(tmp_path: Path) -> None:
    """Its task is changed once more by it, and has a cost by then."""
    async with running_klingel(tmp_path, store_url=None) as klingel, running_cdn() as cdn:
        task = await klingel.submit()
        outputs = [{"index": 0, "url": cdn.at("/out.png", sends(png()))}]
        await klingel.call_back(callback(task, "succeed", task_result={"images": outputs}, **charged("8")))
        await klingel.until_deliveries("delivered", kind="archive")
        assert (await klingel.event_types(task["id"]))[-1] == "output.stored"
        assert (await usage(klingel))["totals"] == [{"unit": "units", "amount": "8", "tasks": 1}]


async def test_a_failure_may_cost_nothing(klingel: Klingel) -> None:
    task = await klingel.submit()
    await klingel.call_back(callback(task, "failed", **charged("0")))
    assert (await klingel.task(task["id"]))["cost"] == []
    assert (await usage(klingel))["items"] == []


async def test_the_drop_in_api_tells_it_as_kling_does(klingel: Klingel) -> None:
    ended = await spend(klingel, "16")
    response = await klingel.http.get(f"/kling/v1/images/generations/{ended['id']}")
    data = response.json()["data"]
    assert data["final_unit_deduction"] == "16"
    assert data["final_balance_deduction"] == {"quota": "0", "list_price": "0"}


async def test_what_a_conflicting_callback_says_is_not_charged(klingel: Klingel) -> None:
    task = await klingel.submit()
    await klingel.call_back(succeed(task))
    await klingel.call_back(callback(task, "failed", **charged("99")))
    assert (await klingel.task(task["id"]))["cost"] is None
    assert (await usage(klingel))["items"] == []


async def test_a_cost_that_cannot_be_true_never_holds_up_the_result(klingel: Klingel) -> None:
    """The outputs were told beside it, and nobody would tell them again."""
    assert (await put_budget(klingel, unit="units", period="total", limit="999999999.999999999")).is_success
    for _ in range(11):
        ended = await spend(klingel, "1000000000")
        assert (ended["status"], ended["cost"]) == ("succeeded", None)
    most = {"charge_type": "unit", "amount": "1000000"}
    task = await klingel.submit()
    assert (await klingel.call_back(succeed(task, billing=[most] * 20))).status_code == 200
    assert (await usage(klingel))["totals"] == [{"unit": "units", "amount": "20000000", "tasks": 1}]
    assert (await klingel.http.get("/v1/budgets")).json()["items"][0]["spent"] == "20000000"


# Sums


async def test_usage_is_summed_by_day_type_provider_and_metadata(klingel: Klingel) -> None:
    await spend(klingel, "0.1", metadata={"customer": "7"})
    await spend(klingel, "0.2", metadata={"customer": "7"})
    klingel.clock.advance(days=1)
    await spend(klingel, "20", type="kling.multi-image-to-video", metadata={"customer": 8})
    await spend(klingel, "1")
    assert rows(await usage(klingel)) == [
        ("2026-11-22", "0.3", "units", 2),
        ("2026-11-23", "21", "units", 2),
    ]
    assert rows(await usage(klingel, by="type")) == [
        ("kling.multi-image-to-image", "1.3", "units", 3),
        ("kling.multi-image-to-video", "20", "units", 1),
    ]
    assert rows(await usage(klingel, by="provider")) == [("cometapi", "21.3", "units", 4)]
    assert rows(await usage(klingel, by="metadata.customer")) == [
        (None, "1", "units", 1),
        ("7", "0.3", "units", 2),
        ("8", "20", "units", 1),
    ]


async def test_a_span_has_both_its_days(klingel: Klingel) -> None:
    for units in ("1", "2", "4"):
        await spend(klingel, units)
        klingel.clock.advance(days=1)
    shown = await usage(klingel, **{"from": "2026-11-22", "to": "2026-11-23"})
    assert (shown["from"], shown["to"]) == ("2026-11-22", "2026-11-23")
    assert shown["totals"] == [{"unit": "units", "amount": "3", "tasks": 2}]
    by_customer = await usage(klingel, **{"from": "2026-11-23", "to": "2026-11-23", "by": "metadata.x"})
    assert rows(by_customer) == [(None, "2", "units", 1)]


async def test_units_are_never_added_together(klingel: Klingel) -> None:
    task = await klingel.submit()
    billing = [
        {"charge_type": "cash", "cash_type": "balance", "amount": "0.28", "currency": "USD"},
        {"charge_type": "unit", "amount": "4", "package_type": "image"},
    ]
    await klingel.call_back(succeed(task, billing=billing))
    shown = await usage(klingel, by="type")
    assert [(item["amount"], item["unit"]) for item in shown["items"]] == [("0.28", "USD"), ("4", "units")]
    assert [(total["amount"], total["unit"]) for total in shown["totals"]] == [
        ("0.28", "USD"),
        ("4", "units"),
    ]


async def test_ten_thousand_tenths_are_a_thousand(klingel: Klingel) -> None:
    """In binary fractions they are not."""
    task = await spend(klingel, "0.1")
    database = klingel.state["database"]
    async with database.transaction() as tx:
        row = dict(klingel.rows("select * from usage_days")[0])
        await tx.run_many("add_usage", [row] * 9999)
    assert (await usage(klingel))["totals"] == [{"unit": "units", "amount": "1000", "tasks": 10000}]
    assert task["cost"] == [{"amount": "0.1", "unit": "units"}]


async def test_accounts_do_not_see_each_others_usage(klingel: Klingel) -> None:
    await spend(klingel, "5", metadata={"customer": "7"})
    async with klingel.another_account("shop") as shop:
        for by in ("day", "type", "provider", "metadata.customer"):
            assert rows(await usage(klingel, by=by))
            assert (await shop.get("/v1/usage", params={"by": by})).json()["items"] == []
        assert (await shop.get("/v1/usage", params={"account": "default"})).status_code == 403
        assert (await shop.get("/v1/budgets")).json() == {"items": []}
    assert (await usage(klingel, account="shop"))["items"] == []
    nobody = await klingel.http.get("/v1/usage", params={"account": "nobody"})
    assert nobody.status_code == 404


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"from": "yesterday"}, "#/query/from"),
        ({"from": "2026-02-30"}, "#/query/from"),
        ({"from": "2026-11-02", "to": "2026-11-01"}, "#/query/to"),
        ({"by": "colour"}, "#/query/by"),
        ({"by": ""}, "#/query/by"),
        ({"by": "metadata."}, "#/query/by"),
        ({"colour": "red"}, "#/query/colour"),
    ],
)
async def test_a_question_that_makes_no_sense_is_told_where(
    klingel: Klingel, query: dict[str, str], pointer: str
) -> None:
    response = await klingel.http.get("/v1/usage", params=query)
    assert response.status_code == 422
    assert pointers(response) == [pointer]


# Budgets


async def test_a_spent_budget_refuses_submits_and_says_so_once_in_a_period(klingel: Klingel) -> None:
    watching = await klingel.endpoint(types=["budget.exceeded"])
    made = await put_budget(klingel, unit="units", period="day", limit="10")
    assert made.json() == {
        "account": made.json()["account"],
        "unit": "units",
        "period": "day",
        "limit": "10",
        "spent": "0",
        "exceeded": False,
        "since": "2026-11-22T00:00:00.000Z",
        "until": "2026-11-23T00:00:00.000Z",
    }
    await spend(klingel, "9.9")
    await spend(klingel, "0.1")
    [told] = await klingel.receiver.until(1)
    assert told.event["type"] == "budget.exceeded"
    assert told.event["data"]["budget"] | {"spent": "10", "exceeded": True} == told.event["data"]["budget"]
    for _ in range(2):
        refused = await klingel.http.post("/v1/tasks", json=an_order())
        assert refused.status_code == 402
        problem = refused.json()
        assert problem["type"] == "/problems/budget-exceeded"
        assert "10 of 10 units today" in problem["detail"]
        assert problem["budgets"][0]["until"] == "2026-11-23T00:00:00.000Z"
    assert len(klingel.kling.creates) == 2
    await klingel.until_deliveries("delivered", endpoint_id=watching["id"])

    klingel.clock.advance(days=1)
    await spend(klingel, "12")
    told = (await klingel.receiver.until(2))[1]
    assert told.event["data"]["budget"]["since"] == "2026-11-23T00:00:00.000Z"


async def test_a_budget_that_several_results_of_one_commit_use_up_is_said_once(klingel: Klingel) -> None:
    """After them, and after what else they tell of one task."""
    await put_budget(klingel, limit="10")
    tasks = [await klingel.submit() for _ in range(2)]
    told = [
        (callback(tasks[0], "processing"), 0),
        (succeed(tasks[0], **charged("8")), 0),
        (succeed(tasks[1], **charged("8")), 1),
    ]
    async with klingel.writes_held() as are_waiting:
        answers = []
        for number, (body, create) in enumerate(told, start=1):
            answers.append(asyncio.create_task(klingel.call_back(body, number=create)))
            await are_waiting("apply", number)
    assert {answer.status_code for answer in await asyncio.gather(*answers)} == {200}
    log = (await klingel.http.get("/v1/events", params={"order": "asc"})).json()["items"]
    assert [(event["type"], event["data"].get("task", {}).get("id")) for event in log[2:]] == [
        ("task.processing", tasks[0]["id"]),
        ("task.succeeded", tasks[0]["id"]),
        ("task.succeeded", tasks[1]["id"]),
        ("budget.exceeded", None),
    ]
    assert [event["sequence"] for event in log[:5]] == [1, 1, 2, 3, 2]
    assert (await usage(klingel))["totals"] == [{"unit": "units", "amount": "16", "tasks": 2}]


def an_order() -> dict[str, Any]:
    pictures = [{"subject_image": f"https://example.com/{name}.png"} for name in "ab"]
    return {
        "type": "kling.multi-image-to-image",
        "input": {"prompt": "a cat in a hat", "subject_image_list": pictures},
    }


async def test_a_drop_in_client_is_told_in_klings_words(klingel: Klingel) -> None:
    await put_budget(klingel, limit="0")
    response = await klingel.http.post("/kling/v1/images/generations", json=an_order()["input"])
    assert (response.status_code, response.json()["code"]) == (429, 1101)
    assert "budget" in response.json()["message"]


async def test_a_budget_of_nothing_lets_nothing_through(klingel: Klingel) -> None:
    """Also where nothing was ever spent: the first who is refused says so."""
    watching = await klingel.endpoint(types=["budget.exceeded"])
    await put_budget(klingel, limit="0")
    assert (await klingel.http.post("/v1/tasks", json=an_order())).status_code == 402
    await klingel.receiver.until(1)
    await klingel.until_deliveries("delivered", endpoint_id=watching["id"])


async def test_raising_a_limit_lets_submits_through_again(klingel: Klingel) -> None:
    await put_budget(klingel, period="total", limit="1")
    await spend(klingel, "5")
    assert (await klingel.http.post("/v1/tasks", json=an_order())).status_code == 402
    raised = await put_budget(klingel, period="total", limit="6")
    assert (raised.json()["spent"], raised.json()["until"]) == ("5", None)
    await spend(klingel, "1")
    assert (await klingel.http.post("/v1/tasks", json=an_order())).status_code == 402
    assert (await put_budget(klingel, period="total", limit=None)).status_code == 204
    await klingel.submit()
    events = (await klingel.http.get("/v1/events", params={"type": "budget.exceeded"})).json()["items"]
    assert len(events) == 2


async def test_what_was_submitted_before_is_answered_as_before(klingel: Klingel) -> None:
    """An Idempotency-Key stands for a task that is there already: it costs nothing more."""
    headers = {"idempotency-key": "once"}
    first = await klingel.http.post("/v1/tasks", json=an_order(), headers=headers)
    await put_budget(klingel, limit="0")
    again = await klingel.http.post("/v1/tasks", json=an_order(), headers=headers)
    assert again.status_code == first.status_code == 201
    assert again.json()["id"] == first.json()["id"]


async def test_one_accounts_budget_is_not_anothers(klingel: Klingel) -> None:
    async with klingel.another_account("shop") as shop:
        assert (await put_budget(klingel, account="shop", limit="0")).status_code == 200
        assert (await shop.post("/v1/tasks", json=an_order())).status_code == 402
        assert [each["account"] for each in (await shop.get("/v1/budgets")).json()["items"]] == ["shop"]
        assert (await shop.put("/v1/budgets", json={"limit": "9"})).status_code == 403
    await klingel.submit()
    assert [each["account"] for each in (await klingel.http.get("/v1/budgets")).json()["items"]] == ["shop"]


async def test_units_have_budgets_of_their_own(klingel: Klingel) -> None:
    await put_budget(klingel, unit="USD", limit="0.5")
    await spend(klingel, "1000")
    await klingel.submit()


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "#/limit"),
        ({"limit": 10}, "#/limit"),
        ({"limit": "-1"}, "#/limit"),
        ({"limit": "a lot"}, "#/limit"),
        ({"limit": "0.1234567891"}, "#/limit"),
        ({"limit": "1000000000"}, "#/limit"),
        ({"limit": "1_0"}, "#/limit"),
        ({"limit": "1e9"}, "#/limit"),
        ({"limit": " 1"}, "#/limit"),
        ({"limit": "1\n"}, "#/limit"),
        ({"limit": "-0"}, "#/limit"),
        ({"limit": "٣"}, "#/limit"),
        ({"limit": "0e-99999999999"}, "#/limit"),
        ({"limit": "1", "unit": "two words"}, "#/unit"),
        ({"limit": "1", "unit": "EUR"}, "#/unit"),
        ({"limit": "1", "unit": "usd"}, "#/unit"),
        ({"limit": "1", "period": "year"}, "#/period"),
        ({"limit": "1", "colour": "red"}, "#/colour"),
    ],
)
async def test_a_budget_that_makes_no_sense_is_refused(
    klingel: Klingel, body: dict[str, Any], pointer: str
) -> None:
    response = await put_budget(klingel, **body)
    assert response.status_code == 422
    assert pointers(response) == [pointer]


async def test_all_faults_of_a_budget_are_told_at_once(klingel: Klingel) -> None:
    response = await put_budget(klingel, limit="-1", unit="EUR", period="year", colour="red")
    assert response.status_code == 422
    assert sorted(pointers(response)) == ["#/colour", "#/limit", "#/period", "#/unit"]
    assert pointers(await put_budget(klingel, limit=None, unit="EUR", period="year")) == ["#/period"]


async def test_a_budget_of_an_unknown_unit_is_told_the_known_ones(klingel: Klingel) -> None:
    told = (await put_budget(klingel, unit="EUR", limit="1")).json()["errors"][0]["detail"]
    assert told == '"unit" must be one of units, balance, USD, CNY, test_USD, test_CNY.'
    assert (await put_budget(klingel, unit="EUR", limit=None)).status_code == 204


async def test_a_budget_of_nobody_is_not_made(klingel: Klingel) -> None:
    assert (await put_budget(klingel, account="nobody", limit="1")).status_code == 404


async def test_a_month_ends_with_its_last_day(klingel: Klingel) -> None:
    await put_budget(klingel, period="month", limit="1")
    await spend(klingel, "1")
    klingel.clock.now = datetime(2026, 11, 30, 23, 59, tzinfo=UTC)
    klingel.clock.on_move()
    assert (await klingel.http.post("/v1/tasks", json=an_order())).status_code == 402
    klingel.clock.advance(minutes=1)
    await klingel.submit()


async def test_many_at_once_may_go_beyond_a_limit_together_and_no_more_after(klingel: Klingel) -> None:
    """What is open has no known cost: said in the docs, held here."""
    await put_budget(klingel, limit="10")
    opened = await asyncio.gather(*(klingel.submit() for _ in range(3)))
    for task in opened:
        number = next(
            number
            for number, create in enumerate(klingel.kling.creates)
            if create["external_task_id"] == task["external_task_id"]
        )
        await klingel.call_back(succeed(task, **charged("8")), number=number)
    standing = (await klingel.http.get("/v1/budgets")).json()["items"][0]
    assert (standing["spent"], standing["exceeded"]) == ("24", True)
    assert (await klingel.http.post("/v1/tasks", json=an_order())).status_code == 402


async def test_a_follow_up_beyond_a_budget_is_a_dead_letter_that_says_so(klingel: Klingel) -> None:
    """A person may replay it once there is money again."""
    film = {
        "type": "kling.multi-image-to-video",
        "input": {"prompt": "x", "image_list": [{"image": "https://example.com/a.png"}] * 2},
    }
    await put_budget(klingel, limit="5")
    await spend(klingel, "5", follow_ups=[{"on": "task.succeeded", "submit": film}])
    [delivery] = await klingel.until_deliveries("dead")
    assert "budget is spent" in delivery["reason"]
    await put_budget(klingel, limit="6")
    await klingel.http.post(f"/v1/deliveries/{delivery['id']}/replay")
    await klingel.until_deliveries("dead", "delivered")
    await klingel.kling.until(2)


async def test_sums_outlive_the_tasks(klingel: Klingel) -> None:
    task = await spend(klingel, "3")
    await klingel.submit()  # its event is the newest, which stays
    klingel.clock.now += timedelta(days=400)
    await klingel.http.post("/v1/prune")
    assert (await klingel.http.get(f"/v1/tasks/{task['id']}")).status_code == 404
    shown = await usage(klingel, **{"from": "2026-11-22", "to": "2026-11-22"})
    assert shown["totals"] == [{"unit": "units", "amount": "3", "tasks": 1}]
