"""Inputs that lie behind real servers on loopback: HTTP always, S3 where s3fs and moto are installed.

See docs/developing.md for how to run those of S3.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import treadle
from tests.engine.readers.reading import rows_of
from tests.s3 import S3, served
from treadle.engine.inputs import find_files
from treadle.engine.object_store import delta_options
from treadle.engine.text_input import inspect
from treadle.errors import RequestError

ROWS = {"a": [1, 2, 3], "t": ["x", None, "é"]}
CSV = "a,t\n1,x\n2,\n3,é\n"
JSONL = '{"a": 1, "t": "x"}\n{"a": 2}\n{"a": 3, "t": "é"}\n'
# Unlike http.server, aiohttp answers requests for a range of bytes, without which Parquet cannot be read.
HTTP_SERVER = """
import asyncio, sys
from aiohttp import web
app = web.Application()
app.router.add_static("/", sys.argv[1], show_index=True)
async def main():
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The URL of a folder that a web server shows, and the folder."""
    pytest.importorskip("aiohttp", reason="fsspec reads HTTP by aiohttp")
    folder = tmp_path_factory.mktemp("http")
    for port in served(HTTP_SERVER, str(folder)):
        yield f"http://127.0.0.1:{port}", folder


class TestHttp:
    def test_files_of_every_kind(self, http: tuple[str, Path], tmp_path: Path) -> None:
        url, folder = http
        pq.write_table(pa.table(ROWS), folder / "a.parquet", row_group_size=2)
        (folder / "a.csv").write_text(CSV)
        (folder / "a.jsonl").write_text(JSONL)
        for name in ("a.parquet", "a.csv", "a.jsonl"):
            inspected = inspect(f"{url}/{name}")
            assert inspected.files[0].path == f"{url}/{name}"
            assert rows_of(inspected, tmp_path).to_pydict() == ROWS
        with pytest.raises(RequestError, match=rf"Input '{url}/none.csv' was not found"):
            inspect(f"{url}/none.csv")

    def test_folders_and_globs(self, http: tuple[str, Path], tmp_path: Path) -> None:
        # What a folder holds is known where the server lists it.
        url, folder = http
        (folder / "in").mkdir()
        for number in (1, 2):
            pq.write_table(pa.table({"v": [number]}), folder / "in" / f"{number}.parquet")
        for path in (f"{url}/in", f"{url}/in/*.parquet", f"{url}/in/[12].parquet"):
            assert rows_of(inspect(path)).to_pydict() == {"v": [1, 2]}


class TestS3:
    def test_files_of_every_kind(self, s3: S3, tmp_path: Path) -> None:
        with s3.fs.open("lake/p/a.parquet", "wb") as file:
            pq.write_table(pa.table(ROWS), file, row_group_size=2)
        s3.fs.pipe("lake/c/a.csv", CSV.encode())
        s3.fs.pipe("lake/j/a b.ndjson", JSONL.encode())
        for path in ("s3://lake/p", "s3://lake/p/*.parquet", "s3://lake/c/", "s3://lake/j/a b.ndjson"):
            assert rows_of(inspect(path), tmp_path).to_pydict() == ROWS
        # A file that is added later is seen by the same process.
        s3.fs.pipe("lake/c/b.csv", CSV.encode())
        assert len(find_files("s3://lake/c").files) == 2
        s3.fs.pipe("lake/c/b.csv", CSV.replace("x", "y").encode())
        assert rows_of(inspect("s3://lake/c"), tmp_path)["t"].to_pylist()[3] == "y"
        with pytest.raises(RequestError, match=r"Input 's3://lake/p/a.parket' was not found. Did you mean 'a.parquet'"):
            inspect("s3://lake/p/a.parket")

    def test_partition_folders(self, s3: S3) -> None:
        for value in ("2020-01-02", "__HIVE_DEFAULT_PARTITION__"):
            with s3.fs.open(f"lake/hive/day={value}/1.parquet", "wb") as file:
                pq.write_table(pa.table({"v": [1]}), file)
        inspected = inspect("s3://lake/hive")
        assert inspected.kinds == {"v": "int", "day": "timestamp"}
        assert rows_of(inspected)["day"].null_count == 1

    def test_a_version_of_a_delta_table(self, s3: S3) -> None:
        from deltalake import write_deltalake

        options = delta_options(s3.fs)
        for part in ({"a": [1, 2], "p": ["x y/é", None]}, {"a": [3], "p": ["z"]}):
            write_deltalake(
                "s3://lake/table",
                pa.table(part),
                mode="append",
                partition_by=["p"],
                storage_options=options,
            )
        assert sorted(rows_of(inspect("s3://lake/table"))["a"].to_pylist()) == [1, 2, 3]
        first = inspect("s3://lake/table", version=0)
        assert dict(zip(*rows_of(first).to_pydict().values(), strict=True)) == {1: "x y/é", 2: None}
        with pytest.raises(RequestError, match="The folder 's3://lake' holds Delta tables; name one of them: .*table"):
            inspect("s3://lake")

    @pytest.mark.slow
    def test_a_job_whose_input_and_root_are_there(self, s3: S3) -> None:
        s3.fs.pipe("lake/job/a.csv", b"a,b\n" + b"".join(b"%d,%d\n" % (i, i % 7) for i in range(1000)) + b"x,1\n")
        run = treadle.run(
            {
                "apiVersion": "treadle/v1",
                "name": "from-s3",
                "data": {"path": "s3://lake/job", "partitions": 3, "types": {"a": "int"}, "bad_rows": {"limit": 1}},
                "tables": [{"op": "filter", "sql": "b = 3"}],
                "artifacts": {"root": "s3://lake/artifacts"},
                "cluster": {"profile": "local", "workers": 2},
            }
        )
        assert run.table("etl").to_pandas()["a"].tolist() == [i for i in range(1000) if i % 7 == 3]
        (bad,) = run.table("quarantine").to_pandas().to_dict("records")
        assert (bad["file"], bad["line"], bad["text"]) == ("s3://lake/job/a.csv", 1002, "x,1")
