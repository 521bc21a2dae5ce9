"""A task as Kling words it: in answers (Kling, create and query answers) and in each of the callback bodies seen."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import uuid4

from handlers.providers.sandbox.faults import Fault
from handlers.providers.sandbox.products import Kind, Ware
from handlers.providers.sandbox.tasks import Output, Status, Task, milliseconds

FAILURE: Final = "blocked by content review: the request did not pass the platform's risk control"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What one callback says: of which task, under which ids, in which status, changed when."""

    task: Task
    task_id: str
    external_task_id: str | None
    status: Status
    at: datetime

    @property
    def message(self) -> str:
        return FAILURE if self.status is Status.FAILED else ""

    @property
    def outputs(self) -> tuple[Output, ...]:
        return self.task.outputs if self.status is Status.SUCCEED else ()


def created(task: Task) -> dict[str, object]:
    moment = milliseconds(task.created_at)
    if task.order.product.is_new:
        return {
            "id": task.task_id,
            "status": Status.SUBMITTED,
            "create_time": moment,
            "update_time": moment,
            "external_id": task.external_task_id or "",
        }
    return {
        "task_id": task.task_id,
        "task_status": Status.SUBMITTED,
        "task_info": _task_info(task.external_task_id),
        "created_at": moment,
        "updated_at": moment,
    }


def queried(task: Task) -> dict[str, object]:
    notice = Notice(
        task=task,
        task_id=task.task_id,
        external_task_id=task.external_task_id,
        status=task.status,
        at=task.reached[task.status],
    )
    if task.order.product.is_new:
        return new_standard(notice)
    return {
        **legacy(notice),
        "task_result": _task_result(notice, watermark=True),
        "watermark_info": {"enabled": task.order.watermark},
    }


def legacy(notice: Notice) -> dict[str, object]:
    charged: dict[str, object] = {}
    if notice.status is Status.SUCCEED:
        charged = {
            "final_unit_deduction": _units(notice.task),
            "final_balance_deduction": {"quota": "0", "list_price": "0"},
        }
    return {
        "task_id": notice.task_id,
        "task_status": notice.status,
        "task_status_msg": notice.message,
        "task_info": _task_info(notice.external_task_id) | _parent(notice),
        "task_result": _task_result(notice),
        "created_at": milliseconds(notice.task.created_at),
        "updated_at": milliseconds(notice.at),
        **charged,
    }


def wrapped(notice: Notice) -> dict[str, object]:
    return {"code": 0, "message": "SUCCEED", "request_id": str(uuid4()), "data": legacy(notice)}


def nested(notice: Notice) -> dict[str, object]:
    """The task wrapper of a new-api gateway, Kling's object one level deeper (Kling, query answers)."""
    state, progress = _NESTED_STATES[notice.status]
    return {
        "code": "success",
        "message": "",
        "data": {
            "task_id": notice.task_id,
            "action": notice.task.order.product.name.rpartition("/")[2],
            "status": state,
            "fail_reason": notice.message,
            "progress": progress,
            "data": legacy(notice),
        },
    }


def new_standard(notice: Notice) -> dict[str, object]:
    kind = notice.task.order.product.kind
    billing = (
        [{"charge_type": "unit", "amount": _units(notice.task), "package_type": kind}]
        if notice.status is Status.SUCCEED
        else []
    )
    return {
        "id": notice.task_id,
        "status": "succeeded" if notice.status is Status.SUCCEED else notice.status,
        "message": notice.message,
        "create_time": milliseconds(notice.task.created_at),
        "update_time": milliseconds(notice.at),
        "external_id": notice.external_task_id or "",
        "outputs": [_new_output(output) for output in notice.outputs],
        "billing": billing,
    }


BODIES: Final[Mapping[Fault, Callable[[Notice], dict[str, object]]]] = {
    Fault.WRAPPED: wrapped,
    Fault.NESTED: nested,
    Fault.NEW: new_standard,
}


def callback_body(notice: Notice) -> bytes:
    """In the shape the task's faults ask for, else that of its standard."""
    usual = new_standard if notice.task.order.product.is_new else legacy
    shape = next((body for fault, body in BODIES.items() if fault in notice.task.faults), usual)
    return json.dumps(shape(notice), ensure_ascii=False, separators=(",", ":")).encode()


_NESTED_STATES: Final[Mapping[Status, tuple[str, str]]] = {
    Status.SUBMITTED: ("SUBMITTED", "10%"),
    Status.PROCESSING: ("IN_PROGRESS", "50%"),
    Status.SUCCEED: ("SUCCESS", "100%"),
    Status.FAILED: ("FAILURE", "100%"),
}
_UNITS_A_SECOND: Final[Mapping[str, int]] = {"std": 4, "pro": 7}


def _units(task: Task) -> str:
    order = task.order
    if order.product.kind is Kind.IMAGE:
        return str(8 * order.n)
    if order.product.kind is Kind.AUDIO:
        return "1"
    return str(round(order.duration_s * _UNITS_A_SECOND[order.mode]))


def _task_info(external_task_id: str | None) -> dict[str, object]:
    return {} if external_task_id is None else {"external_task_id": external_task_id}


def _task_result(notice: Notice, *, watermark: bool = False) -> dict[str, object]:
    if not notice.outputs:
        return {}
    order = notice.task.order
    extra = {"watermark_url": ""} if watermark else {}
    made: dict[Kind, list[object]] = {kind: [] for kind in order.product.kinds}
    for output in notice.outputs:
        match output.kind:
            case Kind.IMAGE:
                shown = {"index": output.index, "url": output.url, **extra}
            case Kind.VIDEO:
                shown = {
                    "id": _video_id(output),
                    "url": output.url,
                    "duration": f"{output.duration_s:.3f}",
                    **order.echoed,
                    **extra,
                }
            case Kind.AUDIO:
                shown = {
                    "id": _video_id(output),
                    "url_mp3": output.url,
                    "url_wav": output.wav_url,
                    "duration_mp3": f"{output.duration_s:.3f}",
                    "duration_wav": f"{output.duration_s:.3f}",
                }
        made[output.kind].append(shown)
    if order.is_series:
        return {"result_type": "series", "series_images": made[Kind.IMAGE]}
    return {f"{kind}s": shown for kind, shown in made.items()}


def _parent(notice: Notice) -> dict[str, object]:
    """Of which film it was made, for kinds whose answers say so."""
    product = notice.task.order.product
    if not (isinstance(product, Ware) and product.type.names_parent):
        return {}
    return {"parent_video": {"id": f"parent-of-{notice.task_id}", "url": "", "duration": "5.0"}}


def _new_output(output: Output) -> dict[str, object]:
    if output.kind is Kind.AUDIO:
        return {
            "type": output.kind,
            "id": _video_id(output),
            "mp3_url": output.url,
            "wav_url": output.wav_url,
            "mp3_duration": f"{output.duration_s:.1f}",
            "wav_duration": f"{output.duration_s:.1f}",
        }
    described: dict[str, object] = {
        "type": output.kind,
        "id": _video_id(output),
        "url": output.url,
        "watermark_url": "",
    }
    if output.duration_s is not None:
        described["duration"] = f"{output.duration_s:.1f}"
    return described


def _video_id(output: Output) -> str:
    return output.name.partition(".")[0]
