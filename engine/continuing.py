"""Continued training: a published model as the beginning of another."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from treadle.engine.artifacts import Features, SplitRule
from treadle.engine.bundle import Bundle, load_bundle
from treadle.engine.job import Job
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.base import Task
from treadle.engine.models.boosted import XGBOOST_FILE, drops_trees, quiet, said_by
from treadle.engine.store import Store, storage_errors
from treadle.errors import DataError, RequestError, StorageError, listed

REMEDY = "train without continue_from, or name another version"


@dataclass(frozen=True)
class Earlier:
    """The XGBoost model of a bundle."""

    bundle: Bundle
    raw: bytes
    """As UBJSON."""
    rounds: int
    parallel: int
    """Trees of a round (of a class)."""
    drops_trees: bool

    @property
    def digest(self) -> str:
        """Of what training begins with."""
        return hashlib.blake2b(self.raw, digest_size=16).hexdigest()

    def described(self, features: Features) -> str:
        """That training went on from it, and whether the features are the same in more than their names."""
        said = f"continues {self.bundle.reference}, of {self.rounds} rounds"
        others = [
            new.op
            for old, new in zip(self.bundle.document.operations, features.operations, strict=False)
            if old.model_dump(mode="json") != new.model_dump(mode="json")
        ]
        if len(self.bundle.document.operations) != len(features.operations):
            others = [new.op for new in features.operations]
        if not others:
            return said
        return (
            f"{said}, whose trees were made for features with other statistics: [{listed(dict.fromkeys(others))}] "
            "learned other values or levels from these rows"
        )


def check_earlier(job: Job, task: Task | None, features: Sequence[str], store: Store) -> None:
    """Refuses an earlier model that does not fit, as far as it is known before anything runs.

    Parameters
    ----------
    features : as `treadle.engine.features.check` tells them; names with a `?` are not known yet.

    Raises
    ------
    RequestError
        There is no such model, it is not one of XGBoost's trees, or it is for another target.
    """
    for config in job.listed_models:
        if config.continue_from is None:
            continue
        earlier = earlier_of(store, config)
        document = earlier.bundle.document
        where = _where(config)
        if earlier.drops_trees != drops_trees(config.params):
            has = "was" if earlier.drops_trees else "was not"
            raise RequestError(
                f"{where}: it {has} trained with dropout of trees (rate_drop, one_drop or skip_drop), and the params "
                "say otherwise, which XGBoost would not heed; give it the same."
            )
        parallel = config.params.get("num_parallel_tree", 1)
        if earlier.parallel != parallel:
            raise RequestError(
                f"{where}: num_parallel_tree is {parallel!r}, and it has {earlier.parallel} trees a round, which "
                f"XGBoost would keep to; set num_parallel_tree: {earlier.parallel}."
            )
        # Before the rows are looked at, two classes stand for several, too.
        if task is not None and (task == "regression") != (document.task == "regression"):
            raise RequestError(
                f"{where}: it is for {_what(document.task)}, and the target '{job.data.target}' asks for "
                f"{_what(task)}; {REMEDY}."
            )
        known = not any("?" in name for name in features)
        if known and (difference := _difference(document.features, features)):
            raise RequestError(f"{where}: {difference}; {REMEDY}.")


def digests_of(job: Job, store: Store) -> dict[str, str]:
    """By model that continues an earlier one: a digest of that."""
    return {config.title: earlier_of(store, config).digest for config in job.listed_models if config.continue_from}


def earlier_for(store: Store, config: ModelConfig, rule: SplitRule, features: Features) -> Earlier | None:
    """The earlier model of a model that has one.

    Raises
    ------
    DataError
        It is of another task, other classes or other features.
    """
    if config.continue_from is None:
        return None
    earlier = earlier_of(store, config)
    document = earlier.bundle.document
    if (document.task, document.classes) != (rule.task, rule.classes):
        have = f"{document.task} [{listed(map(repr, document.classes))}]"
        raise DataError(
            f"{_where(config)}: it tells {have}, and the target is {rule.task} [{listed(map(repr, rule.classes))}]; "
            f"the classes and their order must be the same. Else {REMEDY}"
        )
    if difference := _difference(document.features, features.names):
        raise DataError(f"{_where(config)}: {difference}; {REMEDY}")
    return earlier


def earlier_of(store: Store, config: ModelConfig) -> Earlier:
    """Raises RequestError when there is no such bundle, or none of XGBoost's trees."""
    name, _, version = str(config.continue_from).partition(":")
    try:
        bundle = load_bundle(store, name, int(version))
    except RequestError as error:
        raise RequestError(f"{_where(config)}: {error}") from error
    if bundle.document.model != "xgboost":
        raise RequestError(
            f"{_where(config)}: it is a model of {bundle.document.model}; only xgboost's can be continued. "
            f"{REMEDY.capitalize()}."
        )
    path = f"{bundle.folder}/{XGBOOST_FILE}"
    return _read(bundle.store, bundle.folder, store.stamp(path), _where(config))


@functools.lru_cache(maxsize=4)
def _read(store: Store, folder: str, stamp: str, where: str) -> Earlier:
    import xgboost

    _, name, version = folder.split("/")
    path = store.path(f"{folder}/{XGBOOST_FILE}")
    with storage_errors(path), store.fs.open(path, "rb") as file:
        raw: bytes = file.read()
    try:
        with quiet():
            booster = xgboost.Booster(model_file=bytearray(raw))
            learner: Mapping[str, Any] = json.loads(bytes(booster.save_raw("json")))["learner"]
    except (xgboost.core.XGBoostError, ValueError) as error:
        raise StorageError(
            f"{path} is no model that XGBoost reads: {said_by(error)}. {REMEDY.capitalize()}."
        ) from error
    model = learner["gradient_booster"].get("model", {})
    if "gbtree_model_param" not in model:
        raise RequestError(
            f"{where}: its booster has no trees (gblinear), and cannot be continued. {REMEDY.capitalize()}."
        )
    return Earlier(
        bundle=load_bundle(store, name, int(version)),
        raw=raw,
        rounds=booster.num_boosted_rounds(),
        parallel=int(model["gbtree_model_param"]["num_parallel_tree"]),
        drops_trees=bool(model.get("weight_drop")),
    )


def _where(config: ModelConfig) -> str:
    return f"models: continue_from of {config.title} is {config.continue_from}"


def _what(task: Task) -> str:
    return "regression" if task == "regression" else "classification"


def _difference(old: Sequence[str], new: Sequence[str]) -> str | None:
    """How the features of an earlier model differ from those there are; None when they are the same in one order."""
    if list(old) == list(new):
        return None
    lacking, more = [n for n in old if n not in new], [n for n in new if n not in old]
    if lacking or more:
        parts = [f"there is no [{listed(lacking)}]"] * bool(lacking) + [f"it does not know [{listed(more)}]"] * bool(
            more
        )
        return f"its features are others: {', and '.join(parts)}"
    return f"its features have another order: [{listed(old)}]"
