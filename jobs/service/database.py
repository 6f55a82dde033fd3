"""The database behind the job store: SQLite in a file, or PostgreSQL by its address."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from treadle.cluster.locks import BETWEEN_SECONDS, PROBE_SECONDS, locked
from treadle.cluster.private import private
from treadle.errors import RequestError, StorageError

BUSY_SECONDS = 30
CHECK_SECONDS = 5.0
"""Between looks whether the lock is still held."""
LOCK_KEY = 0x7472656164
"""Of PostgreSQL's advisory lock that the one service of a database holds: 'tread'."""
MIGRATION_KEY = LOCK_KEY + 1


def open_database(url: str) -> sa.Engine:
    """An engine, which connects when it is used.

    Raises
    ------
    RequestError
        The address is of another kind of database, or cannot be read.
    """
    try:
        return _engine(sa.make_url(url))
    except (SQLAlchemyError, ValueError):  # which may hold the password
        raise RequestError(
            "database: the address cannot be read; e.g. sqlite:////var/lib/treadle/jobs.db or postgresql://host/treadle"
        ) from None
    except ImportError as error:
        raise RequestError("database: PostgreSQL needs psycopg: `pip install 'treadle[postgres]'`.") from error


def _engine(url: sa.URL) -> sa.Engine:
    kind = url.get_backend_name()
    if kind == "sqlite":
        if not url.database or url.database == ":memory:":
            raise RequestError("database: jobs have to be kept in a file; e.g. sqlite:////var/lib/treadle/jobs.db.")
        with contextlib.suppress(OSError), open(url.database, "ab", opener=private):
            pass  # connecting says what is wrong with it, if anything is
        engine = sa.create_engine(url.set(drivername="sqlite"), connect_args={"timeout": BUSY_SECONDS})
        sa.event.listen(engine, "connect", _durable)
        sa.event.listen(engine, "begin", _begin)
        return engine
    if kind == "postgresql":
        return sa.create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    raise RequestError(f"database: '{kind}' is not served. Allowed: [sqlite, postgresql].")


def writing(engine: sa.Engine) -> sa.Engine:
    """The same engine for transactions that write."""
    return engine.execution_options(writes=True)


def _begin(connection: sa.Connection) -> None:
    """A writer takes its turn at once: two that read first and then write would refuse each other."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _durable(connection: object, _record: object) -> None:
    """What is committed is on disk; readers do not wait for writers."""
    connection.isolation_level = None  # type: ignore[attr-defined]  # transactions are begun by the event above
    cursor = connection.cursor()  # type: ignore[attr-defined]
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def migrate(engine: sa.Engine) -> None:
    """Applies the revisions of the tables that the database has not seen.

    Raises
    ------
    RequestError
        A newer version of Treadle has made the tables.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with told(), writing(engine).begin() as connection:
        if engine.dialect.name == "postgresql":  # SQLite has one writer at a time
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_KEY})
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise RequestError(
                f"database: its tables are not of this version of Treadle, but of a newer one ({error}). Use that "
                "version, or another database."
            ) from error


TAKEN = "database: another service works with it. Stop that one, or name another database."


@contextlib.contextmanager
def held_alone(engine: sa.Engine) -> Iterator[Callable[[], None]]:
    """Keeps services of other folders off a database; gives a function that makes sure that it still does.

    PostgreSQL lets go of the lock when it loses the connection, so that it has to be taken again. The function raises
    RequestError when another service was faster, and StorageError while the database cannot be reached.

    Raises
    ------
    RequestError
        Another service has the database.
    """
    if engine.dialect.name == "sqlite":
        with _locked(f"{engine.url.database}.lock"):
            yield lambda: None
        return
    hold = _Hold(engine)
    try:
        hold.take()
        yield hold.check
    finally:
        hold.close()


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(Path(path)))
        except BlockingIOError:
            raise RequestError(TAKEN) from None
        except OSError as error:
            raise StorageError(f"The job store cannot be used: {error}.") from error
        yield


class _Hold:
    """PostgreSQL's advisory lock, in a session of its own."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._connection: sa.Connection | None = None
        self._checked = 0.0

    def take(self) -> None:
        deadline = time.monotonic() + PROBE_SECONDS  # a server lets go of it a moment after its holder went
        with told():
            self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            while not self._connection.scalar(sa.text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK_KEY}):
                if time.monotonic() > deadline:
                    self.close()
                    raise RequestError(TAKEN)
                time.sleep(BETWEEN_SECONDS)
        self._checked = time.monotonic()

    def check(self) -> None:
        if self._connection is not None and time.monotonic() - self._checked < CHECK_SECONDS:
            return
        try:
            if self._connection is not None:
                self._connection.scalar(sa.text("SELECT 1"))
                self._checked = time.monotonic()
                return
        except DBAPIError:
            self.close()
        self.take()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(DBAPIError):
                connection.invalidate()  # not back into the pool, where the lock would live on
                connection.close()


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Faults of the database as a message without statements, values or passwords; not those of constraints."""
    try:
        yield
    except IntegrityError:
        raise
    except sa.exc.TimeoutError as error:
        raise StorageError("The job store cannot be used: it is too busy; try again.") from error
    except DBAPIError as error:
        said = str(error.orig).strip().partition("\n")[0]  # what follows may be the statement
        raise StorageError(f"The job store cannot be used: {said.rstrip('.')}.") from error


def kept(text: str) -> str:
    """A text as every database can keep it: what is no character, such as NUL or half of one, becomes a mark."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()
