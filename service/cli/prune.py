"""`klingel prune`."""

from service.cli.client import PRUNE_TIMEOUT
from service.cli.session import Given, Json


def prune(*, json: Json = False, session: Given) -> None:
    """Forget now what is older than the server's settings say. It does so once a day by itself."""
    forgotten = session.api.post("prune", timeout=PRUNE_TIMEOUT)
    if json:
        session.say_json(forgotten)
        return
    for kind, number in forgotten.items():
        session.say(f"{number:>8}  {kind.replace('_', ' ')}")
