"""What stages hand to each other: frozen documents, saved as JSON beside the files they name.

Paths of files that Treadle wrote are relative to the artifacts root, so that a root can be moved.
"""

from __future__ import annotations

from collections.abc import Container
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field

from treadle.engine.document import Document, Part
from treadle.engine.encoders import AnyFitted, Kind
from treadle.engine.job import Model
from treadle.engine.relational import TableOperation

Role = Literal["any", "train", "test"]
"""`train` and `test` are the two inputs of a split by path."""


class Artifact(Document):
    """What a stage made."""

    warnings: tuple[str, ...] = ()
    fell_back: tuple[str, ...] = ()
    """What the host did of a job on GPUs, and why."""

    @property
    def is_final(self) -> bool:
        """False when another attempt might make something else, so that it is not to be cached."""
        return True

    @property
    def holds(self) -> bool:
        """False when what was found is so no longer, for the time that has passed."""
        return True

    @property
    def parts(self) -> tuple[Part, ...]:
        """The files that must still be there for the artifact to be used again."""
        return ()


class Piece(Document):
    """A run of rows of one Parquet file; a partition, the unit of work, is one or several of them."""

    path: str
    """A URL or absolute path of the user's file, or a path relative to the root when `own`."""
    own: bool
    start: int
    stop: int
    offset: int
    """Number of rows of the input before this piece: row numbers do not depend on the pieces."""
    role: Role = "any"
    """Which side of a split by path it belongs to."""
    step: int | None = None
    """Rows of another table: the operation (its place in the spec) that they are for."""
    batch: int | None = None
    """Of a file of exchanged rows: which of its record batches, of which these are all the rows."""
    constants: dict[str, str | None] = Field(default_factory=dict)
    """Columns that are not in the file and have one value in all of its rows, as text."""
    left_out: str | None = None
    """A file of the numbers of rows that are left out: these rows of the piece are not there."""

    @property
    def rows(self) -> int:
        return self.stop - self.start


class Origin(Document):
    """What a converted file is made from: a text file, from a row on."""

    file: str
    before: int
    """Rows of the text file, broken ones not counted, before the first one here."""


class Source(Artifact):
    """Rows ready to be read: pieces of Parquet files and the kinds of their columns."""

    kinds: dict[str, str]
    partitions: tuple[tuple[Piece, ...], ...]
    files: tuple[Part, ...] = ()
    quarantine: tuple[Part, ...] = ()
    bad_rows: int = 0
    origins: dict[str, Origin] = Field(default_factory=dict)
    """Of files that were converted: what they are made from."""
    left_out: int = 0
    """Rows of the pieces that are not there: they repeat others, or a contract set them aside."""

    @property
    def rows(self) -> int:
        """Those that are left out are counted, too: row numbers are below this."""
        return sum(rows_of(partition) for partition in self.partitions)

    @property
    def rows_left(self) -> int:
        return self.rows - self.left_out

    @property
    def parts(self) -> tuple[Part, ...]:
        return (*self.files, *self.quarantine)


def rows_of(partition: tuple[Piece, ...]) -> int:
    """Rows of a partition, without those of other tables that are only matched with them."""
    own = [piece for piece in partition if piece.step is None]
    return sum(piece.rows for piece in own or partition)


class Deduplicated(Artifact):
    """How many rows repeat others, and the rows without them where they are to be left out."""

    source: Source
    rows: int
    """Those that were looked at: all."""
    repeated: int
    """Rows that equal an earlier one in every column; with a split of kind `path`, one of the same input."""
    dropped: int
    """How many of them are left out: all or none."""
    in_both: int | None
    """Distinct rows of the test input that equal a training row; None where no input is for the test."""

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.source.parts


class Example(Document):
    """A row that breaks an expectation."""

    row: int
    """Its number in the input, from 0."""
    file: str
    line: int
    """As the table `quarantine` has them."""
    values: dict[str, Any]
    """Those of the columns that the expectation looks at; times as text."""


class Verdict(Document):
    """The outcome of one expectation."""

    name: str
    expect: str
    status: Literal["passed", "warned", "quarantined", "failed"]
    rows: int
    """Those that were checked: all."""
    violations: int | None
    """Rows that break it; None where it is about all rows together."""
    measured: dict[str, int | float | str | None]
    examples: tuple[Example, ...]
    """The first few of the violations."""


class Contracted(Artifact):
    """How the input meets the job's contract, and the rows without those that were set aside."""

    source: Source
    verdicts: tuple[Verdict, ...]
    rows: int
    set_aside: int
    until: datetime | None
    """In UTC without a zone: from then on the newest time of some column is too old."""

    @property
    def holds(self) -> bool:
        return self.until is None or datetime.now(UTC).replace(tzinfo=None) <= self.until

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.source.parts


def source_of(made: Artifact) -> Source:
    """The rows that the stages before `tables` hand on."""
    assert isinstance(made, (Source, Deduplicated, Contracted))
    return made if isinstance(made, Source) else made.source


class StepRecord(Document):
    """A relational operation as it was compiled; see `treadle.engine.program.Step`."""

    index: int
    operation: TableOperation
    side: str | None = None
    side_kinds: dict[str, str]
    kinds: dict[str, str] = Field(default_factory=dict)
    multiplies: bool = False


class Prepared(Artifact):
    """The relational part, compiled: where rows come from, and what is still to be done with them."""

    source: Source
    start: int
    """Operations before this one are done already: their outcome is the source."""
    origin: dict[str, str]
    """The columns that raw rows have: those that operation `first` takes."""
    first: int
    """Operations from this one on are repeated on raw rows to predict; those before it made other rows of them."""
    steps: tuple[StepRecord, ...]
    """The operations from `first` on."""
    sides: tuple[Part, ...]
    """Group tables and joined tables."""
    kinds: dict[str, str]
    """The columns after the last operation."""
    table: tuple[Part, ...] | None = None
    """The rows after the last operation, when the job is for making them."""

    @property
    def parts(self) -> tuple[Part, ...]:
        return (*self.source.parts, *self.sides, *(self.table or ()))


class Folds(Artifact):
    """Which fold a training row is in."""

    kind: Literal["random", "stratified", "group", "time", "given"]
    seed: int
    column: str | None
    """Of groups, times, or folds that are given."""
    bounds: tuple[tuple[int, ...], ...] = ()
    """Thresholds of the rows' keys, one list, or one a class: fold i begins with the key bounds[i - 1].

    Of folds by time it begins with bounds[i]: what lies before is in none, and is only trained on.
    """
    values: tuple[str | int | float | bool, ...] = ()
    """Of folds that are given: those of the column, in order."""
    rows: tuple[int, ...]
    """Training rows in each."""

    @property
    def count(self) -> int:
        return len(self.rows)


class SplitRule(Artifact):
    """How a row is assigned to training or test, and what the target is."""

    kind: Literal["random", "stratified", "time", "group", "path", "folds", "none"]
    """`folds`: rows without a fold are for the test. `none`: all are for training, where there are only features."""
    seed: int
    column: str | None
    """The group or time column."""
    bounds: tuple[int, ...]
    """Thresholds: one, or one a class. A row whose key is below its threshold is a test row (time: above)."""
    task: Literal["binary", "multiclass", "regression"]
    classes: tuple[str | int | float | bool, ...]
    """In the order of their codes; the positive class of two is the last."""
    train_rows: int
    test_rows: int
    dropped_rows: int
    """Rows without a target."""
    has_target: bool = True
    """False in a job that makes features and does not look at a target: `task` and `classes` say nothing then."""
    folds: Folds | None = None
    fold: int = 0
    """With `folds`, the rule of one of them: its rows are the test rows, and the real test rows have no part."""

    @property
    def grouped_by(self) -> str | None:
        """The column whose equal values stay together."""
        if self.folds is not None and self.folds.kind == "group":
            return self.folds.column
        return self.column if self.kind == "group" else None

    def without(self, folds: Folds, fold: int) -> SplitRule:
        """The rule by which a fold is the test of what is trained on the others; of folds by time, on earlier rows."""
        before = folds.kind == "time"
        rows = self.train_rows - sum(folds.rows[fold:]) if before else self.train_rows - folds.rows[fold]
        return self.model_copy(
            update={"folds": folds, "fold": fold, "train_rows": rows, "test_rows": folds.rows[fold], "warnings": ()}
        )


class Features(Artifact):
    """The feature table and the fitted operations that make it."""

    table: tuple[Part, ...]
    names: tuple[str, ...]
    inputs: dict[str, Kind]
    """The columns that the operations start from."""
    operations: tuple[AnyFitted, ...]
    level_files: tuple[Part, ...] = ()
    """Where operations keep levels that are too many for a document."""

    @property
    def parts(self) -> tuple[Part, ...]:
        return (*self.table, *self.level_files)


class Trained(Artifact):
    """A trained model in its own safe format, or the reason why there is none."""

    name: str
    model: str
    """Catalogue name."""
    files: tuple[Part, ...]
    rows_used: int
    seconds: float
    members: tuple[Model, ...] = ()
    """The model as it was asked for, or those that an ensemble is made of."""
    peak_bytes: int | None = None
    error: str | None = None

    @property
    def folder(self) -> str:
        """Of the files, relative to the root."""
        return self.files[0].path.rsplit("/", 1)[0]

    @property
    def is_final(self) -> bool:
        return self.error is None

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.files


class Mixture(Document):
    """What an ensemble is made of."""

    kind: Literal["greedy", "blend", "stack"]
    members: tuple[str, ...]
    """Titles of models; of an average those with a weight, the largest first."""
    weights: tuple[float, ...] = ()
    """Of an average: one a member; they add up to 1."""
    steps: int | None = None
    """Of a greedy average: the steps of the selection after which it was kept."""
    coefficients: tuple[tuple[float, ...], ...] = ()
    """Of a stack, by output: the meta model's, of every member, and of every class where there are several."""
    intercept: tuple[float, ...] = ()
    means: tuple[float, ...] = ()
    """What the meta model was trained on, in the mean."""


class Comparison(Artifact):
    """Models by folds."""

    metric: str
    best: str
    rows: tuple[dict[str, Any], ...]
    """Of the leaderboard: one a model, best first."""
    folds: tuple[dict[str, Any], ...]
    """One a model and fold."""
    configs: tuple[Model, ...]
    """The models of the rows."""
    placement: str = ""
    """Where the trials ran, and why."""
    lasting: bool
    """Whether the same would come of another attempt: no model failed for reasons that may have passed."""
    ensemble: Mixture | None = None
    """Of the row of that name, where there is one."""
    files: tuple[Part, ...] = ()
    """What the ensemble made of the rows of each fold, as `treadle.engine.trials.outcome` writes it."""

    @property
    def is_final(self) -> bool:
        return self.lasting

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.files


class Raced(Artifact):
    """Heats on growing samples, and the models that they have left."""

    metric: str
    configs: tuple[Model, ...]
    """The best first."""
    heats: tuple[dict[str, Any], ...]
    """Of the table `race`: one a model and heat."""
    lasting: bool
    """As of a comparison."""

    @property
    def is_final(self) -> bool:
        return self.lasting


class Tuned(Comparison):
    """Models by folds, those that were tuned with the params of the spec and with those that were found."""

    trials: tuple[dict[str, Any], ...]
    """Of the table `trials`: what was tried, by model and number."""


COMPARISONS = ("compare", "tune", "ensemble")
"""Stages that make a comparison, in order; each has the models of those before it."""


def deciding(stages: Container[str]) -> str | None:
    """The stage whose comparison says which model is the best: the last of those that a job has, if any."""
    return next((name for name in reversed(COMPARISONS) if name in stages), None)


class Evaluation(Artifact):
    """The leaderboard and what else was measured on the test rows."""

    metric: str
    best: str
    rows: tuple[dict[str, Any], ...]
    """One a model, best first; see the table `leaderboard`."""
    calibration: dict[str, list[dict[str, float | None]]]
    groups: dict[str, dict[str, dict[str, float | None]]]
    """Protected column -> value -> rates of the best model among those rows."""
    held_out: dict[str, float] | None = None
    """Metrics of the best model on the test rows, where the leaderboard is of folds and there are any."""
    thresholds: dict[str, float] = Field(default_factory=dict)
    """Model -> the score above which it calls a row positive, for two classes."""


class Explanation(Artifact):
    """Contributions of every explained row, and their means over the rows."""

    table: tuple[Part, ...]
    method: str
    importance: dict[str, float]
    """Feature -> mean of the absolute contribution (margin units), largest first."""
    additivity_error: float
    """Largest over the rows, as `treadle.engine.scoring.additivity_error` has it."""

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.table


class Predictions(Artifact):
    """Scores of the best model."""

    table: tuple[Part, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.table


class TableRecord(Document):
    """A published version of a table."""

    name: str
    path: str
    """Relative to the root."""
    version: int
    rows: int
    bytes: int
    files: int


class Publication(Artifact):
    """What a run made visible."""

    tables: tuple[TableRecord, ...]
    model: str | None
    """`name:version` of the bundle."""
