"""What a run makes visible, all of it at once: versions of tables that only want their commit, and a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from treadle.engine.commits import Ready
from treadle.engine.delta import TableVersion
from treadle.engine.publication import Claim, Publishing, hide, settle
from treadle.engine.store import Store
from treadle.signals import held


class Bundled(Protocol):
    """The bundle that a run is to have."""

    def existing(self) -> str | None:
        """`name:version` of the newest one, published or not, when it was made from the same and is whole."""

    def next_reference(self, left: Claim | None) -> str:
        """`name:version` for a new one; a version that `left` may still be writing is not used again."""

    def write(self, reference: str) -> Callable[[Mapping[str, TableVersion]], object]:
        """Writes what does not wait for the tables; the function that it returns does the rest, bundle.json last."""


class Steps:
    """Numbered steps, which are told as events of the run."""

    def __init__(self, tell: Callable[[int, int, str], object], total: int) -> None:
        self._tell = tell
        self._total = total
        self._done = 0

    def done(self, note: str) -> None:
        """Another step is done."""
        self._done += 1
        self.say(note)

    def say(self, note: str) -> None:
        self._tell(self._done, self._total, note)


COMMON_STEPS = 3
"""Besides one a table."""


def commit_all(
    store: Store,
    publishing: Publishing,
    run: str,
    job: str,
    ready: Mapping[str, Ready],
    bundled: Bundled | None,
    steps: Steps,
) -> tuple[dict[str, TableVersion], str | None]:
    """Makes every table its new version, and the bundle, in the turn of this run.

    1. The run waits for its turn, and takes back what a killed one left. 2. It says what it will change. 3. The
    bundle's files are written and checked. 4. The tables are committed, one after the other. 5. bundle.json. The
    manifest, which the caller writes, makes all of it visible. Where all of it is there already, nothing is done, and
    `publishing` has no claim.

    Returns
    -------
    The current version of each table, and `name:version` of the bundle.
    """
    while (begun := _begin(store, publishing, run, ready, bundled, steps)) is None:
        pass  # another driver came first, and its turn is waited for
    claim, model = begun.claim, begun.model
    if claim is None:
        return begun.there, model
    steps.done(f"publication {claim.number} of {job} has begun")
    publish = bundled.write(model) if bundled is not None and model is not None and begun.is_new else None
    steps.done("the files of the model's bundle are there" if model else "there is no model")
    # Too late to cancel: from the first table to the manifest nothing is left half published.
    publishing.ending.enter_context(held())
    versions = {}
    for name, table in ready.items():
        versions[name] = begun.there.get(name) or table.commit(claim.before[name])
        steps.done(f"{name} is committed")
    if publish is not None:
        publish(versions)
    steps.done("all is committed")
    return versions, model


@dataclass(frozen=True)
class _Begun:
    """What a run found in its turn: what is there already, its model, and its claim where anything is to be changed."""

    there: dict[str, TableVersion]
    model: str | None
    is_new: bool
    """Whether the model is to be written."""
    claim: Claim | None


def _begin(
    store: Store,
    publishing: Publishing,
    run: str,
    ready: Mapping[str, Ready],
    bundled: Bundled | None,
    steps: Steps,
) -> _Begun | None:
    """Waits for the turn, and claims it; None where another driver came first, as one can where there are no locks."""
    turn = publishing.turn(lambda: steps.say("waits for another run that is publishing"))
    steps.say("no other run is publishing")
    model = None if bundled is None else bundled.existing()
    current, there = _look(ready)
    left = turn.left
    if left is None and there.keys() == ready.keys() and (bundled is None or model is not None):
        return _Begun(there, model, False, None)
    if left is not None:
        settle(store, left, run, keep=there)
        if left.model not in (None, model):
            hide(store, left.model)
        current, there = _look(ready)
    before = {name: version for name, version in current.items() if name not in there}
    if left is not None:  # what both make is there, but hidden until this run has its manifest
        before |= {name: left.before[name] for name in there.keys() & left.before.keys()}
    is_new = bundled is not None and model is None
    if bundled is not None and model is None:
        model = bundled.next_reference(left)
    claim = publishing.begin(turn, before, model if is_new or (left is not None and left.model == model) else None)
    return None if claim is None else _Begun(there, model, is_new, claim)


def _look(ready: Mapping[str, Ready]) -> tuple[dict[str, int | None], dict[str, TableVersion]]:
    """By table: the number of the current version, and the version itself where nothing is to be committed."""
    found = {name: table.look() for name, table in ready.items()}
    there = {name: version for name, (_, version) in found.items() if version is not None}
    return {name: number for name, (number, _) in found.items()}, there
