"""The tables of the job store. `migrations/` makes them; a change here needs a revision there.

Times are seconds since 1970 in UTC, as float64: SQLite keeps no time zones.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    # Order of submission; times may jump.
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(200), nullable=False, unique=True),
    Column("name", String(200), nullable=False),
    Column("user", String(128), nullable=False),
    Column("submission_id", String(128)),
    # Of everything that was submitted, so that the same id with something else is noticed.
    Column("digest", String(64), nullable=False),
    Column("spec", Text, nullable=False),
    Column("root", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("timeout", Double),
    Column("retries", Integer, nullable=False),
    Column("fresh", Boolean, nullable=False),
    Column("schedule", String(128)),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    # Somebody asked to stop it; it is not stopped yet.
    Column("cancel", Text),
    Column("attempt", Integer, nullable=False),
    # Attempts of the present life; a retry that somebody asks for begins another.
    Column("tries", Integer, nullable=False),
    Column("created", Double, nullable=False),
    Column("started", Double),
    Column("finished", Double),
    Column("not_before", Double),
    Column("run", String(200)),
    UniqueConstraint("user", "submission_id", name="one_job_a_submission"),
    Index("jobs_due", "state", "priority", "number"),
    Index("jobs_by_name", "name", "number"),
)

dependencies = Table(
    "dependencies",
    metadata,
    Column("job", ForeignKey("jobs.number"), primary_key=True),
    Column("needs", ForeignKey("jobs.number"), primary_key=True, index=True),
)

transitions = Table(
    "transitions",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("job", ForeignKey("jobs.number"), nullable=False, index=True),
    Column("time", Double, nullable=False),
    Column("before", String(16)),
    Column("after", String(16), nullable=False),
    Column("reason", Text, nullable=False),
)

schedules = Table(
    "schedules",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("user", String(128), nullable=False),
    # The Schedule document, as JSON.
    Column("document", Text, nullable=False),
    Column("created", Double, nullable=False),
    # The newest time that is settled: a job was submitted for it, or it was let pass.
    Column("last", Double, nullable=False),
    Column("submitted", Double),
)

tokens = Table(
    "tokens",
    metadata,
    Column("name", String(128), primary_key=True),
    # SHA-256 of the token, which is 256 random bits: there is nothing to guess, so no slow hash is needed.
    Column("digest", String(64), nullable=False, unique=True),
    Column("scope", String(16), nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double),
)

audit = Table(
    "audit",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("time", Double, nullable=False),
    Column("user", String(128), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("outcome", Text, nullable=False),
)
