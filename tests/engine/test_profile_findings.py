"""What is odd in a table is found, and what is not odd is not; how text files are written is guessed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest

from tests.engine.test_profile import divided, profile_of
from treadle.engine.backend import DTYPES
from treadle.engine.operation import ROW_ID
from treadle.engine.profile.document import FindingKind, Profile
from treadle.engine.profile.sniff import sniff

ROWS = 400
RNG = np.random.default_rng(6)
PLAIN = RNG.normal(size=ROWS).round(2)


def profiled(columns: Mapping[str, tuple[str, Sequence[Any]]], target: str | None = None) -> Profile:
    """The profile of columns with their kinds, from three partitions."""
    frame = pd.DataFrame({name: pd.Series(list(v), dtype=object).astype(DTYPES[k]) for name, (k, v) in columns.items()})
    frame.insert(0, ROW_ID, np.arange(len(frame)))
    return profile_of(divided(frame, [150, 151]), {name: kind for name, (kind, _) in columns.items()}, target)


def with_some(values: Sequence[Any], places: slice, value: Any) -> list[Any]:
    changed = list(values)
    changed[places] = [value] * len(changed[places])
    return changed


LEVELS = ["red", "green", "blue", "grey"] * (ROWS // 4)
HALF = [i % 2 for i in range(ROWS)]
DAYS = [pd.Timestamp("2024-01-01") + pd.Timedelta(days=i + (40 if i > 200 else 0)) for i in range(ROWS)]
NOISE = RNG.permutation(PLAIN)
CASES: list[tuple[str, str, Sequence[Any], str]] = [
    ("null", "float", [math.nan] * ROWS, "'c' is null in all 400 rows"),
    ("null", "float", with_some(PLAIN, slice(0, 300), math.nan), "'c' is null in 75.0 % of the rows"),
    ("constant", "int", [7] * ROWS, "'c' is 7 in all rows"),
    ("one_value_or_null", "text", with_some(["x"] * ROWS, slice(0, 100), None), "'c' is 'x' or null (25.0 %)"),
    ("few_known", "float", with_some(PLAIN, slice(0, 390), math.nan), "'c' has 10 values only"),
    ("id", "text", [f"u{i}" for i in range(ROWS)], "'c' names every row: no value is null or occurs twice"),
    ("id", "int", list(range(ROWS))[::-1], "'c' names every row"),
    ("near_unique", "text", [f"u{max(i, 9)}" for i in range(ROWS)], "'c' has 391 distinct texts in 400 rows"),
    ("infinite", "float", with_some(PLAIN, slice(0, 3), -math.inf), "'c' is infinite in 3 rows"),
    ("sentinel", "int", with_some([i % 50 for i in range(ROWS)], slice(0, 9), -999), "'c' is -999 in 9 rows"),
    ("sentinel", "float", with_some(abs(PLAIN), slice(0, 9), 9999.0), "'c' is 9999 in 9 rows"),
    ("heavy_tail", "float", with_some(PLAIN, slice(0, 1), 5e6), "its largest value, 5e+06, is"),
    ("heavy_tail", "float", with_some(PLAIN, slice(0, 1), -5e6), "its smallest value, -5e+06, is"),
    ("time_gap", "timestamp", DAYS, "'c' has no row between 2024-07-19 and 2024-08-29"),
    ("empty_texts", "text", with_some(with_some(LEVELS, slice(0, 8), ""), slice(8, 20), " "), "in 20 rows (5.0 %)"),
    ("padded", "text", with_some(LEVELS, slice(0, 20), "mauve "), "'c' has spaces at an end in 20 rows"),
    ("null_words", "text", with_some(LEVELS, slice(0, 5), "N/A"), "'c' has 'N/A' (5 rows), which may stand for null"),
    ("case_levels", "text", with_some(LEVELS, slice(0, 5), "RED"), "in case or spaces only: 'RED' and 'red'"),
    ("leading_zeros", "text", [f"{i % 90:05d}" for i in range(ROWS)], "numbers with leading zeros in 400 rows"),
    ("numbers_as_text", "text", [str(i % 90) for i in range(ROWS)], "all its values are numbers (int)"),
    ("numbers_as_text", "text", [f"{x:.2f}" for x in PLAIN], "all its values are numbers (float)"),
    ("mixed_numbers", "text", with_some([str(i % 90) for i in range(ROWS)], slice(0, 4), "many"), "e.g. 'many'"),
    ("bools_as_text", "text", ["true", "False"] * (ROWS // 2), "all its values are true or false"),
    ("dates_as_text", "text", [f"{d:%Y-%m-%d}" for d in DAYS], "all its values are dates (ISO 8601)"),
    ("dates_as_text", "text", [f"{d:%d/%m/%Y}" for d in DAYS], "all its values are dates (%d/%m/%Y)"),
    ("ambiguous_dates", "text", ["05/06/2024", "07/08/2024"] * (ROWS // 2), "by %d/%m/%Y, %m/%d/%Y alike"),
    ("mixed_dates", "text", with_some([f"{d:%Y-%m-%d}" for d in DAYS], slice(0, 4), "soon"), "4 are not, e.g. 'soon'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "type_", "values", "words"), CASES, ids=[f"{c[0]}-{c[1]}-{i}" for i, c in enumerate(CASES)]
)
def test_what_is_odd_in_a_column_is_found(kind: str, type_: str, values: Sequence[Any], words: str) -> None:
    profile = profiled({"plain": ("float", NOISE), "c": (type_, values)})
    found = {finding.kind: finding.message for finding in profile.findings if "c" in finding.columns}
    assert words in found[kind]  # type: ignore[index]
    assert not [finding for finding in profile.findings if finding.columns == ("plain",)]


def test_columns_and_rows_that_repeat_others() -> None:
    columns: dict[str, tuple[str, Sequence[Any]]] = {
        "a": ("float", with_some(PLAIN, slice(3, 5), math.nan)),
        "same": ("float", with_some(PLAIN, slice(3, 5), math.nan)),
        "moved": ("float", with_some(PLAIN, slice(4, 6), math.nan)),
        "linear": ("float", 3 * PLAIN - 1 + 0.001 * NOISE),
    }
    found = [(f.kind, f.columns) for f in profiled(columns).findings]
    assert ("equal", ("same", "a")) in found
    assert ("equal", ("moved", "a")) not in found
    pairs = {frozenset(columns) for kind, columns in found if kind == "correlated"}
    assert pairs == {
        frozenset(p)
        for p in [("a", "moved"), ("a", "linear"), ("same", "moved"), ("same", "linear"), ("moved", "linear")]
    }
    repeated = {name: (kind, [*values, *list(values)[:7]]) for name, (kind, values) in columns.items()}
    (rows,) = [f.message for f in profiled(repeated).findings if f.kind == "duplicate_rows"]
    assert rows == "7 rows (1.7 %) equal an earlier row altogether"


def test_columns_that_tell_the_target() -> None:
    target = ["yes" if half else "no" for half in HALF]
    columns: dict[str, tuple[str, Sequence[Any]]] = {
        "y": ("text", target),
        "score": ("float", [half + 0.001 * noise for half, noise in zip(HALF, NOISE, strict=True)]),
        "word": ("text", [f"{label}-{i % 3}" for i, label in enumerate(target)]),
        "after": ("timestamp", [day if half else None for half, day in zip(HALF, DAYS, strict=True)]),
        "fair": ("text", RNG.choice(LEVELS, ROWS).tolist()),
        "noise": ("float", NOISE),
        "key": ("text", [f"k{i}" for i in range(ROWS)]),
    }
    profile = profiled(columns, "y")
    leaks = {f.columns[0]: f.message for f in profile.findings if f.kind == "leakage"}
    assert set(leaks) == {"score", "word", "after"}
    assert "correlation ratio 1.0000" in leaks["score"]
    assert leaks["after"] == "whether 'after' is null tells the target 'y'; is it filled in afterwards?"
    assert profile.target is not None
    assert profile.target.task == "classification"
    strengths = {a.column: a.strength for a in profile.target.associations}
    assert strengths["key"] is None, "a column that does not repeat tells nothing"
    assert (strengths["noise"] or 0.0) < 0.2

    numeric: dict[str, tuple[str, Sequence[Any]]] = {
        "y": ("float", np.exp(PLAIN)),
        "twice": ("float", 2 * np.exp(PLAIN)),
        "band": ("text", [f"{round(x)}" for x in PLAIN]),
        "noise": ("float", NOISE),
    }
    profile = profiled(numeric, "y")
    found = {f.kind: f for f in profile.findings}
    assert found["leakage"].columns == ("twice",)
    assert "the target 'y' is skewed" in found["skewed_target"].message
    assert profile.target is not None
    assert profile.target.task == "regression"
    (band,) = [a for a in profile.target.associations if a.column == "band"]
    assert band.measure == "correlation_ratio"
    assert band.strength is not None
    frame = pd.DataFrame({"band": numeric["band"][1], "y": numeric["y"][1]})
    within = frame["y"] - frame.groupby("band")["y"].transform("mean")
    adjusted = 1 - (within**2).sum() / (ROWS - frame["band"].nunique()) / frame["y"].var()
    assert band.strength == pytest.approx(math.sqrt(adjusted))


def test_rare_classes_and_targets_that_cannot_be_predicted() -> None:
    rare = with_some(["no"] * ROWS, slice(0, 3), "yes")
    found = {f.kind: f.message for f in profiled({"y": ("text", rare), "x": ("float", NOISE)}, "y").findings}
    assert found["imbalanced_target"] == "the target 'y' is rarely 'yes': in 3 rows (0.8 %)"
    for kind, values in (("timestamp", DAYS), ("text", ["a"] * ROWS), ("text", [f"{i}!" for i in range(ROWS)])):
        target = profiled({"y": (kind, values), "x": ("float", NOISE)}, "y").target
        assert target is not None
        assert (target.task, target.associations) == (None, ())


def test_every_kind_of_finding_is_tested() -> None:
    elsewhere = {
        "equal",
        "correlated",
        "duplicate_rows",
        "leakage",
        "skewed_target",
        "imbalanced_target",
        "quarantined",
    }
    assert {case[0] for case in CASES} | elsewhere == set(get_args(FindingKind))


FILES: list[tuple[bytes, dict[str, Any]]] = [
    (b"a,b\n1,x\n2,y\n", {}),
    (b"a;b;c\n1,5;x;1\n2,25;y;2\n", {"delimiter": ";", "decimal": ","}),
    (b"a;b;c\n1.5;x, y;1\n2.25;y;2\n", {"delimiter": ";"}),
    (b"a\tb\n1\tx, y, z\n2\ty\n", {"delimiter": "\t"}),
    (b"a|b\n1|x\n2|y\n", {"delimiter": "|"}),
    (b'a,b\n"1;2;3",x\n"2;3;4",y\n', {}),
    (b"1,x\n2,y\n3,x\n", {"header": False}),
    (b"1,2\n3,4\n", {"header": False}),
    (b"x,y\nz,w\n", {}),
    (b"year,2019,2020\nn,1,2\nm,3,4\n", {}),
    ("name,city\nzoë,Köln\n".encode(), {}),
    ("name,city\nzoë,Köln\n".encode("cp1252"), {"encoding": "cp1252"}),
    (b"name,city\nzo\x81,x\n", {"encoding": "latin-1"}),
    ("a,b\n1,é\n".encode("utf-16"), {"encoding": "utf-16"}),
    (b"only\none\n", {}),
    (b"", {}),
]


@pytest.mark.parametrize(("content", "found"), FILES, ids=[str(i) for i in range(len(FILES))])
def test_how_text_files_are_written_is_guessed(content: bytes, found: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(content)
    assert sniff(str(path)) == found


def test_what_is_given_is_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes("a;b\n1,5;é\n2,5;é\n".encode("cp1252"))
    assert sniff(str(path)) == {"encoding": "cp1252", "delimiter": ";", "decimal": ","}
    assert sniff(str(path), {"delimiter": ","}) == {"encoding": "cp1252"}
    assert sniff(str(path), {"delimiter": ";", "encoding": "latin-1"}) == {"decimal": ","}
    assert sniff(str(path), {"header": True, "decimal": "."}) == {"encoding": "cp1252", "delimiter": ";"}


def test_real_text_files(shared_data: Path) -> None:
    assert sniff(str(shared_data / "messy" / "bikes.csv")) == {"encoding": "cp1252", "delimiter": ";"}
    assert sniff(str(shared_data / "adult" / "adult-train.csv")) == {"header": False}
    assert sniff(str(shared_data / "compas" / "compas-scores-two-years.csv")) == {}
