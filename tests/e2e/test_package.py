"""What is shipped: a wheel that holds everything, and a Procfile that hosts understand."""

import re
import shutil
import sys
import zipfile
from pathlib import Path

import httpx

from tests.e2e.processes import PATIENCE_S, ROOT, run, running
from tests.ports import free_port

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet")


def test_the_wheel_holds_everything_and_its_command_works(tmp_path: Path) -> None:
    built = run(
        *PIP, "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--no-index", "-w", "wheels",
        folder=tmp_path,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    [wheel] = (tmp_path / "wheels").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        shipped = set(archive.namelist())
    sources = {
        str(file.relative_to(ROOT))
        for package in ("service", "handlers", "storage")
        for file in (ROOT / package).rglob("*")
        if file.is_file() and file.suffix in {".py", ".sql"}
    }
    assert shipped >= sources
    assert any(re.fullmatch(r"storage/migrations/sqlite/0001_.*\.sql", name) for name in shipped)
    assert "storage/queries/tasks.sql" in shipped

    installed = run(
        *PIP, "install", "--no-deps", "--no-index", "--target", "site", str(wheel), folder=tmp_path
    )
    assert installed.returncode == 0, installed.stderr
    site = tmp_path / "site"
    # Makes a database by the wheel's own .sql files: PYTHONPATH comes before the checkout.
    migrated = run(
        site / "bin" / "klingel", "migrate", folder=tmp_path, environment={"PYTHONPATH": str(site)}
    )
    assert (migrated.returncode, migrated.stdout) == (0, "klingel.db is up to date.\n")
    where = run(
        sys.executable, "-c", "import storage; print(storage.__file__)",
        folder=tmp_path, environment={"PYTHONPATH": str(site)},
    )  # fmt: skip
    assert where.stdout.startswith(str(site))


def test_honcho_takes_the_procfile_and_serves(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Procfile", tmp_path)
    checked = run("honcho", "check", folder=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert "(release, web, dispatch)" in checked.stderr

    port = free_port()
    command = ("honcho", "--no-colour", "start", "web")
    with running(*command, folder=tmp_path, environment={"PORT": str(port)}) as honcho:
        url = honcho.says(r"Klingel rings at (\S+)$")[1]
        assert url == f"http://127.0.0.1:{port}"
        assert httpx.get(f"{url}/readyz", timeout=PATIENCE_S, trust_env=False).json()["status"] == "ready"
        honcho.stop()
        assert any("web.1 stopped" in line for line in honcho.output)
