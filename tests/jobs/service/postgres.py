"""A real PostgreSQL server on loopback for tests of the job store; gone at the end."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import sqlalchemy as sa

from tests.jobs.service.served import free_port

UNPRIVILEGED = "postgres"
"""Whom the server runs as when the tests run as root, which it refuses."""


@dataclass(frozen=True)
class Postgres:
    """Where the server listens, and the superuser's password."""

    port: int
    password: str

    def address(self, database: str = "postgres", password: str | None = None) -> str:
        return f"postgresql://tester:{password or self.password}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The address of an empty one."""
        name = f"jobs_{secrets.token_hex(4)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.address(name)

    def execute(self, statement: str) -> None:
        """Outside of a transaction, as superuser."""
        engine = sa.create_engine(
            self.address().replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()


def why_no_postgres() -> str:
    """Why a server cannot run here; empty if it can."""
    if _programs() is None:
        return "not installed: postgresql"
    if find_spec("psycopg") is None:
        return "not installed: psycopg"
    if os.geteuid() == 0:
        try:
            pwd.getpwnam(UNPRIVILEGED)
        except KeyError:
            return f"PostgreSQL does not run as root, and there is no user {UNPRIVILEGED}"
    return ""


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A server of the newest version that is installed."""
    programs = _programs()
    assert programs is not None
    # Short, for the path of its socket; and not among pytest's own, which are closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="treadle-pg-"))
    server = Postgres(free_port(), secrets.token_hex(8))
    try:
        (folder / "password").write_text(server.password)
        if os.geteuid() == 0:
            for path in (folder, folder / "password"):
                shutil.chown(path, UNPRIVILEGED)
        login = ["--username=tester", "--auth=scram-sha-256", f"--pwfile={folder}/password"]
        _run(folder, programs / "initdb", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", *login)
        options = f"-h 127.0.0.1 -p {server.port} -k {folder} -c fsync=off -c max_connections=60"
        _run(folder, programs / "pg_ctl", "start", "--wait", f"--log={folder}/log", f"--options={options}")
        try:
            yield server
        finally:
            _run(folder, programs / "pg_ctl", "stop", "--wait", "--mode=immediate")
    finally:
        shutil.rmtree(folder)


def _programs() -> Path | None:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    found = str(versions[-1]) if versions else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def _run(folder: Path, program: Path, *arguments: str) -> None:
    command = [str(program), *arguments, f"--pgdata={folder}/data"]
    if os.geteuid() == 0:
        command = ["runuser", "-u", UNPRIVILEGED, "--", *command]
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=120
    )
    assert done.returncode == 0, f"{program.name} failed: {done.stderr.decode()}"
