"""`klingel migrate` and `sandbox`: these run on the server, and import it when they are called.

Client commands would else take as long to start as the whole service does.
"""

# ruff: noqa: PLC0415 - see above

from datetime import timedelta
from ipaddress import ip_network
from typing import Annotated, Final

from cyclopts import Parameter

from service.cli.numbers import Whole
from service.cli.session import Given, UsageError
from service.domain.signatures import InvalidSecret, check_secret

LOCAL_HOSTS: Final = frozenset({"127.0.0.1", "::1", "localhost"})
LOOPBACK: Final = ("127.0.0.0/8", "::1/128")


def migrate(*, session: Given) -> None:
    """Bring the database up to date."""
    from service.app import migrate as run
    from service.settings import load_settings

    session.say(run(load_settings()))


def sandbox(
    *,
    host: Annotated[str, Parameter(show_default=True)] = "127.0.0.1",
    port: Annotated[Whole, Parameter(show_default=True)] = 8001,
    step: Annotated[
        float,
        Parameter(metavar="SECONDS", show_default=True, help="Between one state of a task and the next."),
    ] = 1.0,
    fault: Annotated[tuple[str, ...], Parameter(metavar="NAME", help="Goes wrong on every task.")] = (),
    slots: Annotated[Whole | None, Parameter(help="Tasks at once, of each kind. [default: no limit]")] = None,
    key: Annotated[tuple[str, ...], Parameter(help="API keys let in. [default: any]")] = (),
    webhook_secret: Annotated[str | None, Parameter(help="`whsec_…`: signs the callbacks.")] = None,
    callback_retries: Annotated[
        Whole, Parameter(show_default=True, help="After a callback that failed.")
    ] = 0,
    allow_network: Annotated[
        tuple[str, ...],
        Parameter(
            metavar="CIDR",
            help="A private network that callbacks may go to. [default: this machine, if only that can connect]",
        ),
    ] = (),
    session: Given,
) -> None:
    """Run a stand-in Kling alone, to try or test a service against without an account."""
    import uvicorn

    from handlers.providers.sandbox import Fault, GuardedTransport, SandboxSettings, create_sandbox
    from service.network.dialler import Guard

    faults = [
        f"There is no fault {name}: choose from {', '.join(Fault)}"
        for name in fault
        if name not in list(Fault)
    ]
    if webhook_secret is not None:
        try:
            check_secret(webhook_secret)
        except InvalidSecret as error:
            faults.append(f"--webhook-secret: {error}")
    is_local = host in LOCAL_HOSTS
    networks = []
    for network in (*allow_network, *(LOOPBACK if is_local else ())):
        try:
            networks.append(ip_network(network))
        except ValueError as error:
            faults.append(f"--allow-network: {error}")
    if faults:
        raise UsageError("\n".join(faults))
    settings = SandboxSettings(
        step=timedelta(seconds=step),
        faults=frozenset(Fault(name) for name in fault),
        slots=slots,
        keys=frozenset(key) or None,
        webhook_secret=webhook_secret,
        callback_retries=callback_retries,
    )
    session.note(
        f"To use it: KLINGEL_PROVIDER=cometapi KLINGEL_PROVIDER_URL=http://{host}:{port} KLINGEL_PROVIDER_KEY=…"
    )
    if not is_local and not key:
        session.note("Whoever can connect may use it: --key lets only those in who have it.")
    app = create_sandbox(settings, transport=GuardedTransport(Guard(networks)))
    uvicorn.run(app, host=host, port=port, log_level="warning")
