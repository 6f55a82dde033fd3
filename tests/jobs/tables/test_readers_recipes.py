"""The recipes of docs/artifacts.md for readers of tables, run as they stand there.

Spark is looked for in the interpreter that TREADLE_SPARK_PYTHON names, which must have deltalake, too.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from tests.engine.delta_tables import fingerprint, write
from tests.test_docs import blocks
from treadle.engine.commits import commit_table

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "artifacts.md").read_text(encoding="utf-8")


def recipe(name: str) -> str:
    (found,) = [block.text for block in blocks(PAGE) if block.text.startswith(f"# recipe: {name}\n")]
    return found


@pytest.fixture(scope="module")
def old() -> pa.Table:
    """The first version of the predictions."""
    return pa.table({"id": pa.array(range(10), pa.int64()), "score": [i / 10 for i in range(10)], "class": ["no"] * 10})


@pytest.fixture(scope="module")
def new(old: pa.Table) -> pa.Table:
    """The second version, in three files."""
    score = pa.array([1 - i / 25 for i in range(25)])
    label = pc.if_else(pc.greater(score, 0.5), "yes", "no")
    return pa.table({"id": pa.array(range(24, -1, -1), pa.int64()), "score": score, "class": label})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, old: pa.Table, new: pa.Table) -> Path:
    """A working folder with the tables that the recipes read."""
    folder = tmp_path_factory.mktemp("reading")
    features = pa.table({"id": range(30), "age": pa.array([i / 2 for i in range(30)], pa.float32())})
    published = [("predictions", old, 10), ("predictions", new, 9), ("features", features, 11)]
    for number, (name, table, rows) in enumerate(published):
        files = [
            write(folder / f"artifacts/stages/{number}-{start}.parquet", table.slice(start, rows))
            for start in range(0, table.num_rows, rows)
        ]
        path = str(folder / "artifacts" / "tables" / "adult" / name)
        fs = fsspec.filesystem("file")
        commit_table(fs, path, files, table.schema, fingerprint=fingerprint(str(number)), metadata={})
    return folder


def ran(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that a recipe leaves."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("TREADLE_ROOT", raising=False)
    (folder / "recipe.py").write_text(recipe(name))
    return runpy.run_path(str(folder / "recipe.py"))


def test_polars(folder: Path, old: pa.Table, new: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ran("polars", folder, monkeypatch)
    wanted = new.filter(pc.greater(new["score"], 0.9)).sort_by("id")
    assert found["likely"].sort("id").to_dicts() == wanted.to_pylist()
    assert found["before"].sort("id").to_dicts() == old.to_pylist()


def test_duckdb(folder: Path, new: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = new.to_pandas().groupby("class")["score"].agg(["size", "mean"])
    wanted = [(name, row["size"], pytest.approx(row["mean"])) for name, row in groups.iterrows()]
    assert ran("duckdb", folder, monkeypatch)["classes"] == wanted


def test_dask(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ran("dask", folder, monkeypatch)
    assert found["mean"] == 7.25
    assert found["features"].npartitions == 3
    assert found["features"]["id"].compute().tolist() == list(range(30))


def test_pandas(folder: Path, new: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ran("pandas", folder, monkeypatch)
    pd.testing.assert_frame_equal(found["predictions"], new.select(["id", "score"]).to_pandas())
    assert sorted(found["likely"]["id"]) == sorted(new.filter(pc.greater(new["score"], 0.9))["id"].to_pylist())


def test_deltalake_skips_files_by_their_statistics(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "predictions"
    files = [write(tmp_path / f"{n}.parquet", pa.table({"id": [n, n + 1]})) for n in (0, 10)]
    schema = pa.schema([("id", pa.int64())])
    commit_table(fsspec.filesystem("file"), str(table), files, schema, fingerprint="0" * 16, metadata={})
    next(table.glob("part-00000*")).unlink()
    assert DeltaTable(table).to_pandas(filters=[("id", ">", 5)])["id"].tolist() == [10, 11]


SPARK = "\nprint('rows', sorted((row['id'], row['score']) for row in {name}.collect()))\n"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "made"), [("spark", "before"), ("spark-parquet", "predictions")])
def test_spark(folder: Path, old: pa.Table, new: pa.Table, name: str, made: str) -> None:
    python = os.environ.get("TREADLE_SPARK_PYTHON", sys.executable)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": python}
    environment.pop("TREADLE_ROOT", None)
    modules = "delta, pyspark" if name == "spark" else "pyspark"
    found = subprocess.run([python, "-c", f"import {modules}"], env=environment, capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"{modules} is not installed: {found.stderr.strip().splitlines()[-1]}")
    (folder / "spark.py").write_text(recipe(name) + SPARK.format(name=made))
    done = subprocess.run([python, "spark.py"], cwd=folder, env=environment, capture_output=True, text=True)
    unresolved = "unresolved dependency" in done.stdout + done.stderr
    if name == "spark" and done.returncode and unresolved:
        pytest.skip("Delta's jars cannot be fetched from Maven here")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    table = old if name == "spark" else new
    wanted = sorted(zip(table["id"].to_pylist(), table["score"].to_pylist(), strict=True))
    assert f"rows {wanted}" in done.stdout


@pytest.mark.gpu
def test_cudf(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cudf")
    found = ran("cudf", folder, monkeypatch)["features"]
    assert found["id"].to_pandas().tolist() == list(range(30))
