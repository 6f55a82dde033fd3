"""Two tables compared by key, held against obvious loops and pandas."""

from __future__ import annotations

import datetime as dt
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.delta_tables import FS, fingerprint, write
from treadle.engine import delta
from treadle.engine.commits import commit_table
from treadle.engine.delta_files import DataFile
from treadle.engine.table_diff import TableDiff, compare, natural_key
from treadle.errors import RequestError, StorageError

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = pa.schema(
    [
        ("k", pa.int64()), ("t", pa.string()), ("f", pa.float64()), ("s", pa.float32()), ("n", pa.int64()),
        ("b", pa.bool_()), ("x", pa.string()), ("w", pa.timestamp("us")), ("d", pa.date32()),
    ]
)  # fmt: skip
NAN = float("nan")
FLOATS = st.sampled_from([None, NAN, 0.0, -0.0, 1.5, 1.25, -3.0, math.inf, -math.inf, 1e300])
VALUES = {
    "k": st.sampled_from([None, 0, 1, 2, 3, -(2**63), 2**63 - 1]),
    "t": st.sampled_from([None, "", "a", "ä", "a b"]),
    "f": FLOATS,
    "s": st.sampled_from([None, NAN, 0.0, 0.5, 8.0]),
    "n": st.sampled_from([None, -(2**63), 2**63 - 1, 0, 1]),
    "b": st.sampled_from([None, True, False]),
    "x": st.sampled_from([None, "", "one", "two"]),
    "w": st.sampled_from([None, dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 1, 0, 0, 0, 1)]),
    "d": st.sampled_from([None, dt.date(2024, 1, 1), dt.date(1969, 12, 31)]),
}
ROWS = st.lists(st.fixed_dictionaries(VALUES), max_size=12)


def table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), SCHEMA)


def plain(value: Any) -> Any:
    """A value that is equal to itself, and to no other."""
    if isinstance(value, float):
        return ("nan",) if math.isnan(value) else value + 0.0
    return (value,) if isinstance(value, bool) else value


def ordered(row: dict[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(
        (row[name] is None, row[name] != row[name], 0 if row[name] is None or row[name] != row[name] else row[name])
        for name in names
    )


def by_loops(left: list[dict[str, Any]], right: list[dict[str, Any]], key: Sequence[str]) -> dict[str, Any]:
    """Counts, by the definition."""
    names = [*key, *(name for name in SCHEMA.names if name not in key)]
    only = [0, 0]
    changed: Counter[str] = Counter()
    pairs = 0
    for one in {tuple(plain(row[name]) for name in key) for row in left + right}:
        sides = [[row for row in rows if tuple(plain(row[name]) for name in key) == one] for rows in (left, right)]
        whole = [Counter(tuple(plain(row[name]) for name in names) for row in rows) for rows in sides]
        rest = []
        for rows, other in zip(sides, (whole[1], whole[0]), strict=True):
            other, kept = other.copy(), []
            for row in rows:
                content = tuple(plain(row[name]) for name in names)
                if other[content]:
                    other[content] -= 1
                else:
                    kept.append(row)
            rest.append(sorted(kept, key=lambda row: ordered(row, names)))
        for a, b in zip(*rest, strict=False):
            unlike = [name for name in names if plain(a[name]) != plain(b[name])]
            changed.update(unlike)
            pairs += bool(unlike)
        for side in (0, 1):
            only[side] += max(len(rest[side]) - len(rest[1 - side]), 0)
    return {"only": only, "changed": pairs, "columns": dict(changed)}


def counts(found: TableDiff) -> dict[str, Any]:
    columns = {column.name: column.changed for column in found.columns}
    return {"only": [found.only_left, found.only_right], "changed": found.changed, "columns": columns}


@settings(max_examples=40)
@given(ROWS, ROWS, st.sampled_from([("k",), ("t", "k"), ("f",), ("b", "d"), ("w",)]), st.sampled_from([1, 1 << 28]))
def test_counts_are_those_of_obvious_loops(
    left: list[dict[str, Any]], right: list[dict[str, Any]], key: tuple[str, ...], memory: int
) -> None:
    found = compare(table(left), table(right), key, memory=memory)
    assert counts(found) == by_loops(left, right, key)
    assert (found.left_rows, found.right_rows) == (len(left), len(right))
    assert found.same == (counts(found) == {"only": [0, 0], "changed": 0, "columns": {}})


@settings(max_examples=20)
@given(ROWS, ROWS, st.sampled_from([1, 1 << 28]))
def test_without_a_key_whole_rows_are_looked_for(
    left: list[dict[str, Any]], right: list[dict[str, Any]], memory: int
) -> None:
    found = compare(table(left), table(right), memory=memory)
    both = [Counter(tuple(plain(value) for value in row.values()) for row in rows) for rows in (left, right)]
    assert [found.only_left, found.only_right] == [(both[0] - both[1]).total(), (both[1] - both[0]).total()]
    assert (found.changed, found.key) == (0, ())


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 400), st.integers(0, 400))
def test_counts_and_differences_are_those_of_a_merge_in_pandas(seed: int, one: int, other: int) -> None:
    rng = np.random.default_rng(seed)

    def frame(rows: int) -> pd.DataFrame:
        ids = rng.permutation(600)[:rows]
        return pd.DataFrame({"id": ids, "v": rng.integers(0, 3, rows) / 4, "c": rng.choice(["x", "y"], rows)})

    left, right = frame(one), frame(other)
    merged = left.merge(right, on="id", how="outer", indicator=True)
    both = merged[merged["_merge"] == "both"]
    found = compare(pa.Table.from_pandas(left), pa.Table.from_pandas(right), ["id"], memory=2000, examples=3)
    assert found.only_left == (merged["_merge"] == "left_only").sum()
    assert found.only_right == (merged["_merge"] == "right_only").sum()
    apart = (both["v_x"] - both["v_y"]).abs()
    assert found.changed == ((apart > 0) | (both["c_x"] != both["c_y"])).sum()
    columns = {column.name: column for column in found.columns}
    if (apart > 0).any():
        assert columns["v"].largest == apart.max()
        worst = both.assign(apart=apart).sort_values(["apart", "id"], ascending=[False, True]).head(3)
        worst = worst[worst["apart"] > 0]
        shown = [(example.key["id"], example.left, example.right) for example in columns["v"].examples]
        assert shown == list(worst[["id", "v_x", "v_y"]].itertuples(index=False, name=None))
    lone = sorted(set(left["id"]) - set(right["id"]))[:3]
    assert [key["id"] for key in found.only_left_examples] == lone


@settings(max_examples=15)
@given(
    ROWS.filter(bool), st.randoms(use_true_random=False), st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.sampled_from([("k",), None, ("x", "f")]),
)  # fmt: skip
def test_a_shuffled_copy_in_other_files_is_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    random: Any,
    sizes: list[int],
    key: tuple[str, ...] | None,
) -> None:
    folder = tmp_path_factory.mktemp("refiled")

    def committed(name: str, rows: list[dict[str, Any]], sizes: list[int]) -> Any:
        files: list[DataFile] = []
        start = 0
        while start < len(rows):
            size = sizes[len(files) % len(sizes)]
            files.append(write(folder / f"{name}-{len(files)}.parquet", table(rows[start : start + size])))
            start += size
        commit_table(FS, str(folder / name), files, SCHEMA, fingerprint=fingerprint(name), metadata={})
        return delta.open_table(FS, str(folder / name))

    shuffled = list(rows)
    random.shuffle(shuffled)
    one, other = committed("one", rows, [100]), committed("other", shuffled, sizes)
    assert compare(one, other, key).same
    assert compare(one, other, key, memory=1).same
    different = compare(one, table(shuffled[1:]), key)
    assert (different.same, different.left_rows - different.right_rows) == (False, 1)
    assert different.only_left == 1


def test_columns_that_came_went_and_became_another_type() -> None:
    left = pa.table({"id": [1, 2], "a": [1, 2], "gone": ["x", "y"], "t": ["1", "2"], "d": pa.array(["p", "q"])})
    right = pa.table({
        "id": pa.array([2, 1], pa.int32()), "a": [2.0, 1.5], "new": [True, False], "t": [2, 1],
        "d": pa.array(["q", "p"]).dictionary_encode(),
    })  # fmt: skip
    found = compare(left, right, ["id"])
    assert found.schema.added == {"new": "bool"}
    assert found.schema.removed == {"gone": "string"}
    assert found.schema.retyped == {"id": ("int64", "int32"), "a": ("int64", "double"), "t": ("string", "int64")}
    assert found.schema.words == "added, removed, retyped"
    assert (found.only_left, found.only_right, found.changed) == (0, 0, 1)
    (changed,) = found.columns
    assert (changed.name, changed.changed, changed.largest) == ("a", 1, 0.5)
    assert (changed.examples[0].key, changed.examples[0].left, changed.examples[0].right) == ({"id": 1}, 1.0, 1.5)
    assert found.not_compared == ("t",)
    assert not found.same


def test_arrow_tables_of_types_that_published_ones_do_not_have() -> None:
    left = pa.table({"id": [1, 2], "l": [[1], [2]], "n": [None, None], "m": [None, None], "y": [b"a", b"b"]})
    right = pa.table({"id": [2, 1], "l": [[3], [4]], "n": [None, None], "m": ["x", None], "y": [b"b", b"c"]})
    found = compare(left, right, ["id"])
    assert counts(found) == {"only": [0, 0], "changed": 1, "columns": {"m": 1}}
    assert found.not_compared == ("l", "y")
    whole = compare(left, right)
    assert (whole.only_left, whole.only_right, whole.not_compared) == (1, 1, ("l", "y"))
    assert compare(left.select(["id", "n"]), right.select(["id", "n"])).same


def test_keys_of_types_that_have_nothing_in_common_pair_no_rows() -> None:
    found = compare(pa.table({"id": [1], "a": [1]}), pa.table({"id": ["1"], "a": [1]}), ["id"])
    assert (found.only_left, found.changed, found.same) == (None, None, False)
    assert found.said == "'id' is int64 in the one and string in the other"
    assert (
        compare(pa.table({"a": [1]}), pa.table({"b": [1]})).said
        == "the tables have no column in common that could be compared"
    )


@pytest.mark.parametrize(
    ("left", "right", "tolerance", "changed"),
    [
        ([1.0, 1000.0, 0.0], [1.0 + 1e-7, 1000.0 + 1e-4, 1e-7], 1e-6, 0),
        ([1.0, 1000.0, 0.0], [1.0 + 1e-5, 1000.0 + 1e-2, 1e-5], 1e-6, 3),
        ([math.inf, NAN, None], [math.inf, NAN, None], 1e-6, 0),
        ([math.inf, NAN, None, 1.0, math.inf], [-math.inf, None, NAN, math.inf, 1e308], 1.0, 5),
        ([2**53, 2**53], [2**53 + 1, 2**53 + 2**40], 1e-6, 1),
        ([2**62], [2**62 + 1], 0.0, 1),
    ],
)
def test_tolerance(left: list[Any], right: list[Any], tolerance: float, changed: int) -> None:
    ids = list(range(len(left)))
    found = compare(pa.table({"i": ids, "v": left}), pa.table({"i": ids, "v": right}), ["i"], tolerance=tolerance)
    assert found.changed == changed


def test_differences_of_whole_numbers_are_exact_to_the_ends_of_their_range() -> None:
    left, right = pa.table({"i": [0, 1], "v": [-(2**63), 5]}), pa.table({"i": [0, 1], "v": [2**63 - 1, 6]})
    (column,) = compare(left, right, ["i"]).columns
    assert column.largest == float(2**64 - 1)
    assert [(example.left, example.right) for example in column.examples] == [(-(2**63), 2**63 - 1), (5, 6)]


def test_what_was_asked_not_to_be_compared() -> None:
    left, right = pa.table({"id": [1], "seconds": [1.0]}), pa.table({"id": [1], "seconds": [2.0]})
    assert not compare(left, right, ["id"]).same
    found = compare(left, right, ["id"], ignore=["seconds"])
    assert (found.same, found.not_compared) == (True, ("seconds",))


def test_a_key_that_is_no_column_is_refused_with_the_nearest() -> None:
    with pytest.raises(RequestError, match="Column 'idd' was not found in the right table.*Did you mean 'id'"):
        compare(pa.table({"idd": [1]}), pa.table({"id": [1]}), ["idd"])


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{number}.parquet", table([])) for number in range(2)]
    commit_table(FS, str(tmp_path / "t"), files, SCHEMA, fingerprint=fingerprint("a"), metadata={})
    opened = delta.open_table(FS, str(tmp_path / "t"))
    next(iter((tmp_path / "t").glob("part-00001*"))).unlink()
    with pytest.raises(StorageError, match="A file of version 0 of table .*/t is gone"):
        compare(opened, opened, ["k"])


@pytest.mark.parametrize(
    ("name", "columns", "key"),
    [
        ("predictions", {"id": "int", "score": "float"}, ("id",)),
        ("leaderboard", {"model": "text", "auc": "float"}, ("model",)),
        ("folds", {"model": "text", "fold": "int"}, ("model", "fold")),
        ("explanations", {"id": "int", "class": "text", "a": "float"}, ("id", "class")),
        ("explanations", {"id": "int", "class": "float"}, ("id",)),
        ("quarantine", {"file": "text", "line": "int"}, ("file", "line")),
        ("features", {"id": "float", "a": "float"}, ("id",)),
        ("etl", {"a": "float"}, None),
    ],
)
def test_natural_keys(name: str, columns: dict[str, str], key: tuple[str, ...] | None) -> None:
    types = {"int": pa.int64(), "float": pa.float32(), "text": pa.string()}
    empty = pa.schema([(column, types[kind]) for column, kind in columns.items()]).empty_table()
    assert natural_key(name, empty, empty) == key


ROWS_OF_LARGE = 3_000_000
MEASURED = """
import resource, sys
from pathlib import Path
from treadle.engine import delta
from treadle.engine.table_diff import compare
from tests.engine.delta_tables import FS

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

small, one, other = (delta.open_table(FS, f"{sys.argv[1]}/{name}") for name in ("small", "one", "other"))
compare(small, small, ["id"], memory=1)  # what is imported, and compiled
before = peak()
found = compare(one, other, ["id"], memory=32 * 2**20)
print(found.left_rows, found.only_left, found.changed, peak() - before)
"""


@pytest.mark.slow
def test_tables_need_not_fit_the_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    columns = {f"c{i}": rng.random(ROWS_OF_LARGE) for i in range(10)}
    size = 0
    ids = np.arange(ROWS_OF_LARGE)
    for name, rows in (("one", ids), ("other", rng.permutation(ROWS_OF_LARGE)), ("small", ids[:100])):
        whole = pa.table({"id": rows, **{column: values[rows] for column, values in columns.items()}})
        if name == "other":
            whole = whole.set_column(1, "c0", pa.array(np.where(rows < 7, -1.0, columns["c0"][rows])))
        files = [
            write(tmp_path / f"{name}-{start}.parquet", whole.slice(start, 500_000), rows_per_group=100_000)
            for start in range(0, len(rows), 500_000)
        ]
        commit_table(FS, str(tmp_path / name), files, whole.schema, fingerprint=fingerprint(name), metadata={})
        size = max(size, whole.nbytes)
        del whole
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    rows_found, only, changed, grown = map(int, done.stdout.split())
    assert (rows_found, only, changed) == (ROWS_OF_LARGE, 0, 7)
    assert grown < size  # and both tables are twice that
    assert grown < 250 * 2**20
