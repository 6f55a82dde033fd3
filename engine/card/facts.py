"""What a card is made of: the artifacts of a run, as they are when its model is published."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from treadle.engine.artifacts import (
    Artifact,
    Comparison,
    Contracted,
    Deduplicated,
    Evaluation,
    Explanation,
    Features,
    Folds,
    Raced,
    Source,
    SplitRule,
    TableRecord,
    Trained,
    Tuned,
    deciding,
)
from treadle.engine.bundle import BundleDocument
from treadle.engine.context import Context
from treadle.engine.inputs import Inspected
from treadle.engine.job import CLASSIFICATION_METRICS, REGRESSION_METRICS, Job
from treadle.engine.sections.about import About

ALL_METRICS = frozenset({*CLASSIFICATION_METRICS, *REGRESSION_METRICS})
TOLD = ("features", "split", "compare", "tune", "ensemble", "evaluate", "explain")
"""Stages whose warnings a card repeats. Those of the input's quote rows of it, which a card is not to carry about."""


@dataclass(frozen=True)
class Input:
    """A table that the job read, without the folders that it lay in."""

    section: str
    name: str
    files: int
    format: str
    version: int | None
    bytes: int
    digest: str

    @classmethod
    def of(cls, section: str, found: Inspected) -> Input:
        paths = [file.path for file in found.files]
        name = place(paths[0]) if len(paths) == 1 else f"{place(paths[0])} and {len(paths) - 1} more"
        return cls(section, name, len(paths), found.format, found.version, found.bytes, found.content)


def place(path: str) -> str:
    """The name of a local file; a URL without what may be secret in it: user, password, query."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
        parts = urlsplit(path)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


@dataclass(frozen=True)
class Facts:
    """All that a card says follows from this."""

    job: Job
    document: BundleDocument
    spec_digest: str
    device: str
    stages: Mapping[str, str]
    """Their fingerprints."""
    tables: tuple[TableRecord, ...]
    """Those that are published with the model."""
    inputs: tuple[Input, ...]
    source: Source
    duplicates: Deduplicated | None
    contract: Contracted | None
    rule: SplitRule
    folds: Folds | None
    race: Raced | None
    comparison: Comparison | None
    tuned: Tuned | None
    features: Features
    best: Trained
    evaluation: Evaluation
    explanation: Explanation | None
    warnings: tuple[str, ...]

    @classmethod
    def of(
        cls,
        context: Context,
        document: BundleDocument,
        made: Mapping[str, Artifact],
        stages: Mapping[str, str],
        tables: Sequence[TableRecord],
        inputs: Mapping[str, Inspected],
    ) -> Facts:
        """Of a run's artifacts and fingerprints by stage, its tables, and its inputs by section of the spec."""
        evaluation = made["evaluate"]
        assert isinstance(evaluation, Evaluation)
        refit, last = "refit" if "refit" in made else f"train:{evaluation.best}", deciding(made)
        found: dict[str, Any] = {
            name: made.get(stage)
            for name, stage in {
                "source": "read", "duplicates": "duplicates", "contract": "contract", "rule": "split",
                "folds": "folds", "race": "race", "tuned": "tune", "comparison": last or "", "features": "features",
                "best": refit, "evaluation": "evaluate", "explanation": "explain",
            }.items()
        }  # fmt: skip
        told = [made[stage] for stage in (*TOLD, refit) if stage in made]
        return cls(
            job=context.job,
            document=document,
            spec_digest=context.spec_digest,
            device=context.backend.name,
            stages=dict(stages),
            tables=tuple(tables),
            inputs=tuple(Input.of(section, one) for section, one in inputs.items()),
            warnings=tuple(dict.fromkeys(text for artifact in told for text in artifact.warnings)),
            **found,
        )

    @property
    def about(self) -> About:
        return self.job.about or About()

    @property
    def reference(self) -> str:
        """`name:version`."""
        return f"{self.document.name}:{self.document.version}"

    @property
    def row(self) -> Mapping[str, Any]:
        """The model's own row of the leaderboard."""
        return next(row for row in self.evaluation.rows if row["model"] == self.evaluation.best)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics of the leaderboard, in its order, the one that chose the model first."""
        columns = dict.fromkeys(name for row in self.evaluation.rows for name in row)
        known = [name for name in columns if name in ALL_METRICS and name != self.evaluation.metric]
        return (self.evaluation.metric, *known)

    @property
    def tested(self) -> bool:
        """Whether anything was measured on rows that are for the test."""
        return self.rule.test_rows > 0
