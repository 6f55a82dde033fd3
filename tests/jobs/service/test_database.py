"""The databases behind the job store: their tables, who may use them, and what is said when they cannot be used."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tests.jobs.service.postgres import Postgres
from tests.jobs.service.served import free_port
from tests.jobs.service.stores import submitted
from treadle.errors import RequestError, StorageError
from treadle.jobs.service import database, tables
from treadle.jobs.service.database import held_alone, migrate, open_database
from treadle.jobs.service.states import State
from treadle.jobs.service.store import JobStore

SECRET = "s3cret-word"


@contextlib.contextmanager
def opened(address: str) -> Iterator[sa.Engine]:
    engine = open_database(address)
    yield engine
    engine.dispose()


def differences(engine: sa.Engine, wanted: sa.MetaData) -> list[object]:
    """What Alembic would change to make the database as it is wanted."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, wanted))


def test_the_revisions_make_the_tables_from_nothing(address: str) -> None:
    with opened(address) as engine:
        assert sa.inspect(engine).get_table_names() == []
        migrate(engine)
        assert differences(engine, tables.metadata) == []
        assert set(sa.inspect(engine).get_table_names()) == {*tables.metadata.tables, "alembic_version"}


def test_a_column_that_no_revision_makes_is_noticed(address: str) -> None:
    wanted = sa.MetaData()
    for table in tables.metadata.sorted_tables:
        table.to_metadata(wanted)
    wanted.tables["audit"].append_column(sa.Column("more", sa.Integer))
    with opened(address) as engine:
        migrate(engine)
        assert len(differences(engine, wanted)) == 1


def test_revisions_that_are_applied_already_change_nothing(address: str) -> None:
    with opened(address) as engine:
        migrate(engine)
        job = submitted(JobStore(engine))
    with opened(address) as engine:
        migrate(engine)
        migrate(engine)
        assert JobStore(engine).view(job).state is State.QUEUED


def test_several_processes_may_make_the_tables_at_once(address: str) -> None:
    code = (
        "import sys, alembic.command; from treadle.jobs.service.database import migrate, open_database\n"
        "engine = open_database(sys.argv[1]); print('ready', flush=True); sys.stdin.read(); migrate(engine)"
    )
    command = [sys.executable, "-c", code, address]
    with contextlib.ExitStack() as stack:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started = [stack.enter_context(subprocess.Popen(command, **pipes)) for _ in range(2)]
        assert [process.stdout.readline() for process in started] == ["ready\n"] * 2
        for process in started:
            process.stdin.close()
        assert [process.stderr.read() for process in started] == [""] * 2
    with opened(address) as engine:
        assert differences(engine, tables.metadata) == []


def test_tables_of_a_newer_version_are_left_alone(address: str) -> None:
    with opened(address) as engine:
        migrate(engine)
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(RequestError, match="tables are not of this version of Treadle, but of a newer one .*9999"):
            migrate(engine)
        assert differences(engine, tables.metadata) == []


def test_one_service_has_a_database(address: str) -> None:
    with opened(address) as first, opened(address) as second:
        with held_alone(first):
            refused = pytest.raises(RequestError, match="database: another service works with it. Stop that one, or")
            with refused, held_alone(second):
                pass
            migrate(second)  # other commands may use it
        first.dispose()
        with held_alone(second):
            pass


def test_a_lock_that_the_server_has_let_go_of_is_taken_again_or_told(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when PostgreSQL was started again, or a network was cut."""
    monkeypatch.setattr(database, "CHECK_SECONDS", 0.0)
    address = postgres_server.new_database()

    def cut(by: sa.Engine) -> None:
        held = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
        with by.begin() as connection:
            for (pid,) in connection.exec_driver_sql(held).all():
                connection.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})

    with opened(address) as first, opened(address) as second, held_alone(first) as make_sure:
        make_sure()
        cut(second)
        make_sure()  # taken again
        with pytest.raises(RequestError, match="another service works with it"), held_alone(second):
            pass
        cut(second)
        with held_alone(second):
            for _ in range(2):
                with pytest.raises(RequestError, match="another service works with it"):
                    make_sure()
        make_sure()


def test_services_of_different_databases_do_not_mind_each_other(postgres_server: Postgres) -> None:
    one, other = postgres_server.new_database(), postgres_server.new_database()
    with opened(one) as first, opened(other) as second, held_alone(first), held_alone(second):
        pass


def test_connections_that_the_server_has_ended_are_made_again(postgres_jobs: sa.Engine) -> None:
    store = JobStore(postgres_jobs)
    before = store.counts()
    with postgres_jobs.connect() as connection:
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = "
        connection.execute(sa.text(f"{ended} current_database()")).all()
    assert store.counts() == before


def test_a_wrong_password_is_told_and_not_shown(postgres_server: Postgres) -> None:
    with opened(postgres_server.address(password=SECRET)) as engine:
        with pytest.raises(
            StorageError, match="The job store cannot be used: .*password authentication failed"
        ) as told:
            JobStore(engine).counts()
        assert SECRET not in str(told.value)


def test_a_database_that_is_not_there_is_told(postgres_server: Postgres) -> None:
    told = pytest.raises(StorageError, match='database "nowhere" does not exist')
    with opened(postgres_server.address("nowhere")) as engine, told:
        migrate(engine)


def test_a_server_that_does_not_listen_is_told() -> None:
    with opened(f"postgresql://ana:{SECRET}@127.0.0.1:{free_port()}/jobs") as engine:
        with pytest.raises(StorageError, match="Connection refused") as told:
            migrate(engine)
        assert SECRET not in str(told.value)


def test_tables_that_are_not_there_are_told_without_the_statement(address: str) -> None:
    with opened(address) as engine:
        with pytest.raises(StorageError, match="The job store cannot be used: .*jobs") as told:
            JobStore(engine).counts()
        assert "SELECT" not in str(told.value)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (f"mysql://ana:{SECRET}@host/jobs", "database: 'mysql' is not served. Allowed: [sqlite, postgresql]."),
        (f"oracle+cx_oracle://ana:{SECRET}@host/jobs", "'oracle' is not served"),
        ("", "database: the address cannot be read; e.g. sqlite:////var/lib/treadle/jobs.db"),
        (f"ana:{SECRET}@host", "the address cannot be read"),
        (f"postgresql://ana:{SECRET}@host:port/jobs", "the address cannot be read"),
        (f"postgresql://ana:{SECRET}@[::1/jobs", "the address cannot be read"),
        (f"sqlite://ana:{SECRET}@host/jobs", "the address cannot be read"),
        ("sqlite://", "jobs have to be kept in a file"),
        ("sqlite:///:memory:", "jobs have to be kept in a file"),
    ],
)
def test_an_address_of_another_kind_is_refused(address: str, message: str) -> None:
    with pytest.raises(RequestError) as told:
        open_database(address)
    assert message in str(told.value)
    assert SECRET not in str(told.value)
    assert told.value.__cause__ is None  # nor in a traceback


def test_a_driver_that_is_not_installed_is_named() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None; from treadle.jobs.service.database import open_database\n"
        "try: open_database('postgresql://host/jobs')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "RequestError database: PostgreSQL needs psycopg: `pip install 'treadle[postgres]'`.\n"


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    path.write_bytes(b"something else " * 1000)
    told = pytest.raises(StorageError, match="The job store cannot be used: file is not a database.")
    with opened(f"sqlite:///{path}") as engine, told:
        migrate(engine)
    assert path.read_bytes() == b"something else " * 1000


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with opened(f"sqlite:///{tmp_path}/none/jobs.db") as engine:
        with pytest.raises(StorageError, match="The job store cannot be used: unable to open database file."):
            migrate(engine)
        with pytest.raises(StorageError, match="No such file or directory"), held_alone(engine):
            pass


def test_a_store_that_stays_locked_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.jobs.service.database.BUSY_SECONDS", 0.2)
    address = f"sqlite:///{tmp_path}/jobs.db"
    with opened(address) as engine, opened(address) as other:
        migrate(engine)
        store = JobStore(engine)
        with other.execution_options(writes=True).begin():
            with pytest.raises(StorageError, match="database is locked"):
                submitted(store)
            assert store.counts()[State.QUEUED] == 0  # readers do not wait
        submitted(store)


def test_readers_see_all_or_nothing_of_what_is_written_at_the_same_time(store: JobStore) -> None:
    """Every job that can be seen has its first step."""
    done = threading.Event()

    def write() -> None:
        for _ in range(40):
            submitted(store)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    looks = 0
    while not done.is_set():
        for view in store.page(limit=3).jobs:
            assert len(store.details(view.id).transitions) == 1
        looks += 1
    writer.join()
    assert looks > 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs the root user")
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, timeout=20)
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=20)


def test_what_was_acknowledged_is_there_when_the_disk_is_full_and_room_makes_it_go_on(small_disk: Path) -> None:
    known: list[str] = []
    with opened(f"sqlite:///{small_disk}/jobs.db") as engine:
        migrate(engine)
        store = JobStore(engine)

        def fill() -> None:
            while True:
                known.append(submitted(store, "x" * 150, root="/data" * 2000))

        with pytest.raises(StorageError, match="The job store cannot be used: database or disk is full."):
            fill()
        assert len(known) > 3
        assert store.counts()[State.QUEUED] == len(known)
    with opened(f"sqlite:///{small_disk}/jobs.db") as engine:
        store = JobStore(engine)
        assert [view.id for view in store.page(limit=500).jobs] == known[::-1]
        subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True, timeout=20)
        store.move(known[0], State.QUEUED, State.RUNNING, "there is room")
        assert store.view(submitted(store)).state is State.QUEUED
