"""What a model's bundle is made of: the best model of a run, and all that makes its features of raw rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from treadle.engine import card
from treadle.engine.artifacts import (
    Artifact,
    Evaluation,
    Features,
    Prepared,
    SplitRule,
    Trained,
    source_of,
)
from treadle.engine.bundle import (
    BundleDocument,
    all_versions,
    complete_versions,
    fingerprint_of,
    is_sound,
    publish_bundle,
    replayable,
    write_bundle,
)
from treadle.engine.context import Context
from treadle.engine.delta import TableVersion
from treadle.engine.document import Part
from treadle.engine.events import now
from treadle.engine.expectations import EachRow, named
from treadle.engine.inputs import Inspected
from treadle.engine.program import Program
from treadle.engine.rows import replay_of
from treadle.engine.sampling import sample_of
from treadle.engine.skew import Sample, SampleRecord
from treadle.engine.store import Store
from treadle.engine.text_input import text_options
from treadle.versions import version_of

LIBRARIES = ("treadle", "xgboost", "scikit-learn", "numpy", "pandas", "pyarrow", "dask", "deltalake")


@dataclass(frozen=True)
class Bundling:
    """The bundle that a run is to have."""

    context: Context
    made: Mapping[str, Artifact]
    best: Trained
    fingerprints: Mapping[str, str]
    """Of the stages."""
    inputs: Mapping[str, Inspected]
    """By the section of the spec that names each."""

    @property
    def fingerprint(self) -> str:
        """Of all that it is made from."""
        return self.fingerprints["publish"]

    @property
    def name(self) -> str:
        return self.context.job.name

    @property
    def files(self) -> tuple[Part, ...]:
        """Those of the model and of the features."""
        features = self.made["features"]
        assert isinstance(features, Features)
        return (*self.best.files, *features.level_files)

    def existing(self) -> str | None:
        """`name:version` of the newest bundle when it was made from the same and is whole, published or not."""
        store, found = self.context.store, complete_versions(self.context.store, self.name)
        if not found or fingerprint_of(store, self.name, found[-1]) != self.fingerprint:
            return None
        folder = f"models/{self.name}/{found[-1]}"
        copies = [part.model_copy(update={"path": f"{folder}/{part.path.rsplit('/', 1)[-1]}"}) for part in self.files]
        whole = store.has(*copies) and is_sound(store, self.name, found[-1])
        return f"{self.name}:{found[-1]}" if whole else None

    def next_reference(self, left: Collection[str]) -> str:
        """`name:version` for a new bundle."""
        return next_reference(self.context.store, self.name, left)

    def write(self, reference: str) -> Callable[[Mapping[str, TableVersion]], None]:
        """Writes all of it but the card, which names the tables' versions, and bundle.json: the function does.

        Raises
        ------
        DataError
            It would not predict as the run trained.
        """
        context, made, job = self.context, self.made, self.context.job
        prepared, rule, features, evaluation = made["etl"], made["split"], made["features"], made["evaluate"]
        assert isinstance(prepared, Prepared)
        assert isinstance(rule, SplitRule)
        assert isinstance(features, Features)
        assert isinstance(evaluation, Evaluation)
        raw = source_of(made[job.rows_from])
        program, left_out = replayable(replay_of(context, prepared), features.inputs, job.data.target or "")
        found = sample_of(context, prepared, raw, (program, left_out), features, self.best)
        document = BundleDocument(
            name=job.name,
            version=int(reference.rpartition(":")[2]),
            fingerprint=self.fingerprint,
            run=context.run_id,
            created=now(),
            task=rule.task,
            classes=rule.classes,
            target=job.data.target or "",
            id=program.id_column,
            csv=asdict(text_options(job.data)),
            inputs={},
            steps=(),
            left_out=tuple(step.where for step in left_out),
            contract=_contract(context, prepared, program),
            feature_inputs=tuple(features.inputs),
            operations=features.operations,
            features=features.names,
            sample=SampleRecord(rows=len(found.ids))
            if isinstance(found, Sample)
            else SampleRecord(rows=0, reason=found),
            model=self.best.model,
            metrics=_metrics(evaluation, self.best.name),
            libraries={name: version_of(name) for name in LIBRARIES},
        )
        sample = found if isinstance(found, Sample) else None
        bundle = write_bundle(context.store, document, self.files, program, sample)

        def publish(versions: Mapping[str, TableVersion]) -> None:
            tables = [version.record(job.name) for version in versions.values()]
            card.write(bundle, card.Facts.of(context, bundle.document, made, self.fingerprints, tables, self.inputs))
            publish_bundle(bundle)

        return publish


def next_reference(store: Store, name: str, left: Collection[str]) -> str:
    """`name:version` for a new bundle; those of `left`, which may still be written, are not used again."""
    taken = [*all_versions(store, name), *(int(reference.rpartition(":")[2]) for reference in left)]
    return f"{name}:{max(taken, default=0) + 1}"


def _contract(context: Context, prepared: Prepared, program: Program) -> dict[str, EachRow]:
    """The expectations that can be held against a row to predict by itself, by name."""
    if prepared.first > 0:
        return {}  # what is predicted are rows that the operations made, not the input's
    columns = set(dict(program.kinds))
    return {
        name: expectation
        for name, expectation in named(context.job.contract)
        if isinstance(expectation, EachRow) and columns.issuperset(expectation.reads)
    }


def _metrics(evaluation: Evaluation, name: str) -> dict[str, Any]:
    (row,) = [row for row in evaluation.rows if row["model"] == name]
    held_out = {f"test_{key}": value for key, value in (evaluation.held_out or {}).items()}
    return {key: value for key, value in row.items() if isinstance(value, float)} | held_out
