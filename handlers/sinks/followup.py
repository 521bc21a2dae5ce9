"""Follow-ups: an event of one task submits another."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from pydantic import Field
from pydantic_core import from_json, to_json

from service.delivery import Sink
from service.domain.deliveries import AttemptOutcome, Duty, Reply
from service.domain.endpoints import STEPS_OF_A_FILTER, Endpoint, selects, sift
from service.domain.errors import BudgetExceeded, Conflict, Fault, KlingelError, Unprocessable
from service.domain.expressions import Steps
from service.domain.faults import Finding, InvalidFields, accept, collecting
from service.domain.follow_ups import ANY_PARENT, FILLING, FOLLOWED, LONGEST_CHAIN, rehearse, subscription
from service.domain.lifecycle import Status
from service.domain.models import StrictModel
from service.domain.providers import ProviderAccounts
from service.domain.secrets import Vault
from service.domain.tasks import Lineage
from service.domain.templates import fill
from service.domain.values import replace
from service.submission import Draft, Submitter
from service.submits import read_follow_up, read_template, seal_template
from storage import tasks
from storage.database import Database

FILLED_AT_A_TIME: Final = 2


class FollowUpConfig(StrictModel):
    """What to submit. With `chain` also after tasks that standing rules made, and those that follow from them."""

    submit: dict[str, Any] = Field(
        description="a submit without external_task_id, whose input is filled from the event"
    )
    chain: bool = Field(
        default=False,
        description=f"also after tasks of standing rules, up to {LONGEST_CHAIN} one after another",
    )


class FollowUpSink:
    """Submits for endpoints of kind `task`, in this process: at most one task for each rule and parent."""

    def __init__(
        self,
        *,
        submitter: Submitter,
        accounts: ProviderAccounts,
        database: Database,
        sinks: Mapping[str, Sink],
        vault: Vault,
    ) -> None:
        """
        Args:
            accounts: among which the providers that templates name are looked for.
            sinks: of the endpoints that templates name.
        """
        self._submitter = submitter
        self._accounts = accounts
        self._database = database
        self._sinks = sinks
        self._vault = vault
        self._turns = CapacityLimiter(FILLED_AT_A_TIME)

    def configure(
        self, raw: object, *, pointer: str, before: Endpoint | None = None
    ) -> tuple[Mapping[str, Any], str | None]:
        if before is not None and isinstance(raw, dict):
            raw = self._changed(raw, before)
        faults: list[Fault] = []
        config: FollowUpConfig | None = None
        shown: dict[str, Any] = {}
        with collecting(faults):
            config = accept(FollowUpConfig, raw, pointer=pointer)
        fields = raw if isinstance(raw, dict) else {}
        if isinstance(fields.get("submit"), dict):
            with collecting(faults):
                shown = read_template(
                    fields["submit"],
                    sinks=self._sinks,
                    vault=self._vault,
                    accounts=self._accounts,
                    pointer=f"{pointer}/submit",
                )
        if faults or config is None:
            raise InvalidFields(faults)
        return {"submit": shown, "chain": config.chain}, seal_template(config.submit, shown, self._vault)

    def _changed(self, raw: Mapping[str, Any], before: Endpoint) -> dict[str, Any]:
        """What is not named, or is sent back as it was read, stays as it is."""
        changed = {"chain": before.config.get("chain", False), **raw}
        if changed.get("submit", before.config["submit"]) == before.config["submit"]:
            changed["submit"] = self._template(before)
        return changed

    def subscription(self, types: Sequence[str] | None) -> Sequence[str]:
        return subscription(types)

    def misfits(self, config: object, *, types: Sequence[str], pointer: str) -> Sequence[Fault]:
        faults: list[Fault] = []
        if not any(selects(types, type) for type in FOLLOWED):
            faults.append(Fault(f"A follow-up reacts to {', '.join(FOLLOWED)}.", f"{pointer}/types"))
            types = self.subscription(None)  # so that what else is wrong is told with it
        submit = config.get("submit") if isinstance(config, dict) else None
        return faults + rehearse(submit, types=types, parents=ANY_PARENT, pointer=f"{pointer}/config/submit")

    async def send(self, duty: Duty, *, now: datetime) -> Reply:
        event, rule = duty.event, duty.endpoint
        if event.task_id is None or event.type not in FOLLOWED:
            return _nothing("it is no event of a task")
        try:
            async with self._database.reading() as reader:
                parent = await tasks.get(reader, event.task_id, account_id=rule.account_id)
                made = await tasks.followed(reader, [(event.task_id, rule.id)])
                standing = await tasks.standing_rules_of_line(reader, event.task_id)
            if (task_id := made.get((event.task_id, rule.id))) is not None:
                return _done(f"submitted already: {task_id}", task_id=task_id)
            if parent is None:
                return _refused("its task is not kept any longer")
            if standing and rule.task_id is None and not rule.config.get("chain", False):
                # Also what another one made: so many rules would make so many tasks of each other's, eight deep.
                maker = "this rule made itself" if rule.id in standing else "another standing rule made"
                return _nothing(f"it follows from a task that {maker}")
            if not await run_sync(_is_wanted, duty, limiter=self._turns):
                return _nothing("the filter is not true of it")
            if parent.depth >= LONGEST_CHAIN:
                return _refused(f"the chain ends here: {LONGEST_CHAIN} follow-ups one after another")
            draft = await run_sync(self._drafted, duty, now, limiter=self._turns)
            lineage = Lineage(parent_id=parent.id, rule_id=rule.id, depth=parent.depth + 1)
            draft = replace(draft, lineage=lineage)
            stored = await self._submitter.submit(rule.account_id, draft, trace=duty.trace)
        except Unprocessable as error:
            return _invalid(error.faults, duty)
        except (Conflict, BudgetExceeded) as error:
            return _refused(error.detail)
        except KlingelError as error:
            return Reply(status_code=None, reason=error.detail, ending=AttemptOutcome.RETRY)
        return _done(f"submitted: {stored.task_id}", task_id=stored.task_id)

    def _drafted(self, duty: Duty, now: datetime) -> Draft:
        """
        Raises:
            Unprocessable: the event gives no valid task; with every fault.
        """
        template = self._template(duty.endpoint)
        filled = fill(template["input"], duty.event.content(), steps=Steps(FILLING))
        if filled.gaps:
            raise Unprocessable(
                "The event does not fill the template.",
                faults=[
                    Fault(gap.detail, "#/input" + Finding(gap.location, "").path()) for gap in filled.gaps
                ],
            )
        [sealed, *_] = duty.endpoint.signing_secrets(now)
        return read_follow_up(
            {**template, "input": filled.value},
            sinks=self._sinks,
            vault=self._vault,
            secret=self._vault.open(sealed),
        )

    def _template(self, rule: Endpoint) -> dict[str, Any]:
        """With all that is secret in it."""
        template: dict[str, Any] = (
            dict(rule.config["submit"])
            if rule.credentials is None
            else from_json(self._vault.open(rule.credentials))
        )
        return template


def _is_wanted(duty: Duty) -> bool:
    """What the filter says, with steps of its own: it is also brought what could not be asked, for want of steps or
    because the filter breaks. A message too many does little harm there; here it costs money.

    Raises:
        Unprocessable: the filter cannot be evaluated over this event.
    """
    if duty.endpoint.filter is None:
        return True
    judgement = sift(duty.endpoint.filter, duty.event.content(), Steps(STEPS_OF_A_FILTER))
    if judgement.error is not None:
        told = f"It could not be evaluated over this event: {judgement.error}"
        raise Unprocessable("The filter breaks over the event.", faults=[Fault(told, "#/filter")])
    return judgement.goes


def _done(reason: str, **excerpt: str) -> Reply:
    told = to_json(excerpt).decode() if excerpt else ""
    return Reply(status_code=None, reason=reason, excerpt=told, ending=AttemptOutcome.DELIVERED)


def _nothing(why: str) -> Reply:
    return Reply(
        status_code=None,
        reason=f"nothing is submitted for this: {why}",
        ending=AttemptOutcome.DELIVERED,
        exchanged=False,
    )


def _refused(reason: str) -> Reply:
    return Reply(status_code=None, reason=reason, ending=AttemptOutcome.DEAD)


def _invalid(faults: Sequence[Fault], duty: Duty) -> Reply:
    """It would be as invalid the next time."""
    task = duty.event.content()["data"]["task"]
    late = task["status"] == Status.SUCCEEDED and not task["outputs"]
    told = " ".join(f"{fault.pointer}: {fault.detail}" for fault in faults)
    return Reply(
        status_code=None,
        reason=f"the success came without outputs, and is tried again when they come. {told}"
        if late
        else told,
        excerpt=to_json([{"detail": fault.detail, "pointer": fault.pointer} for fault in faults]).decode(),
        ending=AttemptOutcome.DEAD,
    )
