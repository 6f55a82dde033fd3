"""What one job is asked to do: the sections of a spec that the engine reads.

Where it runs and where its artifacts go is added by `treadle.jobs.spec.JobSpec`. Every model
is frozen and refuses unknown keys; nothing here imports pandas, so a spec is checked quickly.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, JsonValue, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from treadle.engine.encoders import FeatureOperation
from treadle.engine.expectations import AnyExpectation
from treadle.engine.relational import Format, TableOperation
from treadle.engine.sections.about import About
from treadle.engine.sections.base import Section, Span
from treadle.engine.sections.decision import Decision
from treadle.engine.sections.ensemble import Ensemble, check_ensemble
from treadle.engine.sections.outputs import ROW_TABLES, TABLES, Output
from treadle.engine.sections.race import Race
from treadle.engine.sections.tune import Tune, check_titles
from treadle.errors import RequestError, did_you_mean, listed

Kind = Literal["int", "float", "bool", "text", "timestamp"]
MAX_FOLDS = 100
Preset = Literal["all", "fast"]
NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,79}$"
Name = Annotated[str, Field(pattern=NAME)]
IMPORT_PATH = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$"


class BadRows(Section):
    """What to do with rows of a text file that cannot be read."""

    limit: Annotated[int, Field(ge=0)] = 0
    """More rows than this set aside is an error."""


class Data(Section):
    """The input and the meaning of its columns."""

    path: str | tuple[str, ...]
    """File, folder, glob or fsspec URL, or a list of them; relative to the spec's file, then to the working folder."""
    format: Format | None = None
    """Guessed from the names when absent."""
    version: Annotated[int, Field(ge=0)] | None = None
    """Of a Delta table; the newest when absent."""
    target: str | None = None
    positive_class: str | int | float | bool | None = None
    """Of a two-class target; the last in sorted order when absent."""
    task: Literal["classification", "regression"] | None = None
    """When absent: classes for text, booleans and whole numbers of at most 20 values, else numbers."""
    weight: str | None = None
    """Column of what each training row counts, 0 or more; of metrics every row counts 1."""
    id: str | None = None
    """Column that names a row; when absent, the row's number in the input, which no partitioning changes."""
    protected: tuple[str, ...] = ()
    """Columns by whose values the results are also reported; they stay available after the features are made."""
    partitions: Annotated[int, Field(ge=1)] | None = None
    """Number of partitions; chosen from the size of the data when absent."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    quote: Annotated[str, Field(min_length=1, max_length=1)] = '"'
    encoding: str = "utf-8"
    decimal: Annotated[str, Field(min_length=1, max_length=1)] = "."
    thousands: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Mark between groups of three digits of numbers in CSV files."""
    null_tokens: tuple[str, ...] = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
    date_formats: tuple[str, ...] = ()
    """strptime formats of dates and times in text, tried in order and before ISO 8601."""
    header: bool = True
    names: tuple[str, ...] = ()
    """Column names of a CSV file without a header."""
    types: dict[str, Literal["int", "float", "bool", "timestamp", "date", "text"]] = Field(default_factory=dict)
    """Column types that are not to be inferred, or that a file's own are changed to."""
    digest: Literal["quick", "full"] = "quick"
    """How files are identified: large ones by their ends, size and stamp, or all by all of their content."""
    bad_rows: BadRows = BadRows()
    duplicates: Literal["keep", "count", "drop"] = "keep"
    """What to do with rows that equal an earlier one in every column."""

    @model_validator(mode="after")
    def _keys_agree(self) -> Data:
        if self.names and self.header:
            raise PydanticCustomError("names", "data.names is for files without a header: set header: false")
        if self.id is not None and self.id == self.target:
            said = "id and target are both '{name}'; the id names a row, leave it out if no column does"
            raise PydanticCustomError("id", said, {"name": self.id})
        if self.weight is not None and self.weight in (self.id, self.target):
            other = "id" if self.weight == self.id else "target"
            said = (
                "weight and {other} are both '{name}'; name the column of what rows count in training, or leave it out"
            )
            raise PydanticCustomError("weight", said, {"other": other, "name": self.weight})
        return self


class RandomSplit(Section):
    """Every row is drawn for the test set with probability `test_size`, by a hash of its id."""

    kind: Literal["random"]
    test_size: Annotated[float, Field(gt=0, lt=1)] = 0.25


class StratifiedSplit(Section):
    """As random, with the share `test_size` taken of each class."""

    kind: Literal["stratified"]
    test_size: Annotated[float, Field(gt=0, lt=1)] = 0.25


class TimeSplit(Section):
    """The latest `test_size` of the rows by `column` are the test set."""

    kind: Literal["time"]
    column: str
    test_size: Annotated[float, Field(gt=0, lt=1)] = 0.25


class GroupSplit(Section):
    """All rows that share a value of `column` go to the same side."""

    kind: Literal["group"]
    column: str
    test_size: Annotated[float, Field(gt=0, lt=1)] = 0.25


class PathSplit(Section):
    """The test set is another input with the same columns."""

    kind: Literal["path"]
    path: str | tuple[str, ...]


class FoldsSplit(Section):
    """The folds that `column` names; rows without one are the test set."""

    kind: Literal["folds"]
    column: str


Split = Annotated[
    RandomSplit | StratifiedSplit | TimeSplit | GroupSplit | PathSplit | FoldsSplit, Field(discriminator="kind")
]


class Compare(Section):
    """Folds of the training rows: every model is trained without each of them, and measured on it."""

    folds: Annotated[int, Field(ge=2, le=MAX_FOLDS)] = 10
    by: Literal["stratified", "random", "group", "time"] | None = None
    """As the split where that is by group or time, when absent; else stratified for classes, random for numbers.

    Rows that share a value of a `group` stay together. Folds by `time` follow each other: a model is trained on
    the rows before its fold only, so that there is one stretch of rows more than there are folds.
    """
    column: str | None = None
    """Of groups or times; the split's when absent."""
    time_limit: Span | None = None
    """The longest that training a model without a fold may take, e.g. 90s or 10min; without end when absent."""


PRESETS = get_args(Preset)
MODEL_NAMES = (
    "xgboost",
    "lightgbm",
    "catboost",
    "gradient_boosting",
    "ada_boost",
    "random_forest",
    "extra_trees",
    "decision_tree",
    "logistic_regression",
    "linear_svm",
    "ridge",
    "linear_regression",
    "lasso",
    "elastic_net",
    "huber",
    "k_neighbours",
    "lda",
    "qda",
    "naive_bayes",
    "mlp",
    "dummy",
)
ClassMetric = Literal[
    "accuracy", "auc", "average_precision", "recall", "precision", "f1", "kappa", "mcc", "log_loss", "brier"
]
NumberMetric = Literal["rmse", "mae", "r2"]
CLASSIFICATION_METRICS: tuple[str, ...] = get_args(ClassMetric)
REGRESSION_METRICS: tuple[str, ...] = get_args(NumberMetric)
MAX_CLASSES = 100
NUMBERS_ARE_CLASSES_UP_TO = 20
"""Distinct whole numbers of a target that count as classes when the spec does not say."""
THRESHOLD = 0.5
"""The score above which a row is of the positive class where nothing else was decided."""
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "rmse", "mae"})


class EarlyStopping(Section):
    """Boosting stops when the loss on rows that are held back has not become less for a number of rounds."""

    rounds: Annotated[int, Field(ge=1)] = 20
    share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Of the training rows, drawn by a hash of their ids: the model does not learn from them."""


class Model(Section):
    """One model to train, by its catalogue name, or an estimator of the user's own."""

    estimator: Annotated[str, Field(pattern=IMPORT_PATH)] | None = None
    """`package.module:Class` with scikit-learn's interface, whose module TREADLE_ALLOW_CODE allows."""
    name: str
    """Of the catalogue; with `estimator` any other."""
    label: Name | None = None
    """How the leaderboard calls it; its name when absent."""
    params: dict[str, JsonValue] = Field(default_factory=dict)
    early_stopping: EarlyStopping | None = None
    """Of xgboost: the model keeps the rounds with the least loss, and n_estimators is how many there are at most."""
    continue_from: str | None = None
    """Of xgboost: `name:version` of a published model, which training goes on from; n_estimators more rounds."""

    @field_validator("name")
    @classmethod
    def _is_in_catalogue(cls, value: str, info: ValidationInfo) -> str:
        """Or is not, when it is that of an estimator of the user's own."""
        if info.data.get("estimator") is not None:
            if value in MODEL_NAMES or not re.fullmatch(NAME, value):
                raise PydanticCustomError(
                    "model_name",
                    "'{value}' cannot be the name of an estimator of your own: give it one that the catalogue has not, "
                    "of letters, digits, _ and -",
                    {"value": value},
                )
        elif value not in MODEL_NAMES:
            raise PydanticCustomError(
                "model_name",
                "'{value}' is not in the catalogue of models. Allowed: [{allowed}].{hint}",
                {"value": value, "allowed": listed(MODEL_NAMES), "hint": did_you_mean(value, MODEL_NAMES)},
            )
        return value

    @field_validator("params", mode="before")
    @classmethod
    def _classes_are_named_by_texts(cls, value: Any) -> Any:
        """YAML takes the 0 of `class_weight: {0: 1, 1: 5}` for a number."""
        if isinstance(value, dict) and isinstance(weights := value.get("class_weight"), dict):
            texts = {str(key).lower() if isinstance(key, bool) else str(key): one for key, one in weights.items()}
            return {**value, "class_weight": texts}
        return value

    @field_validator("continue_from")
    @classmethod
    def _is_a_version(cls, value: str | None) -> str | None:
        name, _, version = (value or "").partition(":")
        # The name becomes a folder under the artifacts root, and is not to lead out of there.
        named = re.fullmatch(NAME, name) is not None
        if value is not None and not (named and version.isascii() and version.isdigit()):
            raise PydanticCustomError(
                "model_version",
                "'{value}' is no version of a model; it is name:version, as a run and `treadle runs` name it, "
                "e.g. {name}:1",
                {"value": value, "name": name if named else "fraud"},
            )
        return value

    @model_validator(mode="after")
    def _only_xgboost_is_boosted_here(self) -> Model:
        for key in ("early_stopping", "continue_from"):
            if getattr(self, key) is not None and self.name != "xgboost":
                said = "{key} is for xgboost only, and the model is {name}; leave it out"
                raise PydanticCustomError("model_key", said, {"key": key, "name": self.name})
        return self

    @property
    def title(self) -> str:
        return self.label or self.name


class Explain(Section):
    """Whose predictions are explained, feature by feature, how many features of a row are kept, and how exactly."""

    rows: Literal["none", "test", "all"] = "test"
    top_k: Annotated[int, Field(ge=1)] | None = None
    """All features when absent."""
    dtype: Literal["float32", "float64"] = "float32"
    """Type of the contributions in the table; they are computed and checked in float64."""


class Predict(Section):
    """Whose predictions are written."""

    rows: Literal["none", "test", "all"] = "test"


class Artifacts(Section):
    """What is kept of a run beside its outcome."""

    sample: Annotated[int, Field(ge=0, le=1000)] = 32
    """Raw rows that a model's bundle holds, for its replay to be checked by."""
    tables: dict[str, Output] = Field(default_factory=dict)
    """By name, tables that are partitioned or whose columns are not to change."""

    @field_validator("tables")
    @classmethod
    def _are_tables(cls, value: dict[str, Output]) -> dict[str, Output]:
        for name, output in value.items():
            known = ROW_TABLES if output.partition_by else TABLES
            if name not in known:
                raise PydanticCustomError(
                    "table",
                    "'{name}' is no table{kind}. Allowed: [{allowed}].{hint}",
                    {
                        "name": name,
                        "kind": " that can be partitioned" if output.partition_by else "",
                        "allowed": listed(known),
                        "hint": did_you_mean(name, known),
                    },
                )
        return value


class Job(Section):
    """What the engine does; see each section."""

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 7
    data: Data
    contract: tuple[AnyExpectation, ...] = ()
    """What is demanded of the input."""
    tables: tuple[TableOperation, ...] = ()
    features: tuple[FeatureOperation, ...] = ()
    split: Split | None = None
    """Stratified for classes and random for numbers when absent, a quarter of the rows for the test."""
    models: tuple[Model, ...] | Preset = ()
    """`all` of the catalogue that do the task and are installed, or those of them that are `fast`; or a list."""
    compare: Compare | None = None
    """Without it models are compared on the test rows, unless another key or a preset asks for folds."""
    race: Race | None = None
    """Leaves some models out before all folds, by heats on growing samples of the training rows."""
    tune: Tune | None = None
    """Looks for better parameters of some models, by the same folds."""
    ensemble: Ensemble | None = None
    """Makes one more model of those that were compared."""
    budget: Span | None = None
    """Wall clock for the search of a model from when the run begins: race, compare and tune end by it."""
    metric: ClassMetric | NumberMetric | None = None
    """Chooses the best model; AUC for two classes, log loss for several, RMSE for numbers when absent."""
    decision: Decision = Decision()
    explain: Explain = Explain()
    predict: Predict = Predict()
    artifacts: Artifacts = Artifacts()
    about: About | None = None
    """What the model's card says that no run can measure."""

    @field_validator("models", mode="before")
    @classmethod
    def _names_are_models(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in PRESETS:
            raise PydanticCustomError(
                "models",
                "'{value}' is neither a list of models nor one of [{allowed}].{hint}",
                {"value": value, "allowed": listed(PRESETS), "hint": did_you_mean(value, PRESETS)},
            )
        if isinstance(value, (list, tuple)):
            return [{"name": entry} if isinstance(entry, str) else entry for entry in value]
        return value

    @model_validator(mode="after")
    def _sections_agree(self) -> Job:
        titles = [model.title for model in self.listed_models]
        twice = {title for title in titles if titles.count(title) > 1}
        if twice:
            raise PydanticCustomError(
                "model_twice",
                "models: '{name}' is listed twice; tell the two apart with a label, "
                "e.g. {name: {name}, label: {name}-2}",
                {"name": min(twice)},
            )
        if self.models and self.data.target is None:
            raise PydanticCustomError("target", "data.target: missing; models need a column to predict")
        if self.features and self.data.target is None and self.split is not None and self.split.kind == "stratified":
            raise PydanticCustomError(
                "target", "data.target: missing; split: {kind: stratified} needs one, use random without it"
            )
        return self

    @model_validator(mode="after")
    def _folds_agree(self) -> Job:
        compare, split = self.compare, self.split
        if compare is None:
            return self
        if not self.models:
            raise PydanticCustomError("compare", "compare: there are no models to compare; name some in models")
        if split is not None and split.kind == "folds" and compare.model_fields_set & {"folds", "by", "column"}:
            raise PydanticCustomError(
                "compare", "compare: split: {kind: folds} has the folds already; leave folds, by and column out"
            )
        if compare.column is not None and compare.by not in ("group", "time"):
            raise PydanticCustomError("compare", "compare.column is for by: group or by: time; leave one of them out")
        if compare.by in ("group", "time") and compare.column is None and getattr(split, "kind", None) != compare.by:
            raise PydanticCustomError(
                "compare", "compare.column: missing; by: {by} needs the column that it goes by", {"by": compare.by}
            )
        return self

    @model_validator(mode="after")
    def _tuning_and_ensemble_agree(self) -> Job:
        names = {name: name for name in MODEL_NAMES} if self.models else {}
        titles = {model.title: model.name for model in self.listed_models} or names
        check_ensemble(self.ensemble, list(titles), preset=isinstance(self.models, str))
        if self.tune is not None:
            check_titles(self.tune, titles)
        for key in ("race", "budget"):
            if getattr(self, key) is not None and not self.models:
                raise PydanticCustomError(key, "{key}: there are no models; name some in models", {"key": key})
        return self

    @property
    def listed_models(self) -> tuple[Model, ...]:
        """Those that the spec lists; none where it names a preset."""
        return () if isinstance(self.models, str) else self.models

    @property
    def compared(self) -> Compare | None:
        """How models are compared by folds; None where they are by the test rows."""
        if self.compare is not None or not self.models:
            return self.compare
        given = self.split is not None and self.split.kind == "folds"
        asked = isinstance(self.models, str) or any((self.race, self.tune, self.ensemble, self.budget))
        return Compare() if given or asked else None

    @property
    def split_columns(self) -> tuple[str, ...]:
        """The columns that rows are split or folded by; they are no features unless an operation names them."""
        columns = (getattr(self.split, "column", None), self.compare.column if self.compare else None)
        return tuple(name for name in columns if name is not None)

    @property
    def sets_aside(self) -> bool:
        """Whether its contract may leave rows out."""
        return any(expectation.otherwise == "quarantine" for expectation in self.contract)

    @property
    def rows_from(self) -> str:
        """The stage whose rows `tables` begins with."""
        if self.sets_aside:
            return "contract"
        return "duplicates" if self.data.duplicates == "drop" else "read"

    @property
    def is_etl(self) -> bool:
        """Without models and features a job only makes the table `etl`."""
        return not self.models and not self.features

    @property
    def keeps_no_tables(self) -> bool:
        """Whether group tables and joined tables are for this run only: no model takes them along to predict."""
        return not self.models and (self.split is None or self.split.kind != "path")

    @property
    def looks_at_target(self) -> bool:
        """Whether anything depends on the target's values; features alone mostly do not."""
        if self.data.target is None:
            return False
        stratified = self.split is not None and self.split.kind == "stratified"
        return bool(self.models) or stratified or any(o.statistic() == "targets" for o in self.features)

    def metric_for(self, task: str) -> str:
        """The metric that chooses the best model of a task."""
        if self.metric is None:
            return {"binary": "auc", "multiclass": "log_loss", "regression": "rmse"}[task]
        if (self.metric in REGRESSION_METRICS) != (task == "regression"):
            fitting = REGRESSION_METRICS if task == "regression" else CLASSIFICATION_METRICS
            raise RequestError(
                f"metric: '{self.metric}' is not for {'regression' if task == 'regression' else 'classification'}, "
                f"which the target '{self.data.target}' asks for; "
                f"use one of [{listed(fitting)}]."
            )
        return self.metric
