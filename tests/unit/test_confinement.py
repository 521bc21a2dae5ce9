"""What a borrowed library may do in its thread."""

import ipaddress
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from handlers.sinks.confinement import Confinement, confined
from service.network.dialler import Guard

LOOPBACK = Guard([ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")])
NOWHERE = ("127.0.0.1", 9)


def dials(guard: Guard | None, address: object, family: int = socket.AF_INET) -> bool:
    with confined(guard), socket.socket(family) as used:
        used.settimeout(0.2)
        try:
            used.connect(address)  # type: ignore[arg-type]
        except PermissionError:
            return False
        except OSError:
            return True
    return True


def test_an_address_is_judged_where_it_is_dialled() -> None:
    assert dials(LOOPBACK, NOWHERE)
    assert not dials(Guard(), NOWHERE)
    assert not dials(None, NOWHERE)
    assert not dials(Guard(), ("169.254.169.254", 80))
    assert not dials(Guard(), ("::1", 9), socket.AF_INET6)
    assert not dials(Guard(), ("::ffff:127.0.0.1", 9), socket.AF_INET6)


def test_a_name_is_not_looked_up_past_the_guard() -> None:
    assert not dials(LOOPBACK, ("localhost", 9))


def test_no_socket_of_this_machine_is_dialled(tmp_path: Path) -> None:
    assert not dials(LOOPBACK, str(tmp_path / "docker.sock"), socket.AF_UNIX)


def test_what_is_resolved_otherwise_the_second_time_is_still_judged() -> None:
    """As a client of any library does it: by name, through `socket.create_connection`."""
    with confined(Guard()) as confinement, pytest.raises(PermissionError):
        socket.create_connection(("localhost", 9), timeout=0.2)
    assert confinement.refusal == "it leads to an address that is not dialled"


def test_a_datagram_is_judged_too() -> None:
    with confined(Guard()), socket.socket(type=socket.SOCK_DGRAM) as used, pytest.raises(PermissionError):
        used.sendto(b"x", NOWHERE)


@pytest.mark.parametrize(
    "action",
    [
        lambda: subprocess.run([sys.executable, "-c", ""], check=False),
        lambda: os.system("true"),
        os.fork,
        lambda: Path("/nowhere").unlink(),
        lambda: Path("/nowhere/at/all").mkdir(),
        lambda: Path("/etc/passwd").read_text(),
        lambda: Path("/proc/self/environ").read_bytes(),
        lambda: Path(sys.prefix, "..", "klingel.secret").read_bytes(),
        lambda: Path(sys.prefix, "new").write_text(""),
    ],
)
def test_nothing_else_of_this_machine_is_touched(action: Callable[[], object]) -> None:
    with confined(LOOPBACK), pytest.raises(PermissionError):
        action()


def test_nothing_is_served() -> None:
    with confined(LOOPBACK), socket.socket() as used, pytest.raises(PermissionError):
        used.bind(("127.0.0.1", 0))


def test_a_link_leads_nowhere_else(tmp_path: Path) -> None:
    secret, link = tmp_path / "secret", Path(sys.prefix) / f"link-{tmp_path.name}"
    secret.write_text("x")
    link.symlink_to(secret)
    try:
        with confined(LOOPBACK), pytest.raises(PermissionError):
            link.read_text()
    finally:
        link.unlink()


def test_what_is_installed_can_be_read() -> None:
    with confined(None):
        assert Path(subprocess.__file__).read_text()


def test_it_ends_with_the_block_and_holds_for_its_thread_only(tmp_path: Path) -> None:
    written = tmp_path / "a"
    other = threading.Thread(target=written.write_text, args=("x",))
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with confined(None):
            entered.set()
            leave.wait(20)

    confined_thread = threading.Thread(target=stay)
    confined_thread.start()
    assert entered.wait(20)
    other.start()
    other.join()
    leave.set()
    confined_thread.join()
    assert written.read_text() == "x"


def test_what_is_cut_waits_no_longer_and_dials_no_more() -> None:
    confinement, ended = Confinement(LOOPBACK), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def wait() -> None:
            with confined(confinement), socket.create_connection(server.getsockname()) as used:
                used.recv(1)
                with pytest.raises(PermissionError):
                    used.connect(server.getsockname())
                with pytest.raises(PermissionError):
                    socket.socket()
                with pytest.raises(PermissionError):
                    confinement.pause(0)
            ended.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        there, _ = server.accept()
        with there:
            confinement.cut()
            assert ended.wait(20)
            assert there.recv(1) == b""
        waiting.join()
    assert confinement.refusal == "it took too long"


def test_a_pause_is_short() -> None:
    """Some services say how long, and some of these are anybody's."""
    confinement = Confinement(LOOPBACK)
    confinement.pause(5.5)
    with pytest.raises(PermissionError):
        confinement.pause(86_400)
