"""The sections `tracking` and `promotion` of a spec. Nothing here imports MLflow, so that a spec is checked quickly."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from treadle.engine.job import ClassMetric, NumberMetric
from treadle.engine.sections.base import Section
from treadle.errors import did_you_mean, listed, shortened

SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")
ALIAS = r"[A-Za-z][A-Za-z0-9_-]{0,99}"
Alias = Annotated[str, Field(pattern=f"^{ALIAS}$")]
Above = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Size = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Tracking(Section):
    """Whether a run is recorded in MLflow when it ends, and where."""

    enabled: bool = True
    uri: str | None = None
    """Of MLflow's server or database; else MLFLOW_TRACKING_URI, else `mlflow.db` under the root, if that is local."""
    experiment: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The job's name when absent."""

    @field_validator("uri")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is None or value == "databricks":
            return value
        scheme = value.partition(":")[0].partition("+")[0]
        if "://" not in value or scheme not in SCHEMES:
            raise PydanticCustomError(
                "uri",
                "'{value}' is no address of MLflow, such as http://127.0.0.1:5000 or sqlite:////srv/mlflow.db. "
                "Schemes: [{schemes}].{hint}",
                {"value": shortened(value), "schemes": listed(SCHEMES), "hint": did_you_mean(scheme, SCHEMES)},
            )
        if scheme == "sqlite" and (not value.startswith("sqlite:////") or "?" in value):
            raise PydanticCustomError(
                "uri",
                "'{value}' is no file of SQLite; give an absolute path, sqlite:////srv/mlflow.db",
                {"value": value},
            )
        try:
            secret = urlsplit(value).password
        except ValueError:
            raise PydanticCustomError("uri", "'{value}' is no address", {"value": shortened(value)}) from None
        if secret is not None:
            raise PydanticCustomError(
                "uri",
                "the address has a password in it, which would be written to manifests; set MLFLOW_TRACKING_PASSWORD, "
                "or the whole address as MLFLOW_TRACKING_URI, in the environment",
            )
        return value


class Guard(Section):
    """What every gate has."""

    aliases: tuple[Alias, ...] | None = None
    """Those that it guards; all when absent."""


class NotWorse(Guard):
    """A metric is not worse than another version's, both measured on the same rows, which neither learned from."""

    gate: Literal["not_worse"]
    metric: ClassMetric | NumberMetric | None = None
    """The job's when absent."""
    than: Alias = "champion"
    """The alias of the other version; without such a version the gate is passed."""
    tolerance: Size = 0.0
    """By which it may be worse."""
    rows: Annotated[int, Field(ge=1)] = 100_000
    """At most so many of the test rows, the first by a hash of their ids."""


class Bound(Guard):
    """A metric of the run, as its leaderboard has it, or on the held-out rows where that is of folds, is in bounds."""

    gate: Literal["bound"]
    metric: ClassMetric | NumberMetric | None = None
    """The job's when absent."""
    min: Finite | None = None
    max: Finite | None = None

    @model_validator(mode="after")
    def _bounds_something(self) -> Bound:
        if self.min is None and self.max is None:
            raise PydanticCustomError("bound", "min or max is needed, e.g. min: 0.8")
        return self


class Fairness(Guard):
    """The largest difference of a rate between two groups of a protected column is at most so much."""

    gate: Literal["fairness"]
    column: str
    """Of data.protected."""
    rate: Literal["selection_rate", "tpr", "fpr"] = "selection_rate"
    """Share of rows predicted as positive; of positive rows; of negative rows."""
    max_difference: Annotated[float, Field(gt=0, le=1)]
    min_rows: Annotated[int, Field(ge=1)] = 30
    """Groups with fewer rows are left out: their rates say little."""


class Calibration(Guard):
    """The expected calibration error on the test rows is at most so much."""

    gate: Literal["calibration"]
    max_error: Annotated[float, Field(gt=0, le=1)]


class Latency(Guard):
    """What a prediction takes, on the machine that promotes: percentiles over calls, in milliseconds."""

    gate: Literal["latency"]
    p50_ms: Above | None = None
    p95_ms: Above | None = None
    batch: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Rows of a call."""
    calls: Annotated[int, Field(ge=10, le=10_000)] = 100

    @model_validator(mode="after")
    def _limits_something(self) -> Latency:
        if self.p50_ms is None and self.p95_ms is None:
            raise PydanticCustomError("latency", "p50_ms or p95_ms is needed, e.g. p95_ms: 20")
        return self


AnyGate = Annotated[NotWorse | Bound | Fairness | Calibration | Latency, Field(discriminator="gate")]


class Promotion(Section):
    """What a version must meet to get an alias."""

    gates: tuple[AnyGate, ...] = ()
