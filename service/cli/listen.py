"""`klingel listen`: an account's webhooks on a laptop that no server can reach."""

import json as codec
import time
from datetime import UTC, datetime
from typing import Annotated, Final

import httpx
from cyclopts import Parameter

from service.cli.client import View
from service.cli.session import Given, Json, Session, UsageError
from service.cli.text import clean, moment
from service.domain.secrets import new_endpoint_secret
from service.domain.signatures import InvalidSecret, check_secret, sign

TIMEOUT_S: Final = 15.0  # as long as a real attempt has


def listen(
    *,
    forward_to: Annotated[str, Parameter(help="The receiver, e.g. `http://localhost:3000/hook`.")],
    secret: Annotated[
        str | None, Parameter(help="`whsec_…` to sign with. [default: a new one, printed]")
    ] = None,
    type_: Annotated[str | None, Parameter(name="--type", help="Only events of this type.")] = None,
    since: Annotated[str | None, Parameter(help="First all that came after this event.")] = None,
    json: Json = False,
    session: Given,
) -> None:
    """Forward each event, signed like a webhook, to a receiver on this machine, and show its answers.

    For trying a receiver: what it refuses is shown, not retried. Ctrl-C ends it. With `--json`, one object a line.
    """
    _check(forward_to, secret)
    signing = secret or new_endpoint_secret()
    if secret is None:
        session.note(f"Signed with {signing}")
    with httpx.Client(transport=session.receiver_transport, timeout=TIMEOUT_S, trust_env=False) as receiver:
        for event in session.api.stream("events", since=since):
            if type_ is None or event["type"] == type_:
                _forward(session, receiver, forward_to, signing, event, json=json)


def _check(url: str, secret: str | None) -> None:
    faults = []
    if not url.startswith(("http://", "https://")):
        faults.append(f"--forward-to takes an http(s) URL, not {url}")
    if secret is not None:
        try:
            check_secret(secret)
        except InvalidSecret as error:
            faults.append(f"--secret: {error}")
    if faults:
        raise UsageError("\n".join(faults))


def _forward(
    session: Session, receiver: httpx.Client, url: str, secret: str, event: View, *, json: bool
) -> None:
    body = codec.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
    now = datetime.now(UTC)
    headers = {
        "content-type": "application/json",
        "webhook-id": event["id"],
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": sign(body, message_id=event["id"], sent_at=now, secrets=[secret]),
    }
    started = time.monotonic()
    status_code = None
    try:
        answer = receiver.post(url, content=body, headers=headers)
        status_code = answer.status_code
        result = f"{answer.status_code} {answer.reason_phrase}".rstrip()
    except httpx.HTTPError as error:
        result = f"no answer: {str(error) or type(error).__name__}"
    took = round((time.monotonic() - started) * 1000)
    if json:
        forwarded = {"event_id": event["id"], "event_type": event["type"]}
        session.say_json(
            forwarded | {"status_code": status_code, "result": result, "duration_ms": took}, indent=None
        )
        return
    session.say(
        clean(f"{moment(event['timestamp'])}  {event['type']}  {event['id']}  ->  {result}, {took} ms")
    )
