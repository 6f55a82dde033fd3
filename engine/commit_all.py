"""What a run makes visible, all of it at once: versions of tables that only want their commit, and a bundle."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
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

    def next_reference(self, left: Collection[str]) -> str:
        """`name:version` for a new one; those of `left`, which may still be written, are not used again."""

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


TAKES_BACK = "takes back what a run that was cut off left"
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

    1. The run waits for its turn. 2. It says what it will change, and takes back what a killed one left. 3. The
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
        versions[name] = begun.there.get(name) or table.commit(begun.heads[name])
        steps.done(f"{name} is committed")
    if publish is not None:
        publish(versions)
    steps.done("all is committed")
    return versions, model


@dataclass(frozen=True)
class _Begun:
    """What a run found in its turn: what is there already, its model, and its claim where anything is to be changed."""

    heads: dict[str, int | None]
    """The number of each table's current version, which the next one replaces."""
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
    heads, there = _look(ready)
    left = turn.left
    if left is None and there.keys() == ready.keys() and (bundled is None or model is not None):
        return _Begun(heads, there, model, False, None)
    is_new = bundled is not None and model is None
    if bundled is not None and model is None:
        model = bundled.next_reference(turn.left_models)
    changed = {name: version for name, version in heads.items() if name not in there}
    claim = publishing.begin(turn, changed, model if is_new or model in turn.left_models else None)
    if claim is None:
        return None
    if left is not None:
        steps.say(TAKES_BACK)
        # What both make stays, hidden until this run has its manifest.
        settle(store, left, run, keep=there)
        for other in turn.left_models:
            if other != model:
                hide(store, other)
        heads, there = _look(ready)
    return _Begun(heads, there, model, is_new, claim)


def _look(ready: Mapping[str, Ready]) -> tuple[dict[str, int | None], dict[str, TableVersion]]:
    """By table: the number of the current version, and the version itself where nothing is to be committed."""
    found = {name: table.look() for name, table in ready.items()}
    there = {name: version for name, (_, version) in found.items() if version is not None}
    return {name: number for name, (number, _) in found.items()}, there
