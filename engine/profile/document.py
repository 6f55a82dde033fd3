"""The profile of a table as a frozen document: what is printed, written as JSON, and proposed from.

Nothing in it is NaN or infinite, so that its JSON is strict; what is not known is null.
"""

from __future__ import annotations

from typing import Literal

from treadle.engine.document import Document

type Value = str | int | float | bool
"""Times are texts in ISO 8601."""
FindingKind = Literal[
    "ambiguous_dates", "case_levels", "constant", "correlated", "dates_as_text", "duplicate_rows", "empty_texts",
    "equal", "few_known", "heavy_tail", "id", "imbalanced_target", "infinite", "leading_zeros", "leakage",
    "mixed_dates", "mixed_numbers", "near_unique", "null", "null_words", "numbers_as_text", "one_value_or_null",
    "padded", "quarantined", "sentinel", "skewed_target", "time_gap", "bools_as_text",
]  # fmt: skip


class Finding(Document):
    """Something that a data engineer wants to know before a job is built on the data."""

    kind: FindingKind
    columns: tuple[str, ...]
    message: str
    """A sentence with the numbers."""


class Top(Document):
    """A frequent value. `count` is too low by at most the column's `top_error`."""

    value: Value
    count: int


class Histogram(Document):
    """Rows between consecutive edges, the last bin with its upper edge; `below` and `above` are the rows beyond."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    below: int = 0
    above: int = 0


class NumberProfile(Document):
    """Of an int or float column; all but `quantiles` are of its finite values."""

    minimum: float | int | None
    maximum: float | int | None
    mean: float | None
    std: float | None
    """Of a sample (n - 1)."""
    skewness: float | None
    """The third standardised moment (of the population)."""
    kurtosis: float | None
    """The fourth, less 3."""
    zeros: int
    negatives: int
    infinities: int
    quantiles: dict[str, float | None]
    """By share, with linear interpolation; null where one is infinite."""
    quantile_error: float
    """0 when they are exact; else a bound of the error: relative for float, absolute for int columns."""
    histogram: Histogram | None


class TextProfile(Document):
    """Of a text column: lengths in characters, and rows by what a cast would take."""

    shortest: int | None
    mean_length: float | None
    median_length: float | None
    longest: int | None
    empty: int
    blank: int
    """Spaces only."""
    padded: int
    """Spaces before or after other characters."""
    leading_zeros: int
    """Whole numbers that a cast would take zeros from."""
    forms: dict[str, int]
    """int, float, bool, timestamp (ISO 8601), and strptime formats."""


class Periods(Document):
    """Rows by period; `starts` are ISO dates or hours, also of periods without rows between the first and the last."""

    unit: Literal["hour", "day", "week", "month", "quarter", "year", "decade"]
    starts: tuple[str, ...]
    counts: tuple[int, ...]


class Gap(Document):
    """The longest time between two rows that follow each other in time."""

    after: str
    before: str
    seconds: float


class TimeProfile(Document):
    """Of a timestamp column; times are ISO texts in UTC."""

    first: str | None
    last: str | None
    quantiles: dict[str, str | None]
    quantile_error_seconds: float
    midnights: int
    days: int
    """Days that have rows."""
    longest_gap: Gap | None
    periods: Periods | None


class ColumnProfile(Document):
    """What is known of a column."""

    name: str
    kind: Literal["int", "float", "bool", "text", "timestamp"]
    rows: int
    nulls: int
    distinct: int
    """Values that are not null."""
    distinct_error: float
    """0 when exact; else the relative standard error of the estimate."""
    unique: Literal["yes", "no", "likely"]
    """Whether no value occurs twice; `likely`: none of a sample does, and the estimate agrees."""
    top: tuple[Top, ...]
    top_error: int
    number: NumberProfile | None = None
    text: TextProfile | None = None
    time: TimeProfile | None = None

    @property
    def known(self) -> int:
        return self.rows - self.nulls

    @property
    def null_fraction(self) -> float:
        return self.nulls / self.rows if self.rows else 0.0

    @property
    def exact(self) -> bool:
        """Whether the distinct values are counted exactly."""
        return self.distinct_error == 0


class Correlations(Document):
    """Pearson's, of pairs of int, float and bool columns over the rows in which both are known; null if undefined."""

    columns: tuple[str, ...]
    matrix: tuple[tuple[float | None, ...], ...]
    left_out: tuple[str, ...] = ()
    """Numeric columns past the number that is correlated."""


class Association(Document):
    """How far a column tells the target: 0 not at all, 1 altogether."""

    column: str
    measure: Literal["pearson", "correlation_ratio", "cramers_v"]
    strength: float | None
    null_strength: float | None
    """The same of whether the column is null."""


class Target(Document):
    """The column to predict, and what tells it; the strongest first."""

    column: str
    task: Literal["classification", "regression"] | None
    """None when nothing can be predicted: too many classes, one class, times."""
    associations: tuple[Association, ...]


class Profile(Document):
    """What one pass over a table found."""

    profile: Literal[1] = 1
    path: str | tuple[str, ...]
    format: str
    files: int
    bytes: int
    rows: int
    quarantined: int
    """Broken rows of text files, which are not among `rows`."""
    duplicate_rows: int
    """Rows that equal an earlier one, altogether."""
    duplicate_rows_error: float
    """0 when exact; else the standard error of their number."""
    columns: tuple[ColumnProfile, ...]
    correlations: Correlations
    target: Target | None
    findings: tuple[Finding, ...] = ()

    def column(self, name: str) -> ColumnProfile:
        return next(column for column in self.columns if column.name == name)

    def found(self, *kinds: FindingKind) -> dict[str, Finding]:
        """The findings of some kinds by their first column."""
        return {finding.columns[0]: finding for finding in self.findings if finding.kind in kinds and finding.columns}
