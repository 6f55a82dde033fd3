"""Ensembles: one prediction made of members', which are models of ours and lie beside each other in a folder."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from treadle.engine.models.arrays import read_arrays, write_arrays
from treadle.engine.models.base import Model, Task, read_model, save_model
from treadle.engine.models.combination import Average, Combination, Stacked
from treadle.engine.models.linear import LinearModel
from treadle.engine.models.neighbours import DIFFERENCES, FEWEST_EVALUATIONS, NeighboursModel
from treadle.engine.models.sampled import MOST_EVALUATIONS, Background, SampledModel
from treadle.engine.store import Store


@dataclass(frozen=True)
class MemberStore(Store):
    """A store in which the files of a member, `model.*`, are called `model.<number>.*`."""

    number: int = 0

    @classmethod
    def of(cls, store: Store, number: int) -> MemberStore:
        return cls(store.url, store.run, number)

    def path(self, relative: str) -> str:
        folder, _, name = relative.rpartition("/")
        prefix = f"model.{self.number}."
        return super().path(f"{folder}/{prefix}{name.removeprefix('model.')}")


class EnsembleModel(SampledModel):
    """margin = the weighted mean of the members' scores, or the meta model's margin of them.

    Contributions are the members', added up, where the margin is a sum of theirs: for numbers, and where all members'
    margins are probabilities. Else they are sampled. Rows with nulls are refused where a member refuses them.
    """

    format: ClassVar[str] = "ensemble"

    def __init__(
        self,
        task: Task,
        titles: Sequence[str],
        members: Sequence[Model],
        combination: Combination,
        background: Background | None = None,
    ) -> None:
        """`background` is needed unless contributions `add_up`."""
        self.task = task
        self.link = combination.link
        self.titles, self.members, self.combination = tuple(titles), tuple(members), combination
        self.features, self.outputs = members[0].features, members[0].outputs
        if background is not None:
            self.background = background
        elif not add_up(task, members, combination):
            raise ValueError("an ensemble whose contributions are sampled needs background rows")

    @property
    def weights(self) -> np.ndarray:
        """float64 (members,): of the members' margins where contributions add up."""
        if isinstance(self.combination, Average):
            return self.combination.weights
        return self.combination.meta.coefficients[0]

    @functools.cached_property
    def adds_up(self) -> bool:
        return add_up(self.task, self.members, self.combination)

    @property
    def method(self) -> str:
        how = "average" if isinstance(self.combination, Average) else "linear model"
        if not self.adds_up:
            return f"of the {how} of {', '.join(self.titles)}: {super().method}"
        pairs = list(zip(self.weights, self.titles, self.members, strict=True))
        own = "; ".join(f"{weight:.3g} {title}: {member.method}" for weight, title, member in pairs)
        sampled = [abs(w) * m.error for w, _, m in pairs if isinstance(m, SampledModel) and len(m.background.orders)]
        # Members are sampled by the same rows and orders, so that their errors may go together.
        error = f"; mean standard error {sum(sampled):.2g} at most" if sampled else ""
        return f"contributions of the members, added up as their {how} ({own}){error}"

    def _margin(self, matrix: np.ndarray) -> np.ndarray:
        return self.combination.margin([member.scores(member.margin(matrix)) for member in self.members])

    def _raw(self, matrix: np.ndarray) -> np.ndarray:
        return self._margin(matrix).reshape(len(matrix), self.outputs)

    def _contributions(self, matrix: np.ndarray) -> np.ndarray:
        if not self.adds_up:
            return super()._contributions(matrix)
        found = self.weights[0] * self.members[0].contributions(matrix)
        for weight, member in zip(self.weights[1:], self.members[1:], strict=True):
            found += weight * member.contributions(matrix)
        if isinstance(self.combination, Stacked):
            found[:, -1] += self.combination.meta.intercept[0]
        return found

    def save(self, store: Store, folder: str) -> dict[str, Any]:
        for number, member in enumerate(self.members):
            save_model(member, MemberStore.of(store, number), folder)
        if isinstance(self.combination, Average):
            how: dict[str, Any] = {"weights": self.combination.weights.tolist()}
        else:
            how = {"meta": self.combination.meta.save(store, folder)}
        digest = None if self.adds_up else write_arrays(store, folder, self.background.arrays())
        return {"titles": list(self.titles), **how, "digest": digest}

    @classmethod
    def load(cls, store: Store, folder: str, document: dict[str, Any]) -> EnsembleModel:
        """Raises StorageError when a file is missing or not the one that was written."""
        titles, task = document["titles"], document["task"]
        members = [read_model(MemberStore.of(store, number), folder) for number in range(len(titles))]
        if "weights" in document:
            combination: Combination = Average(np.asarray(document["weights"], dtype=np.float64))
        else:
            meta = {**document["meta"], "task": task, "link": document["link"]}
            combination = Stacked(LinearModel.load(store, folder, meta))
        digest = document["digest"]
        background = None if digest is None else Background.of(read_arrays(store, folder, digest))
        return cls(task, titles, members, combination, background)


def add_up(task: Task, members: Sequence[Model], combination: Combination) -> bool:
    """Whether the margin is a weighted sum of the members' margins, so that so are their Shapley values."""
    return all(member.link == "identity" for member in members) and (
        task == "regression" or isinstance(combination, Average)
    )


def evaluations_of(members: Sequence[Model]) -> int:
    """Margins of the ensemble that explaining a row may take: members together cost what one model may."""
    found = MOST_EVALUATIONS // len(members)
    for member in members:
        if isinstance(member, NeighboursModel):
            found = min(found, DIFFERENCES // member.rows.size)
    return max(found, FEWEST_EVALUATIONS)
