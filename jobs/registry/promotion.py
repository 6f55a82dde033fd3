"""Promotion: an alias leads to another version when it meets the gates of its spec, and a record says why.

<root>/models/<name>/promotions/<n>.json    approvals, numbered from 1, in the order in which they were made

The alias itself is in MLflow's registry, with the record as tags of the version. Records are whole or absent; those of
one model are made one after the other, by a lock where the root is on this machine.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.cluster.locks import locked
from treadle.engine.bundle import load_bundle, versions
from treadle.engine.events import now
from treadle.engine.store import Store
from treadle.errors import RequestError, StorageError, TreadleError
from treadle.jobs.registry.connection import LOCK_SECONDS, Connection, Target
from treadle.jobs.registry.gates import Candidate, Verdict
from treadle.jobs.registry.recorder import record_missing
from treadle.jobs.registry.sections import ALIAS, Promotion
from treadle.jobs.registry.versions import (
    aliased,
    aliases_of,
    known_aliases,
    manifest_of,
    needed_connection,
    register,
    registered,
    set_alias,
    split_reference,
    tag_version,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

TAG = 5000
"""Characters of a tag of MLflow."""


class PromotionRefused(TreadleError):
    """A version does not meet its gates; `record` is what would have been recorded."""

    def __init__(self, message: str, record: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.record = record


def promote(
    model: str,
    alias: str,
    root: str,
    *,
    who: str | None = None,
    why: str = "",
    force: bool = False,
    dry_run: bool = False,
    rollback: bool = False,
) -> dict[str, Any]:
    """Gives an alias to a version, and returns the record of it; with `dry_run` what would be recorded.

    Parameters
    ----------
    model
        `name:3`, `name` for the newest version, or `name@other-alias`. With `rollback` the name alone.
    who, why
        Who approves of it, the user when absent, and for what reason.
    force
        Also where gates are not met, which the record says.
    rollback
        Back to the version that had the alias before; gates are not asked again.

    Raises
    ------
    RequestError
        No such model, version or alias, or nothing to go back to.
    PromotionRefused
        Gates are not met; names each with its value, its limit and what to do.
    TrackingError
        MLflow is not reached; nothing has changed.
    """
    if not re.fullmatch(ALIAS, alias) or alias.casefold() == "latest":
        raise RequestError(
            f"Alias '{alias}': letters, digits, _ and - after a letter, and not 'latest', e.g. champion."
        )
    store = Store(root)
    name, version, other = split_reference(model)
    if rollback and (version is not None or other is not None):
        raise RequestError(f"--rollback goes back to the version before: name the model alone, {name}.")
    newest = load_bundle(store, name, version).document.version
    with _alone(store, name):
        connection = needed_connection(store, name)
        if other is not None:
            newest = aliased(store, name, other)
        with connection.using() as client:
            aliases = aliases_of(client, name)
        records = read_records(store, name)
        to = _before(records, name, alias, aliases.get(alias)) if rollback else newest
        bundle = load_bundle(store, name, to)
        bundle.verify()
        verdicts: Sequence[Verdict] = ()
        if not rollback:
            manifest = _manifest(store, name, to)
            gates = Promotion.model_validate(manifest["spec"].get("promotion") or {}).gates
            verdicts = Candidate(store, bundle, manifest, aliases).judge(gates, alias)
        failed = [verdict for verdict in verdicts if not verdict.passed]
        record = {
            "promotion": records[-1]["promotion"] + 1 if records else 1,
            "model": name,
            "alias": alias,
            "from": aliases.get(alias),
            "to": to,
            "who": who or _user(),
            "when": now(),
            "why": why,
            "rollback": rollback,
            "forced": bool(failed) and force,
            "gates": [verdict.described() for verdict in verdicts],
            "run": bundle.document.run,
            "fingerprint": bundle.document.fingerprint,
            "registry": connection.target.uri,
        }
        if failed and not force:
            raise PromotionRefused(_refusal(bundle.reference, alias, failed), record)
        if not dry_run:
            _make(store, connection, record)
    return record


def read_records(store: Store, name: str) -> list[dict[str, Any]]:
    """The approvals of a model, in the order in which they were made."""
    numbers = sorted(
        int(file.removesuffix(".json"))
        for file in store.list(f"models/{name}/promotions")
        if re.fullmatch(r"\d+\.json", file)
    )
    return [store.read_json(f"models/{name}/promotions/{number}.json") for number in numbers]


def stack(records: Sequence[Mapping[str, Any]], alias: str) -> list[int]:
    """The versions that had an alias, as far as they can be gone back to; the last one has it by the records."""
    found: list[int] = []
    for record in records:
        if record["alias"] != alias:
            continue
        if record["rollback"]:
            del found[-1:]
        elif not found or found[-1] != record["to"]:
            if not found and record["from"] is not None:
                found.append(record["from"])  # given by others, before there were records
            found.append(record["to"])
    return found


def in_use(root: str) -> Callable[[], Collection[str]]:
    """Tells `name:version` of all that have an alias, by MLflow, or had one that may still be gone back to.

    Each call looks anew. TrackingError where MLflow is not reached: then nobody knows.
    """
    store = Store(root)
    connections: dict[Target, Connection] = {}

    def found() -> Collection[str]:
        used = set()
        for name in store.list("models"):
            records = read_records(store, name)
            for alias in {record["alias"] for record in records}:
                used |= {f"{name}:{number}" for number in stack(records, alias)[-2:]}
            if versions(store, name):
                used |= {f"{name}:{number}" for number in known_aliases(store, name, connections).values()}
        return used

    return found


def restore_aliases(client: MlflowClient, store: Store, name: str) -> dict[str, int]:
    """Sets the aliases that MLflow does not have at all as the records have them; those that were set."""
    records = read_records(store, name)
    there, bundles = aliases_of(client, name), versions(store, name)
    restored = {}
    for alias in dict.fromkeys(record["alias"] for record in records):
        past = stack(records, alias)
        if alias not in there and past and past[-1] in bundles:
            client.set_registered_model_alias(name, alias, registered(client, name)[past[-1]].version)
            restored[alias] = past[-1]
    return restored


def _make(store: Store, connection: Connection, record: Mapping[str, Any]) -> None:
    """The record first: no alias leads anywhere without an approval; it is taken back when MLflow refuses."""
    name, alias = record["model"], record["alias"]
    path = f"models/{name}/promotions/{record['promotion']}.json"
    record_missing(store, connection, name, [record["to"]])
    with connection.using() as client:
        version = register(client, connection.target, store, f"{name}:{record['to']}")
        if not store.create(path, record):
            raise StorageError(f"Another promotion of '{name}' came first; look at it, and try again.")
        try:
            set_alias(client, connection.target, name, alias, version)
        except BaseException:
            with contextlib.suppress(TreadleError, OSError):
                store.remove_file(path)
            raise
        tags = {
            "who": record["who"],
            "when": record["when"],
            "why": record["why"],
            "from": "" if record["from"] is None else str(record["from"]),
            "forced": str(record["forced"]).lower(),
            "rollback": str(record["rollback"]).lower(),
            "gates": json.dumps(record["gates"]),
            "record": path,
        }
        tag_version(client, version, {f"treadle.{alias}.{key}": value[:TAG] for key, value in tags.items()})


def _before(records: Sequence[Mapping[str, Any]], name: str, alias: str, current: int | None) -> int:
    past = stack(records, alias)
    if current is None or len(past) < 2:
        at = "no version has it" if current is None else f"version {current} is the first that had it"
        raise RequestError(f"'{alias}' of '{name}' has nothing to go back to: {at}.")
    if past[-1] != current:
        raise RequestError(
            f"'{alias}' of '{name}' leads to version {current}, and the last record of a promotion says {past[-1]}: "
            f"somebody changed it in MLflow. Name the version that it is to have: `treadle promote {name}:N {alias}`."
        )
    return past[-2]


def _manifest(store: Store, name: str, version: int) -> dict[str, Any]:
    try:
        return manifest_of(store, name, version)
    except StorageError as error:
        raise StorageError(
            f"The manifest of the run that made {name}:{version} cannot be read, so its gates are not known: {error}"
        ) from error


def _refusal(reference: str, alias: str, failed: Sequence[Verdict]) -> str:
    lines = [
        f"{verdict.gate}: {verdict.measured}; allowed: {verdict.limit}. {_sentence(verdict)}" for verdict in failed
    ]
    gates = "1 gate is" if len(failed) == 1 else f"{len(failed)} gates are"
    said = "\n  ".join(lines)
    return f"{reference} does not become '{alias}': {gates} not met (--force promotes all the same)\n  {said}"


def _sentence(verdict: Verdict) -> str:
    return f"{verdict.remedy[:1].upper()}{verdict.remedy[1:]}."


@contextlib.contextmanager
def _alone(store: Store, name: str) -> Iterator[None]:
    """One promotion of a model at a time, of those who share the file system."""
    if "file" not in store.fs.protocol:
        yield
        return
    folder = Path(store.path(f"models/{name}/promotions"))
    folder.mkdir(exist_ok=True)
    try:
        with locked(folder / ".lock", seconds=LOCK_SECONDS, mine=False):
            yield
    except BlockingIOError as error:
        raise StorageError(
            f"Another promotion of '{name}' has been going on for {LOCK_SECONDS:.0f} s; try again later."
        ) from error


def _user() -> str:
    try:
        return getpass.getuser()
    except OSError:
        return "unknown"
