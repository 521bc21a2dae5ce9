from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.providers.sandbox import Fault, SandboxSettings
from handlers.providers.sandbox.faults import REFUSALS, Draws, faults_in
from handlers.providers.sandbox.lives import callbacks_at, pace
from handlers.providers.sandbox.settings import SettingsError, changed, shown
from handlers.providers.sandbox.tasks import Status

LIFE = (Status.SUBMITTED, Status.PROCESSING, Status.SUCCEED)


def callbacks(*faults: Fault, ending: Status = Status.SUCCEED) -> list[str]:
    return [
        word
        for change in (Status.SUBMITTED, Status.PROCESSING, ending)
        for word in callbacks_at(change, ending=ending, faults=frozenset(faults))
    ]


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_is_found_by_its_word_in_a_prompt(fault: Fault) -> None:
    assert faults_in(f"a cat, sandbox:{fault}. In rain") == {fault: None}


def test_a_prompt_may_hold_several_words_and_counts() -> None:
    prompt = "sandbox:1303*2 a cat (sandbox:5000-after-accepting) Sandbox:SLOW, sandbox:nonsense sandbox:"
    assert faults_in(prompt) == {
        Fault.TOO_MANY_TASKS: 2,
        Fault.INTERNAL_AFTER_ACCEPTING: None,
        Fault.SLOW: None,
    }


def test_a_prompt_that_only_speaks_of_a_sandbox_asks_for_nothing() -> None:
    assert faults_in("children in a sandbox: slow, mysandbox:fail") == {}


def test_a_counted_refusal_is_used_up_per_subject() -> None:
    draws = Draws()
    asked = faults_in("sandbox:1303*2 sandbox:504*1")
    assert [draws.refusal(asked, subject="a") for _ in range(4)] == [
        Fault.TOO_MANY_TASKS,
        Fault.TOO_MANY_TASKS,
        Fault.GATEWAY_TIMEOUT,
        None,
    ]
    assert draws.refusal(asked, subject="b") is Fault.TOO_MANY_TASKS


def test_an_uncounted_refusal_is_never_used_up() -> None:
    draws = Draws()
    assert {draws.refusal({Fault.HTML: None}, subject="a") for _ in range(5)} == {Fault.HTML}


def test_refusals_never_reach_an_accepted_task() -> None:
    assert Draws().accepted(dict.fromkeys(Fault), subject="a") == set(Fault) - set(REFUSALS)


def test_without_faults_each_change_is_called_back_once_in_order() -> None:
    assert callbacks() == list(LIFE)
    assert callbacks(ending=Status.FAILED) == ["submitted", "processing", "failed"]


def test_reordered_callbacks_come_newest_first_and_only_at_the_end() -> None:
    assert callbacks(Fault.REORDER) == ["succeed", "processing", "submitted"]
    assert callbacks_at(Status.PROCESSING, ending=Status.SUCCEED, faults=frozenset({Fault.REORDER})) == ()


def test_duplicates_come_at_once_and_again_after_the_end() -> None:
    assert callbacks(Fault.DUPLICATE) == [
        *("submitted", "submitted", "processing", "processing", "succeed", "succeed"),
        *LIFE,
    ]


def test_a_contradiction_follows_the_end() -> None:
    assert callbacks(Fault.CONTRADICT) == [*LIFE, "failed"]
    assert callbacks(Fault.CONTRADICT, ending=Status.FAILED)[-2:] == ["failed", "succeed"]


@settings(deadline=None)
@given(st.frozensets(st.sampled_from(Fault)))
def test_never_silences_every_other_fault(faults: frozenset[Fault]) -> None:
    assert callbacks(*faults, Fault.NEVER) == []


@settings(deadline=None)
@given(st.frozensets(st.sampled_from(Fault)).filter(lambda faults: Fault.NEVER not in faults))
def test_every_status_is_called_back_whatever_else_goes_wrong(faults: frozenset[Fault]) -> None:
    assert set(callbacks(*faults)) >= set(LIFE)


def test_a_slow_task_takes_ten_times_as_long_and_an_early_one_no_time() -> None:
    step = timedelta(seconds=2)
    assert pace(step, frozenset()) == step
    assert pace(step, frozenset({Fault.SLOW})) == timedelta(seconds=20)
    assert pace(step, frozenset({Fault.EARLY, Fault.SLOW})) == timedelta(0)


def test_a_change_of_settings_keeps_what_it_does_not_name() -> None:
    after = changed(SandboxSettings(slots=3), {"faults": ["slow", "1303"], "step_s": 0.25, "hang_s": 1})
    assert (after.slots, after.step, after.hang) == (3, timedelta(milliseconds=250), timedelta(seconds=1))
    assert after.faults == {Fault.SLOW, Fault.TOO_MANY_TASKS}
    assert changed(after, {"slots": None}).slots is None
    assert shown(after)["faults"] == ["1303", "slow"]


def test_all_faults_of_a_change_are_reported_together() -> None:
    with pytest.raises(SettingsError) as refused:
        changed(SandboxSettings(), {"faults": ["slwo"], "step_s": -1, "slots": True, "colour": 1})
    for name in ("slwo", "step_s", "slots", "colour"):
        assert name in str(refused.value)


@pytest.mark.parametrize("changes", [[], None, {"faults": "slow"}, {"faults": [[]]}, {"step_s": True}])
def test_a_malformed_change_is_refused(changes: object) -> None:
    with pytest.raises(SettingsError):
        changed(SandboxSettings(), changes)


def test_secrets_are_not_in_the_text_of_settings() -> None:
    text = repr(SandboxSettings(keys=frozenset({"sk-1"}), webhook_secret="whsec_abc"))
    assert "sk-1" not in text
    assert "whsec_abc" not in text
