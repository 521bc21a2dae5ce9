"""Following one task over the event stream until it ends."""

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from service.cli.client import View
from service.cli.session import Exit, Given, Json, Session
from service.cli.text import clean, failure, moment, status
from service.domain.lifecycle import TERMINAL, Status


def watch(task: str, /, *, json: Json = False, session: Given) -> Exit:
    """Follow a task until it ends, then print the URLs of its outputs, if they have come by then.

    Progress goes to stderr and the URLs, one a line, to stdout.

    Args:
        task: id of the task.
    """
    return conclude(session, follow(session, session.api.get("tasks", task)), json=json)


def follow(session: Session, task: View) -> View:
    """The task as its terminal event shows it; as given, when it is terminal already.

    On a terminal a live line shows status and time; each event leaves a line there and everywhere else.
    """
    if task["status"] in TERMINAL:
        return task
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=session.err,
        transient=True,
        disable=not session.err.is_terminal,
    )
    try:
        with progress:
            line = progress.add_task(clean(f"{task['id']} {task['status']}"))
            for event in session.api.stream("tasks", task["id"], "events"):
                task = event["data"]["task"]
                session.err.print(_event_line(event), soft_wrap=True)
                progress.update(line, description=clean(f"{task['id']} {task['status']}"))
                if task["status"] in TERMINAL:
                    break
    except KeyboardInterrupt:
        session.note(f"The task goes on. Look again with: klingel watch {task['id']}")
        raise
    return task


def conclude(session: Session, task: View, *, json: bool) -> Exit:
    if json:
        session.say_json(task)
    elif task["status"] == Status.SUCCEEDED:
        for output in task["outputs"]:
            session.say(output["url"])
        if not task["outputs"]:
            session.note(
                "The provider has not said where its outputs are. They may come later: "
                f"klingel tasks show {task['id']}",
                "yellow",
            )
    else:
        ended = f"{task['id']} {task['status']}"
        session.note(": ".join(filter(None, (ended, failure(task)))), "red")
    return Exit.OK if task["status"] == Status.SUCCEEDED else Exit.TASK_FAILED


def _event_line(event: View) -> Text:
    word = event["type"].removeprefix("task.")
    return Text.assemble(moment(event["timestamp"]), "  ", status(word))
