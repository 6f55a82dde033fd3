"""What is left of a training that was broken off: the booster after the last segment, until the stage is done.

<root>/stages/checkpoints-<fingerprint>/   checkpoint.json, written last, and the booster that it names

The fingerprint is that of the stage, so that a checkpoint is of the same rows, model, seed and versions.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ValidationError

from treadle.engine.document import Document
from treadle.engine.models.base import read_file, write_file
from treadle.engine.store import Store
from treadle.errors import StorageError

INDEX = "checkpoint.json"


class Checkpoint(Document):
    """checkpoint.json."""

    format: Literal[1] = 1
    rounds: int
    """Those that were trained, without an earlier model's."""
    losses: tuple[float, ...]
    """After each round, on the rows that are held back; none where nothing is."""
    trained_on: tuple[str, ...]
    """Workers and device, as `8 workers (cpu)`; several, in their order, where they changed on the way."""
    file: str = ""
    digest: str = ""


def folder_of(fingerprint: str) -> str:
    """Where the checkpoints of a stage are, relative to the root."""
    return f"stages/checkpoints-{fingerprint}"


def save_checkpoint(store: Store, fingerprint: str, checkpoint: Checkpoint, raw: bytes) -> None:
    """Writes a checkpoint in place of the one before, which stays until the new one is whole."""
    folder = folder_of(fingerprint)
    before = [name for name in store.list(folder) if name != INDEX]
    file = f"rounds-{checkpoint.rounds}.ubj"
    digest = write_file(store, f"{folder}/{file}", raw)
    checkpoint = checkpoint.model_copy(update={"file": file, "digest": digest})
    store.write_json(f"{folder}/{INDEX}", checkpoint.model_dump(mode="json"))
    for name in before:
        if name != file:
            store.remove_file(f"{folder}/{name}")


def load_checkpoint(store: Store, fingerprint: str) -> tuple[Checkpoint, bytes] | None:
    """The last checkpoint with its booster; None where there is none that is whole."""
    folder = folder_of(fingerprint)
    if INDEX not in store.list(folder):
        return None
    try:
        checkpoint = Checkpoint.model_validate(store.read_json(f"{folder}/{INDEX}"))
        return checkpoint, read_file(store, f"{folder}/{checkpoint.file}", checkpoint.digest)
    except (StorageError, ValidationError):
        return None  # damaged, or of another version of Treadle: training begins anew


def forget_checkpoints(store: Store, fingerprint: str) -> None:
    """Removes the checkpoints of a stage, if there are any."""
    folder = folder_of(fingerprint)
    # The index first, so that it never names what is gone.
    for name in sorted(store.list(folder), key=lambda name: name != INDEX):
        store.remove_file(f"{folder}/{name}")
    store.remove_unfinished(folder)
    store.remove_empty(folder)
