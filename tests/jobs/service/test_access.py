"""Tokens and the audit log, on SQLite and on PostgreSQL."""

from __future__ import annotations

import hashlib
import time
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from treadle.errors import RequestError
from treadle.jobs.service import tables
from treadle.jobs.service.access import PREFIX, REFUSALS_A_MINUTE, Access, Caller, Scope, scope_of
from treadle.jobs.service.pace import Pace


@pytest.fixture
def access(engine: sa.Engine) -> Access:
    return Access(engine)


def test_a_token_is_known_for_whose_it_is_and_what_it_is_good_for(access: Access) -> None:
    added = {name: access.add(name, scope) for name, scope in zip("abc", Scope, strict=True)}
    assert len(set(added.values())) == 3
    assert all(token.startswith(PREFIX) and len(token) >= len(PREFIX) + 43 for token in added.values())
    callers = {name: access.caller(token) for name, token in added.items()}
    assert callers == {"a": Caller("a", Scope.READ), "b": Caller("b", Scope.SUBMIT), "c": Caller("c", Scope.ADMIN)}
    assert Scope.READ < Scope.SUBMIT < Scope.ADMIN


def test_only_a_digest_is_kept(engine: sa.Engine, access: Access, tmp_path: Path) -> None:
    token = access.add("ana", Scope.ADMIN)
    access.caller(token)
    digest = hashlib.sha256(token.encode()).hexdigest()
    with engine.connect() as connection:
        rows = {table.name: connection.execute(sa.select(table)).all() for table in tables.metadata.sorted_tables}
    assert digest in str(rows)
    assert token.removeprefix(PREFIX) not in str(rows)
    if engine.dialect.name == "sqlite":
        engine.dispose()
        stored = b"".join(path.read_bytes() for path in tmp_path.glob("jobs.db*"))
        assert digest.encode() in stored
        assert token.removeprefix(PREFIX).encode() not in stored


def test_what_is_no_token_is_nobodys(access: Access) -> None:
    token = access.add("ana", Scope.READ)
    digest = hashlib.sha256(token.encode()).hexdigest()
    for wrong in ("", PREFIX, token[:-1], f"{token} ", token.upper(), digest, "ana", "' OR 1=1 --", "\0", "é" * 999):
        assert access.caller(wrong) is None


def test_a_token_expires(access: Access) -> None:
    short, long = access.add("short", Scope.READ, 1.5 / 86400), access.add("long", Scope.READ, 1.0)
    assert access.caller(short) is not None
    time.sleep(1.6)
    assert access.caller(short) is None
    assert access.caller(long) == Caller("long", Scope.READ)
    row = next(row for row in access.tokens() if row["name"] == "long")
    assert row["expires"] - row["created"] == pytest.approx(86400)


@pytest.mark.parametrize("days", [0.0, -1.0, float("nan"), float("inf")])
def test_an_expiry_that_is_none_is_refused(access: Access, days: float) -> None:
    with pytest.raises(RequestError, match="days: .* is not between 0 and 36500"):
        access.add("ana", Scope.READ, days)
    assert access.tokens() == []


def test_a_token_that_was_removed_is_refused_and_its_name_is_free(access: Access) -> None:
    first = access.add("ana", Scope.READ)
    with pytest.raises(RequestError, match="There is a token 'ana' already; remove it, or give another name."):
        access.add("ana", Scope.ADMIN)
    assert access.caller(first) == Caller("ana", Scope.READ)
    access.remove("ana")
    assert access.caller(first) is None
    second = access.add("ana", Scope.SUBMIT)
    assert access.caller(first) is None
    assert access.caller(second) == Caller("ana", Scope.SUBMIT)


def test_removing_one_that_is_not_there_names_those_that_are(access: Access) -> None:
    access.add("nightly", Scope.SUBMIT)
    with pytest.raises(RequestError, match=r"no token 'nigthly'. Tokens: \[nightly\]. Did you mean 'nightly'\?"):
        access.remove("nigthly")


@pytest.mark.parametrize("name", ["", " ", "a b", "-x", "a\0", "a\n", "x" * 129, "ü"])
def test_a_name_that_cannot_stand_in_a_log_is_refused(access: Access, name: str) -> None:
    with pytest.raises(RequestError, match="cannot be a token's: it has letters"):
        access.add(name, Scope.READ)


def test_tokens_are_listed_without_themselves_in_the_order_of_their_making(access: Access) -> None:
    for name in ("z", "a", "m"):
        access.add(name, Scope.READ, 1.0)
    rows = access.tokens()
    assert [row["name"] for row in rows] == ["z", "a", "m"]
    assert all(set(row) == {"name", "scope", "created", "expires"} for row in rows)


def test_scopes_have_names() -> None:
    assert [scope_of(name) for name in ("read", "submit", "admin")] == list(Scope)
    with pytest.raises(RequestError, match=r"'raed' is not known. Allowed: \[read, submit, admin\]. Did you mean 're"):
        scope_of("raed")


def test_pages_of_the_audit_log_have_every_entry_once_also_while_others_are_added(access: Access) -> None:
    for number in range(13):
        access.note("ana", "submit", f"job-{number}", "new")
    found: list[str] = []
    cursor: int | None = None
    while True:
        entries, following = access.noted(4, cursor)
        found += [entry["subject"] for entry in entries]
        access.note("ben", "cancel", "later", "cancelled")
        if following is None:
            break
        cursor = int(following)
    assert found == [f"job-{number}" for number in range(12, -1, -1)]


def test_an_entry_says_who_did_what_when(access: Access) -> None:
    begun = time.time()
    access.note("ana", "cancel", "job-1", "running")
    (entry,), following = access.noted(10)
    assert following is None
    noted = datetime.fromisoformat(str(entry.pop("time")))
    assert begun - 1 < noted.timestamp() < time.time() + 1
    assert entry.pop("number") > 0
    assert entry == {"user": "ana", "action": "cancel", "subject": "job-1", "outcome": "running"}


def test_an_entry_bears_whatever_was_asked_for(access: Access) -> None:
    access.note("", "refused", "/v1/\0" + "x" * 1000, "half \ud800 a character")
    (entry,), _ = access.noted(1, 2**53)
    assert len(entry["subject"]) == 200
    assert entry["subject"].startswith("/v1/")
    assert entry["outcome"] == "half ? a character"


def test_not_every_one_of_very_many_refusals_is_noted(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks without end does not fill the disk; what is left out is counted, and others are noted still."""
    now = 1000.0
    monkeypatch.setattr(access, "_pace", Pace(REFUSALS_A_MINUTE, lambda: now))
    for _ in range(3 * REFUSALS_A_MINUTE):
        access.note_refusal("", "/v1/jobs", "wrong token")
    access.note_refusal("ana", "/v1/audit", "needs admin")
    entries, _ = access.noted(500)
    assert len(entries) == REFUSALS_A_MINUTE // 10 + 1
    assert entries[0]["user"] == "ana"
    left_out = 3 * REFUSALS_A_MINUTE - REFUSALS_A_MINUTE // 10
    assert entries[0]["outcome"] == f"needs admin; {left_out} refusals before this one were not noted"
    now += 60
    access.note_refusal("", "/v1/jobs", "wrong token")
    assert access.noted(1)[0][0]["outcome"] == "wrong token"
