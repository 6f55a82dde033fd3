"""The model bundle: everything that turns raw rows into predictions, in formats that run no code on loading.

<root>/models/<name>/<version>/bundle.json     written last: without it the version does not exist
                               model.*         the model (see treadle.engine.models)
                               levels-*.parquet  levels of feature operations that have many
                               side-<n>.parquet  group and join tables of the relational operations
                               card.md, card.html  what the model is, and what was measured (see treadle.engine.card)
                               sample.parquet  raw rows with what the run made of them (see treadle.engine.skew)
                               MLmodel         what MLflow loads it by (see treadle.engine.mlmodel)
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, ValidationError

from treadle.engine.artifacts import StepRecord
from treadle.engine.backend import Backend, conform
from treadle.engine.document import Document, Part, digest
from treadle.engine.encoders import AnyFitted, Fitted, Shelf, apply, to_matrix
from treadle.engine.expectations import EachRow, broken_rows
from treadle.engine.mlmodel import write_mlmodel
from treadle.engine.models.base import Model, Task, load_model
from treadle.engine.operation import ROW_ID
from treadle.engine.program import Program, Step
from treadle.engine.publication import pending
from treadle.engine.relational import Rename
from treadle.engine.scoring import Scored, Scoring, Target, write_scores
from treadle.engine.skew import Sample, SampleRecord, other_libraries
from treadle.engine.store import Store, storage_errors
from treadle.errors import DataError, RequestError, StorageError, TreadleError, did_you_mean, listed

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
CARDS = {"md": "card.md", "html": "card.html"}
"""Files of a model's card, by their formats."""


class BundleDocument(Document):
    """bundle.json."""

    format: int = FORMAT
    name: str
    version: int
    fingerprint: str
    run: str
    created: str
    task: Task
    classes: tuple[str | int | float | bool, ...]
    target: str
    id: str | None
    csv: dict[str, Any]
    """How the job's text files are read; batch prediction reads others in the same way."""
    inputs: dict[str, str]
    """Columns of a raw row, with their kinds."""
    steps: tuple[StepRecord, ...]
    """Their files lie beside the document."""
    left_out: tuple[str, ...]
    """Operations that need the target and are not replayed."""
    contract: dict[str, Annotated[EachRow, Field(discriminator="expect")]] = Field(default_factory=dict)
    """Expectations on the inputs, by name."""
    feature_inputs: tuple[str, ...]
    operations: tuple[AnyFitted, ...]
    features: tuple[str, ...]
    features_fingerprint: str | None = None
    """A digest of what makes the features, as it stands in this document (`REPLAYED`)."""
    sample: SampleRecord | None = None
    """None in a bundle that was written before there were samples."""
    model: str
    metrics: dict[str, Any]
    libraries: dict[str, str]


REPLAYED = ("id", "inputs", "steps", "feature_inputs", "operations", "features")
"""Fields that tell how features are made of raw rows."""


class Bundle:
    """A model version, ready to predict. `predict` is a pure function of the rows that it is given."""

    def __init__(self, store: Store, document: BundleDocument, folder: str | None = None) -> None:
        self.store = store
        self.document = document
        self.folder = folder or f"models/{document.name}/{document.version}"
        self._verified = False

    def __repr__(self) -> str:
        d = self.document
        return f"<Bundle {d.name}:{d.version} {d.model}, {d.task}, {len(d.features)} features>"

    @property
    def reference(self) -> str:
        """`name:version`."""
        return f"{self.document.name}:{self.document.version}"

    def verify(self) -> None:
        """Holds what the bundle makes of its sample against what the run made of it; nothing without a sample.

        It is done before the first features are made, once a process while the bundle's files stay as they are.

        Raises
        ------
        StorageError
            It is something else, so that rows would not be predicted as the model was trained.
        """
        if not self._verified and self.document.sample is not None and self.document.sample.rows:
            stamps = tuple(self.store.stamp(f"{self.folder}/{name}") for name in self.store.list(self.folder))
            _verify(self.store, self.folder, stamps)
        self._verified = True

    @functools.cached_property
    def model(self) -> Model:
        return load_model(self.store, self.folder)

    @functools.cached_property
    def card(self) -> str:
        """The model's card, as Markdown."""
        return self.card_as("md")

    def card_as(self, format_: str) -> str:
        """The model's card as `md` or `html`.

        Raises
        ------
        RequestError
            A format that there is not, or a version that was published before there were cards.
        """
        if format_ not in CARDS:
            raise RequestError(f"Format '{format_}' is not known. Allowed: [{listed(CARDS)}].")
        path = f"{self.folder}/{CARDS[format_]}"
        if not self.store.fs.exists(self.store.path(path)):
            raise RequestError(
                f"Model '{self.reference}' has no card: {self.store.path(path)} is not there. Versions that were "
                "published before there were cards have none; run the job again to publish one."
            )
        with storage_errors(self.store.path(path)), self.store.fs.open(self.store.path(path), "rb") as file:
            return bytes(file.read()).decode()

    @functools.cached_property
    def program(self) -> Program:
        """The relational operations, replayed on raw rows."""
        steps = tuple(Step.of(record, f"{self.folder}/") for record in self.document.steps)
        return Program(self.store, Backend(), tuple(self.document.inputs.items()), self.document.id, steps)

    @functools.cached_property
    def operations(self) -> list[Fitted]:
        """The feature operations, with all their levels."""
        return Shelf(self.store, self.folder).opened(self.document.operations)

    def predict(self, frame: pd.DataFrame, explain: bool = False) -> pd.DataFrame:
        """Predictions of raw rows: id, score, margin, class; with `explain` also one column a feature, and `bias`.

        A row that the job's filters leave out has no prediction. Without an id column in the
        model, the id is the position of the row.

        Raises
        ------
        RequestError
            A column is missing or of another type than the model was trained on.
        DataError
            A value that the training rows did not have, where the spec says `unseen: error`.
        """
        predictions, explanations = self.tables(frame, explain)
        if explanations is None:
            return predictions.to_pandas()
        if self.document.task == "multiclass":
            # By position, because ids may repeat: the rows of one prediction follow each other, one a class.
            rows = np.repeat(np.arange(predictions.num_rows), len(self.document.classes))
            repeated = predictions.take(pa.array(rows)).to_pandas()
            contributions = explanations.drop_columns(["id"]).to_pandas()
            contributions = contributions.rename(columns={"class": "class_explained"})
            return repeated.join(contributions, rsuffix="_contribution")
        names = [name for name in explanations.column_names if name != "id"]
        return predictions.to_pandas().join(explanations.select(names).to_pandas(), rsuffix="_contribution")

    def tables(self, frame: pd.DataFrame, explain: bool = False, start: int = 0) -> tuple[pa.Table, pa.Table | None]:
        """As `predict`, but as Arrow tables; row numbers count from `start`."""
        ids, matrix = self.features_of(frame, start)
        every = np.arange(len(matrix))
        margin, _ = self.scoring.margins(matrix, every)
        predictions = self.scoring.predictions(ids, margin)
        if not explain:
            return predictions, None
        blocks = self.scoring.explanations(ids, matrix, margin, every)
        return predictions, pa.concat_tables([block.table for block in blocks]).combine_chunks()

    def write_tables(
        self, frame: pd.DataFrame, out: Store, predictions: str, explanations: str | None, start: int, where: str
    ) -> Scored:
        """Writes `tables` as files of another root, block by block; contributions only where a path is given for them.

        `where` is what a message calls the rows.
        """
        ids, matrix = self.features_of(frame, start)
        every = np.ones(len(matrix), dtype=bool)
        explained = None if explanations is None else Target(explanations, every)
        return write_scores(self.scoring, ids, matrix, out, Target(predictions, every), explained, where)

    def violations(self, frame: pd.DataFrame) -> dict[str, int]:
        """How many raw rows break each expectation of the job's contract that a row is held against by itself."""
        if not self.document.contract:
            return {}
        rows = conform(frame, dict(self.program.kinds), "the input")
        return {name: int(broken_rows(name, found, rows).sum()) for name, found in self.document.contract.items()}

    @property
    def scoring(self) -> Scoring:
        """The model with the names that its tables have."""
        return Scoring(self.model, self.document.features, self.document.classes)

    def features_of(self, frame: pd.DataFrame, start: int = 0) -> tuple[pa.Array, np.ndarray]:
        """Ids and float32 matrix (rows, features) of raw rows, without those that are filtered out."""
        self.verify()
        return self._features_of(frame, start)

    def skew(self, sample: Sample) -> str | None:
        """The first thing that the bundle makes otherwise of raw rows than the run did; None where all is the same."""
        try:
            ids, matrix = self._features_of(self.program.backend.frame(sample.rows))
        except (TreadleError, pa.ArrowException, AttributeError, LookupError, TypeError, ValueError) as error:
            return f"raw rows of the run cannot be replayed: {error}"
        places = ids if self.document.id is None else pc.index_in(ids, value_set=sample.ids).fill_null(-1)
        found = sample.other_rows(places.to_numpy())
        if found is None:
            matrix = matrix[np.argsort(places.to_numpy())]
            found = sample.other_feature(matrix, self.document.features)
        return found or sample.other_margin(self.model.margin(matrix).reshape(len(matrix), -1))

    def _features_of(self, frame: pd.DataFrame, start: int = 0) -> tuple[pa.Array, np.ndarray]:
        import pandas as pd

        if not isinstance(frame, pd.DataFrame):
            raise RequestError(f"predict takes a pandas DataFrame of raw rows, not {type(frame).__name__}.")
        rows = conform(frame.reset_index(drop=True), dict(self.program.kinds), "the input")
        if self.document.id is None:
            rows.insert(0, ROW_ID, pd.Series(range(start, start + len(rows)), dtype="Int64"))
        prepared = self.program.apply(self.program.with_id(rows))
        d = self.document
        matrix = to_matrix(apply(prepared, self.operations, d.feature_inputs), d.features, len(prepared))
        return self.program.backend.table(prepared[[ROW_ID]]).column(0).combine_chunks(), matrix


def replayable(program: Program, feature_inputs: Mapping[str, Any], target: str) -> tuple[Program, list[Step]]:
    """The part of a job's program that makes feature columns of raw rows without a target, and what is left out.

    These are filters and dedupes that look at the target: a row to predict has none to be left out by.
    """
    pruned = program.pruned(list(feature_inputs))
    names = [target]
    for step in reversed(program.steps):
        if isinstance(step.operation, Rename):
            names.append({new: old for old, new in step.operation.columns.items()}.get(names[-1], names[-1]))
    without, left_out = pruned.without_columns(names)
    return without.pruned(list(feature_inputs)), left_out


def write_bundle(
    store: Store, document: BundleDocument, files: tuple[Part, ...], program: Program, sample: Sample | None = None
) -> Bundle:
    """Copies the files of model and features and the small tables into the version's folder.

    Without bundle.json, which `publish_bundle` writes, no reader sees it.

    Raises
    ------
    DataError
        The bundle would not make of the sample what the run made of it.
    """
    folder = f"models/{document.name}/{document.version}"
    steps = []
    for step in program.steps:
        side = None
        if step.side is not None:
            side = f"side-{step.index}.parquet"
            _copy(store, step.side, f"{folder}/{side}")
        steps.append(step.record().model_copy(update={"side": side}))
    for part in files:
        _copy(store, part.path, f"{folder}/{part.path.rsplit('/', 1)[-1]}")
    document = document.model_copy(update={"steps": tuple(steps), "inputs": dict(program.kinds)})
    fingerprint = _features_fingerprint(document.model_dump(mode="json", by_alias=True))
    bundle = Bundle(store, document.model_copy(update={"features_fingerprint": fingerprint}))
    if sample is not None:
        found = bundle.skew(sample)
        if found is not None:
            raise DataError(
                f"Model '{bundle.reference}' is not published, since it would not predict as it was trained: {found}. "
                "Outcomes of stages that another version of a library made may have been used; run again with --fresh."
            )
        sample.write(store, folder, document.features)
    write_mlmodel(store, folder, bundle.document)
    return bundle


def publish_bundle(bundle: Bundle) -> None:
    """Writes bundle.json, by which the version exists."""
    document = bundle.document.model_dump(mode="json", by_alias=True)
    bundle.store.write_json(f"{bundle.folder}/bundle.json", document)


def _features_fingerprint(raw: Mapping[str, Any]) -> str:
    """Of bundle.json as it is written: what a later Treadle would write of it does not matter."""
    return digest({name: raw.get(name) for name in REPLAYED})


def _copy(store: Store, source: str, target: str) -> None:
    with (
        storage_errors(store.path(source)),
        store.fs.open(store.path(source), "rb") as file,
        store.writing(target) as out,
    ):
        out.write(file.read())


def versions(store: Store, name: str) -> list[int]:
    """Versions of a model that are published, ascending."""
    claim = pending(store, name)
    hidden = None if claim is None else claim.model
    return [version for version in complete_versions(store, name) if f"{name}:{version}" != hidden]


def complete_versions(store: Store, name: str) -> list[int]:
    """Versions of a model with all their files, ascending; the last may be of a run that has no manifest yet."""
    return [v for v in all_versions(store, name) if store.exists(f"models/{name}/{v}/bundle.json")]


def all_versions(store: Store, name: str) -> list[int]:
    """Versions of a model that have been begun, ascending."""
    return sorted(int(version) for version in store.list(f"models/{name}") if version.isdigit())


def load_bundle(store: Store, name: str, version: int | None = None) -> Bundle:
    """A version of a model, the newest when none is given.

    Raises
    ------
    RequestError
        No such model or version; names what there is.
    """
    existing = versions(store, name)
    if not existing:
        names = [n for n in store.list("models") if versions(store, n)]
        raise RequestError(
            f"There is no model '{name}' under {store.url}. Models: [{listed(names)}].{did_you_mean(name, names)}"
        )
    if version is not None and version not in existing:
        raise RequestError(f"Model '{name}' has no version {version}. Versions: [{listed(existing)}].")
    return _unchanged(*_opened(store, f"models/{name}/{version or existing[-1]}"))


def open_bundle(path: str) -> Bundle:
    """The bundle in a folder of this machine, which may be a copy of it outside of any root.

    Raises
    ------
    RequestError
        There is none.
    """
    parent, _, folder = path.rstrip("/").rpartition("/")
    store = Store(parent or "/")
    if not store.exists(f"{folder}/bundle.json"):
        raise RequestError(f"{path} holds no model: there is no bundle.json in it.")
    return _unchanged(*_opened(store, folder))


def _unchanged(bundle: Bundle, fingerprint: str) -> Bundle:
    """A bundle, published or not, of which bundle.json makes features as it did; else StorageError."""
    if bundle.document.features_fingerprint not in (None, fingerprint):
        bundle.verify()
        raise StorageError(
            f"Model '{bundle.reference}' is refused: how features are made has changed in "
            f"{bundle.store.path(bundle.folder)}/bundle.json since it was published (features_fingerprint is "
            f"{bundle.document.features_fingerprint}, and that of the document {fingerprint}). Restore the file, or "
            "train the model again."
        )
    return bundle


def _opened(store: Store, folder: str) -> tuple[Bundle, str]:
    """The bundle in a folder, and the fingerprint of how its features are made, as it is now."""
    raw = store.read_json(f"{folder}/bundle.json")
    if raw.get("format") != FORMAT:
        raise RequestError(
            f"Model '{raw.get('name')}' was written in bundle format {raw.get('format')}, and this Treadle reads "
            f"{FORMAT}."
        )
    try:
        return Bundle(store, BundleDocument.model_validate(raw), folder), _features_fingerprint(raw)
    except ValidationError as error:
        path = store.path(f"{folder}/bundle.json")
        raise StorageError(
            f"{path} is no bundle of this version of Treadle ({error.error_count()} fields do not fit); "
            "train the model again."
        ) from error


@functools.lru_cache(maxsize=32)
def _verify(store: Store, folder: str, stamps: tuple[str, ...]) -> None:
    """Refuses a bundle that makes something else of its sample than the run did; StorageError."""
    bundle, _ = _opened(store, folder)
    d = bundle.document
    try:
        sample = Sample.read(store, folder, list(d.inputs), d.features, bundle.model.outputs)
        found = bundle.skew(sample)
    except (KeyError, ValueError, pa.ArrowException) as error:
        found = f"the rows that it is checked by cannot be read ({error})"
    if found is None:
        return
    others = other_libraries(d.libraries)
    if others:
        remedy = f"Versions differ: {listed(others)}. Install those of then, or train the model again with --fresh."
    else:
        remedy = (
            f"The versions of the libraries are those of then, so files in {store.path(folder)} have changed: restore "
            "them, or train the model again."
        )
    raise StorageError(f"Model '{bundle.reference}' is refused, it would not predict as trained: {found}. {remedy}")


def is_sound(store: Store, name: str, version: int) -> bool:
    """Whether a version, published or not, can be loaded, and replays its sample."""
    try:
        _unchanged(*_opened(store, f"models/{name}/{version}")).verify()
    except TreadleError:
        return False
    return True


def fingerprint_of(store: Store, name: str, version: int) -> str | None:
    """What a version was made from, whichever version of Treadle wrote it; None when it is damaged."""
    try:
        found = store.read_json(f"models/{name}/{version}/bundle.json").get("fingerprint")
    except StorageError:
        return None
    return str(found) if found else None
