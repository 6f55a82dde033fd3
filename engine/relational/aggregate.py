"""The operation `aggregate`: what one partition contributes, how contributions merge, what comes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from treadle.engine.operation import ROW_ID, Operation
from treadle.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd

Function = Literal["sum", "mean", "std", "min", "max", "count", "nunique"]
NUMERIC_FUNCTIONS = frozenset({"sum", "mean", "std"})


class Aggregation(BaseModel):
    """One output column of an aggregate; nulls are left out, as in SQL."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    function: Function
    column: str | None = None
    """May be absent for count, which then counts rows."""

    @model_validator(mode="after")
    def _has_column(self) -> Aggregation:
        if self.column is None and self.function != "count":
            raise PydanticCustomError(
                "column",
                "column: missing; only count works without one, not {function}",
                {"function": self.function},
            )
        return self


class Aggregate(Operation):
    """Groups rows by keys (null is a key like any other): one row a group, or added to every row."""

    op: Literal["aggregate"]
    by: tuple[str, ...] = Field(min_length=1)
    aggregations: dict[str, Aggregation] = Field(min_length=1)
    broadcast: bool = False

    @model_validator(mode="after")
    def _names_differ(self) -> Aggregate:
        names = [*self.by, *self.aggregations]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise PydanticCustomError(
                "aggregate_twice",
                "by and aggregations: '{name}' is there twice; every key and outcome needs a name of its own",
                {"name": twice[0]},
            )
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        return self.by

    @property
    def gathers(self) -> tuple[str, ...]:
        """The columns that `partial` needs."""
        columns = [a.column for a in self.aggregations.values() if a.column is not None]
        return tuple(dict.fromkeys([*self.by, *columns]))

    def needs(self, wanted: frozenset[str], side_columns: Sequence[str] = ()) -> frozenset[str]:
        return (wanted - set(self.aggregations)) | set(self.by)

    def makes(self, side_columns: Sequence[str] = ()) -> frozenset[str]:
        return frozenset(self.aggregations)

    def apply(self, frame: pd.DataFrame, side: pd.DataFrame | None = None) -> pd.DataFrame:
        assert side is not None
        kept = frame[[c for c in frame.columns if c not in self.aggregations]]
        return kept.merge(side, on=list(self.by), how="left")

    def partial(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """What one partition contributes: `sums` by key, and `distinct:<column>` pairs."""
        by = list(self.by)
        self._check_types(frame)
        grouped = frame.groupby(by, dropna=False, sort=False)
        pieces: dict[str, pd.Series] = {}
        parts: dict[str, pd.DataFrame] = {}
        for name, aggregation in self.aggregations.items():
            column, function = aggregation.column, aggregation.function
            if function == "nunique":
                pairs = frame[list(dict.fromkeys([*by, column]))]
                parts[f"distinct:{column}"] = pairs.dropna(subset=[column]).drop_duplicates()
                continue
            if column is None:
                pieces[f"{name}:count"] = grouped.size()
                continue
            values = grouped[column]
            if function in ("count", "mean", "std"):
                pieces[f"{name}:count"] = values.count()
            if function == "sum":
                pieces[f"{name}:sum"] = values.sum(min_count=1)
            elif function in ("mean", "std"):
                pieces[f"{name}:mean"] = values.mean().astype("float64")
            if function == "std":
                pieces[f"{name}:m2"] = values.var(ddof=0).astype("float64") * pieces[f"{name}:count"].astype("float64")
            elif function in ("min", "max"):
                pieces[f"{name}:{function}"] = values.min() if function == "min" else values.max()
        keys = grouped.size().rename(f"{ROW_ID}:rows")
        sums = keys.to_frame().assign(**pieces)
        return {"sums": sums.reset_index(), **parts}

    def merge(self, partials: Sequence[dict[str, pd.DataFrame]]) -> dict[str, pd.DataFrame]:
        """Partials of several partitions as one; the grouping of the calls does not matter."""
        import pandas as pd

        merged = {
            part: pd.concat([p[part] for p in partials], ignore_index=True).drop_duplicates(ignore_index=True)
            for part in partials[0]
            if part != "sums"
        }
        rows = pd.concat([p["sums"] for p in partials], ignore_index=True)
        by = list(self.by)
        means = [name for name, a in self.aggregations.items() if a.function in ("mean", "std")]
        # Chan, Golub and LeVeque (1979): means weigh by their counts, and the spread between
        # the partial means is added to the spread inside each of them.
        for name in means:
            count, mean = rows[f"{name}:count"].astype("float64"), rows[f"{name}:mean"]
            rows[f"{name}:total"] = (mean * count).where(count > 0, 0.0)
            # The mean of both infinities: a sum would skip it as null.
            rows[f"{name}:undefined"] = mean.isna() & (count > 0)
        grouped = rows.groupby(by, dropna=False, sort=False)
        columns: dict[str, pd.Series] = {f"{ROW_ID}:rows": grouped[f"{ROW_ID}:rows"].sum()}
        for column in rows.columns:
            suffix = column.rsplit(":", 1)[-1]
            if column in by or suffix in ("total", "undefined", "mean", "m2", "rows"):
                continue
            values = grouped[column]
            columns[column] = {
                "count": values.sum,
                "sum": lambda v=values: v.sum(min_count=1),
                "min": values.min,
                "max": values.max,
            }[suffix]()
        for name in means:
            count = columns[f"{name}:count"].astype("float64")
            defined = (count > 0) & ~grouped[f"{name}:undefined"].max()
            columns[f"{name}:mean"] = grouped[f"{name}:total"].sum() / count.where(defined)
        sums = columns[f"{ROW_ID}:rows"].to_frame().assign(**columns)
        for name in means:
            if f"{name}:m2" in rows.columns:
                overall = rows[by].merge(sums[[f"{name}:mean"]].reset_index(), on=by, how="left")[f"{name}:mean"]
                count = rows[f"{name}:count"].astype("float64")
                spread = (rows[f"{name}:mean"] - overall) ** 2 * count
                rows[f"{name}:m2"] = (rows[f"{name}:m2"] + spread).where(count > 0, 0.0)
                sums[f"{name}:m2"] = rows.groupby(by, dropna=False, sort=False)[f"{name}:m2"].sum()
        return {"sums": sums.reset_index(), **merged}

    def finish(self, partial: dict[str, pd.DataFrame]) -> pd.DataFrame:
        """The group table, sorted by its keys: the keys, then one column an aggregation."""
        by = list(self.by)
        sums = partial["sums"].sort_values(by, ignore_index=True)
        table = sums[by]
        for name, aggregation in self.aggregations.items():
            function = aggregation.function
            if function == "nunique":
                pairs = partial[f"distinct:{aggregation.column}"]
                counts = pairs.groupby(by, dropna=False, sort=False).size().rename(name).reset_index()
                table = table.merge(counts, on=by, how="left")
                table[name] = table[name].fillna(0).astype("Int64")
            elif function == "std":
                count = sums[f"{name}:count"].astype("float64")
                finite = sums[f"{name}:mean"].abs() < float("inf")
                table = table.assign(**{name: (sums[f"{name}:m2"] / (count - 1).where((count > 1) & finite)) ** 0.5})
            else:
                values = sums[f"{name}:{function}"]
                table = table.assign(**{name: values.astype("Int64") if function == "count" else values})
        return table

    def _check_types(self, frame: pd.DataFrame) -> None:
        for name, aggregation in self.aggregations.items():
            column = aggregation.column
            if column is None or aggregation.function not in NUMERIC_FUNCTIONS:
                continue
            if frame[column].dtype.kind not in "biuf":
                raise RequestError(
                    f"aggregate '{name}': {aggregation.function} needs numbers, and column '{column}' "
                    f"is {frame[column].dtype}; cast it first or use count, nunique, min or max."
                )
