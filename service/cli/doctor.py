"""`klingel doctor`: runs where the server's settings are, and imports it when it is called."""

# ruff: noqa: PLC0415 - client commands would else take as long to start as the whole service does

from dataclasses import asdict
from typing import Annotated, Final

from cyclopts import Parameter
from rich.text import Text

from service.cli.session import Exit, Given
from service.cli.text import clean

STYLES: Final = {"ok": "green", "unknown": "yellow", "fault": "bold red"}


def doctor(
    *,
    provider: Annotated[
        bool,
        Parameter(negative="--no-provider", help="Ask the provider the one question. [default: yes]"),
    ] = True,
    json: Annotated[bool, Parameter(name="--json", help="Print the findings as JSON, for programs.")] = False,
    session: Given,
) -> Exit:
    """Check what Klingel needs, and say how to mend what is wrong.

    Settings, disk, database, the running server, whether callbacks come through the public URL, the provider's key,
    and the clock. Run it where the server's settings are, with `KLINGEL_API_KEY` set to an admin key.

    Klingel calls itself through the public URL, at a callback URL that no task has. The key is tried by one read that
    concerns no task and costs nothing: CometAPI's list of models, or the costs of the last day at Kling's own API.
    """
    from service.doctor import CheckVerdict, Doctor, find_settings

    settings, findings = find_settings()
    found = list(findings)
    if settings is not None:
        key = session.environ.get("KLINGEL_API_KEY") or (
            None if settings.api_key is None else settings.api_key.get_secret_value()
        )
        given = session.environ.get("KLINGEL_URL")
        patient = Doctor(
            settings=settings,
            url=(given or settings.local_url).rstrip("/"),
            url_is_given=bool(given),
            key=key,
            ask_provider=provider,
            transport=session.transport,
        )
        with session.err.status("Looking…"):
            found = list(patient.findings())
    if json:
        session.say_json({"findings": [asdict(finding) for finding in found]})
    else:
        width = max(len(finding.check) for finding in found)
        for finding in found:
            mark = Text(f"{finding.verdict:7}  ", STYLES[finding.verdict])
            session.say(mark + Text(clean(f"{finding.check:{width}}  {finding.detail}")))
            if finding.remedy is not None:
                session.say(f"{'':9}{'':{width}}  -> {finding.remedy}")
    return Exit.FAULTY if any(finding.verdict == CheckVerdict.FAULT for finding in found) else Exit.OK
