"""Who may do what: tokens, kept as digests only, and the record of who did what."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from treadle.errors import RequestError, did_you_mean, listed, shortened
from treadle.jobs.service.database import kept, told, writing
from treadle.jobs.service.pace import Pace
from treadle.jobs.service.tables import audit, tokens

REFUSALS_A_MINUTE = 600
"""That are noted of one user, a tenth of them at once; those without a known token are one."""
PREFIX = "treadle_"
"""So that a token that ends up somewhere is known for one."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}")
LAST = 2**31 - 1
"""The greatest number of an entry."""


class Scope(IntEnum):
    """What a token is good for; each includes those before it."""

    READ = 1
    SUBMIT = 2
    ADMIN = 3


def scope_of(text: str) -> Scope:
    """Raises RequestError when there is no such scope."""
    names = [scope.name.lower() for scope in Scope]
    if text not in names:
        raise RequestError(f"scope: '{text}' is not known. Allowed: [{listed(names)}].{did_you_mean(text, names)}")
    return Scope[text.upper()]


@dataclass(frozen=True)
class Caller:
    """Whoever makes a request."""

    name: str
    scope: Scope


class Access:
    """Tokens and the audit log of a database."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._writer = writing(engine)
        self._pace = Pace(REFUSALS_A_MINUTE, time.monotonic)
        self._refusing = threading.Lock()
        self._left_out = 0

    def add(self, name: str, scope: Scope, days: float | None = None) -> str:
        """A new token, which is told here and never again.

        Raises
        ------
        RequestError
            There is a token of this name, or it is none, or the days are no number.
        """
        if not NAME.fullmatch(name):
            raise RequestError(
                f"name: '{shortened(name)}' cannot be a token's: it has letters, digits and . _ : @ + -, 128 at most."
            )
        if days is not None and not 0 < days < 36500:
            raise RequestError(f"days: {days:g} is not between 0 and 36500; without it, the token never expires.")
        token = f"{PREFIX}{secrets.token_urlsafe(32)}"
        now = time.time()
        row = {
            "name": name,
            "digest": _digest(token),
            "scope": scope.name.lower(),
            "created": now,
            "expires": None if days is None else now + days * 86400,
        }
        try:
            with told(), self._writer.begin() as connection:
                connection.execute(tokens.insert().values(row))
        except IntegrityError:
            raise RequestError(f"There is a token '{name}' already; remove it, or give another name.") from None
        return token

    def remove(self, name: str) -> None:
        """From now on the token is refused; raises RequestError when there is none."""
        with told(), self._writer.begin() as connection:
            if connection.execute(tokens.delete().where(tokens.c.name == name)).rowcount == 0:
                names = connection.scalars(sa.select(tokens.c.name)).all()
                raise RequestError(f"There is no token '{name}'. Tokens: [{listed(names)}].{did_you_mean(name, names)}")

    def tokens(self) -> list[dict[str, Any]]:
        """Names, scopes and times; tokens themselves are not kept."""
        query = sa.select(tokens.c.name, tokens.c.scope, tokens.c.created, tokens.c.expires).order_by(tokens.c.created)
        with told(), self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def caller(self, token: str) -> Caller | None:
        """Whose token it is, if it is one that has not expired."""
        with told(), self._engine.connect() as connection:
            row = connection.execute(sa.select(tokens).where(tokens.c.digest == _digest(token))).one_or_none()
        if row is None or (row.expires is not None and row.expires <= time.time()):
            return None
        return Caller(row.name, Scope[row.scope.upper()])

    def note(self, user: str, action: str, subject: str, outcome: str) -> None:
        """Records that somebody did something; of a long subject the beginning."""
        what = {"action": action, "subject": kept(subject)[:200], "outcome": kept(outcome)}
        row = {"time": time.time(), "user": user, **what}
        with told(), self._writer.begin() as connection:
            connection.execute(audit.insert().values(row))

    def note_refusal(self, user: str, subject: str, outcome: str) -> None:
        """Records that somebody was refused; not every one of very many, so that nobody fills the disk by asking."""
        with self._refusing:
            if not self._pace.allows(user):
                self._left_out += 1
                return
            left_out, self._left_out = self._left_out, 0
        if left_out:
            outcome = f"{outcome}; {left_out} refusals before this one were not noted"
        self.note(user, "refused", subject[:200], outcome)

    def noted(self, limit: int, cursor: int | None = None) -> tuple[list[dict[str, Any]], str | None]:
        """Entries, the newest first, and the cursor of those that come after."""
        query = sa.select(audit).order_by(audit.c.number.desc()).limit(limit + 1)
        if cursor is not None:
            query = query.where(audit.c.number < min(cursor, LAST))
        with told(), self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        entries = [{**row, "time": datetime.fromtimestamp(row["time"], UTC).isoformat()} for row in rows[:limit]]
        return entries, str(rows[limit - 1]["number"]) if len(rows) > limit else None


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
