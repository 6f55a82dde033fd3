"""The database behind the job store: SQLite in a file, or PostgreSQL by its address."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from treadle.errors import RequestError, StorageError

BUSY_SECONDS = 30
LOCK_KEY = 0x7472656164
"""Of PostgreSQL's advisory lock that the one service of a database holds: 'tread'."""


def open_database(url: str) -> sa.Engine:
    """An engine, which connects when it is used.

    Raises
    ------
    RequestError
        The address is of another kind of database, or cannot be read.
    """
    try:
        parsed = sa.make_url(url)
    except (SQLAlchemyError, ValueError):  # whose words may have the password in them
        raise RequestError(
            "database: the address cannot be read; e.g. sqlite:////var/lib/treadle/jobs.db or postgresql://host/treadle"
        ) from None
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        if parsed.database and parsed.database != ":memory:":
            with contextlib.suppress(OSError):  # connecting says what is wrong
                Path(parsed.database).touch(mode=0o600)
                Path(parsed.database).chmod(0o600)
        engine = sa.create_engine(parsed, connect_args={"timeout": BUSY_SECONDS})
        sa.event.listen(engine, "connect", _durable)
        sa.event.listen(engine, "begin", _begin)
        return engine
    if kind == "postgresql":
        return sa.create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    raise RequestError(f"database: '{kind}' is not served. Allowed: [sqlite, postgresql].")


def plain(text: str) -> str:
    """A text as every database takes it: half a surrogate pair, as file names may have, and NUL are spelled out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


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
    """Applies the revisions of the tables that the database has not seen."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with told(), writing(engine).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@contextlib.contextmanager
def held_alone(engine: sa.Engine) -> Iterator[None]:
    """Keeps other services off a PostgreSQL database; SQLite's is kept by the lock of the service's folder.

    Raises
    ------
    RequestError
        Another service has the database.
    """
    if engine.dialect.name != "postgresql":
        yield
        return
    with told(), engine.connect() as connection:
        if not connection.scalar(sa.text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK_KEY}):
            raise RequestError("database: another service works with it. Stop that one, or name another database.")
        connection.commit()
        yield


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Faults of the database as a message without statements, values or passwords; not those of constraints."""
    try:
        yield
    except IntegrityError:
        raise
    except DBAPIError as error:
        raise StorageError(f"The job store cannot be used: {str(error.orig).strip()}.") from error
