"""Artifacts roots on a server that speaks S3: who creates an object, who commits a table, and what it costs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.engine.delta_tables import INTS, fingerprint, ints
from tests.s3 import S3
from treadle.engine import delta
from treadle.engine.commits import commit_table
from treadle.engine.delta_files import DataFile
from treadle.engine.document import Part
from treadle.engine.object_store import delta_options
from treadle.engine.store import Store
from treadle.errors import StorageError

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(s3: S3, request: pytest.FixtureRequest) -> Store:
    return Store(f"s3://lake/{request.node.name}")


def process(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def together(processes: Sequence[subprocess.Popen[str]]) -> list[list[str]]:
    """What processes print that wait for each other to be ready."""
    for started in processes:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n", started.communicate()[1]
    for started in processes:
        assert started.stdin is not None
        started.stdin.write("go\n")
        started.stdin.flush()
    said = []
    for started in processes:
        out, errors = started.communicate(timeout=60)
        assert started.returncode == 0, errors
        said.append(out.splitlines())
    return said


CREATE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from treadle.engine.store import Store
store, number = Store(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for round in range(2):
    with ThreadPoolExecutor(10) as pool:
        made = list(pool.map(lambda n: store.create(f"claims/{round}.json", [number, n]), range(10)))
    print(*[n for n, created in enumerate(made) if created])
"""


class TestCreate:
    @pytest.mark.slow
    def test_of_threads_of_two_processes_one_creates(self, s3: S3, store: Store) -> None:
        said = together([process(CREATE, store.url, str(number)) for number in (0, 1)])
        for round_ in range(2):
            winners = [[number, int(n)] for number in (0, 1) for n in said[number][round_].split()]
            assert winners == [store.read_json(f"claims/{round_}.json")]

    @pytest.mark.parametrize("kind", ["file", "memory", "s3"])
    def test_of_threads_one_creates(self, tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
        if kind == "s3":
            request.getfixturevalue("s3")
        store = Store({"file": str(tmp_path), "memory": f"memory://{tmp_path}", "s3": f"s3://lake{tmp_path}"}[kind])
        with ThreadPoolExecutor(20) as pool:
            made = list(pool.map(lambda n: store.create("a/claim.json", n), range(20)))
        assert [n for n, created in enumerate(made) if created] == [store.read_json("a/claim.json")]
        assert store.list("a") == ["claim.json"]

    def test_an_answer_that_was_lost(self, s3: S3, store: Store) -> None:
        s3.control("lose")
        s3.seen()
        assert store.create("claim.json", 1)
        puts = [name for name in s3.seen() if name.startswith("PUT")]
        assert len(puts) == 2, "the server did the first, and s3fs tried again"
        assert not store.create("claim.json", 1)
        assert store.read_json("claim.json") == 1


class TestWriting:
    def test_a_small_file_is_one_request_and_a_large_one_goes_in_parts(self, s3: S3, store: Store) -> None:
        s3.seen()
        store.write_json("a/b.json", 1)
        assert s3.seen() == [f"PUT /lake/{store.url.rpartition('/')[2]}/a/b.json"]
        block = bytes(range(256)) * 2**12
        with store.writing("large.bin") as file:
            for _ in range(34):
                file.write(block)
        assert len(s3.seen()) == 1 + 3 + 1
        assert store.fs.cat(store.path("large.bin")) == block * 34

    def test_parts_that_cannot_be_put_leave_nothing(self, s3: S3, store: Store) -> None:
        s3.control("deny", "PUT /lake")
        try:
            with (
                pytest.raises(StorageError, match=r"large.bin may not be written \(Access Denied\); choose another"),
                store.writing("large.bin") as file,
            ):
                file.write(bytes(34 * 2**20))
        finally:
            s3.control("deny")
        assert store.list("") == []
        assert s3.fs.list_multipart_uploads("lake") == []
        store.write_json("large.bin", 1)

    def test_what_cannot_be_reached_is_said_in_one_line(self, s3: S3) -> None:
        with pytest.raises(StorageError, match=r"nowhere/a.json cannot be found or made \(.*bucket.*\); look at the"):
            Store("s3://nowhere").write_json("a.json", 1)
        options = {"endpoint_url": "http://127.0.0.1:9", "config_kwargs": {"retries": {"max_attempts": 0}}}
        fs = fsspec.filesystem("s3", **options, use_listings_cache=False, skip_instance_cache=True)
        fs.retries = 1
        from treadle.engine.store import whole_file

        with (
            pytest.raises(StorageError, match=r"lake/a cannot be reached: .*127.0.0.1:9.*the credentials and the end"),
            whole_file(fs, "lake/a") as file,
        ):
            file.write(b"1")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_has_connections_of_its_own(s3: S3, store: Store) -> None:
    store.write_json("a.json", 1)
    child = os.fork()
    if child == 0:
        try:
            os._exit(store.read_json("a.json") + 41)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    assert store.read_json("a.json") == 1


class TestDeltaOptions:
    """deltalake is told what s3fs is connected to, however it was told."""

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ({}, {"aws_endpoint_url": "=", "aws_allow_http": "true"}),
            (
                {"key": "k", "secret": "s", "token": "t"},
                {"aws_access_key_id": "k", "aws_secret_access_key": "s", "aws_session_token": "t"},
            ),
            ({"endpoint_url": "https://minio.example:9000"}, {"aws_endpoint_url": "https://minio.example:9000"}),
            (
                {"client_kwargs": {"region_name": "eu-west-1", "endpoint_url": "https://s3.eu-west-1.amazonaws.com"}},
                {"aws_region": "eu-west-1", "aws_endpoint_url": None, "aws_allow_http": None},
            ),
            (
                {"anon": True},
                {"aws_skip_signature": "true", "aws_access_key_id": None, "aws_secret_access_key": None},
            ),
            (
                {"s3_additional_kwargs": {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "arn"}},
                {"aws_server_side_encryption": "aws:kms", "aws_sse_kms_key_id": "arn"},
            ),
            ({"requester_pays": True}, {"aws_request_payer": "true"}),
        ],
    )
    def test_of_what_s3fs_is_given(self, s3: S3, given: Mapping[str, Any], expected: Mapping[str, str | None]) -> None:
        options = delta_options(fsspec.filesystem("s3", **given, skip_instance_cache=True))
        assert options is not None
        if expected.get("aws_endpoint_url") == "=":
            expected = {**expected, "aws_endpoint_url": f"http://127.0.0.1:{s3.port}"}
        assert {name: options.get(name) for name in expected} == dict(expected)
        own = {"aws_region": "us-east-1", "aws_access_key_id": "id", "aws_secret_access_key": "secret"}
        assert {name: options.get(name) for name in own if name not in expected} == {
            name: value for name, value in own.items() if name not in expected
        }

    def test_of_fsspecs_own_configuration(self, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
        # The variables lead nowhere: only what fsspec was configured with does.
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        own = {"key": "other", "secret": "x", "client_kwargs": {"endpoint_url": f"http://127.0.0.1:{s3.port}"}}
        monkeypatch.setitem(fsspec.config.conf, "s3", own)
        store = Store("s3://lake/configured")
        commit(store, [part(store, "a.parquet", ints(1))], "a")
        assert values(store) == [1]

    def test_of_other_file_systems(self) -> None:
        for protocol in ("file", "memory"):
            assert delta_options(fsspec.filesystem(protocol)) is None


def part(store: Store, name: str, table: pa.Table) -> Part:
    return store.write_parquet(f"stages/{name}", table)


def commit(store: Store, parts: Sequence[Part], name: str, table: str = "tables/t") -> int:
    files = [DataFile(store.path(made.path), made.rows, made.bytes) for made in parts]
    path = store.path(table)
    return commit_table(store.fs, path, files, INTS, fingerprint=fingerprint(name), metadata={}).version


def values(store: Store, version: int | None = None) -> list[Any]:
    return delta.read_arrow(delta.open_table(store.fs, store.path("tables/t"), version))["x"].to_pylist()


RACE = """
import sys
import pyarrow as pa
from tests.engine.test_object_store import commit, part
from treadle.engine.store import Store
from treadle.errors import StorageError
store, writer = Store(sys.argv[1]), int(sys.argv[2])
def three(number):
    return [part(store, f"{number}-{n}.parquet", pa.table({"x": [number]})) for n in range(3)]
files = {number: three(number) for number in range(writer, writer + 4)}
print("ready", flush=True)
sys.stdin.readline()
for number, parts in files.items():
    try:
        print(commit(store, parts, str(number)), number)
    except StorageError as error:
        assert "was changed by another run" in str(error), error
        print("lost", number)
"""


class TestCommits:
    @pytest.mark.slow
    def test_racing_drivers_never_mix_their_files(self, s3: S3, store: Store) -> None:
        """Every version holds the files of one commit, and is the one that its driver was told."""
        said = together([process(RACE, store.url, writer) for writer in ("100", "200")])
        told: dict[int, int] = {}
        lost = 0
        for version, number in (line.split() for lines in said for line in lines):
            if version == "lost":
                lost += 1
            else:
                assert int(version) not in told
                told[int(version)] = int(number)
        assert len(told) + lost == 8
        assert sorted(told) == list(range(len(told)))
        assert delta.open_table(store.fs, store.path("tables/t")).version() == len(told) - 1
        for version_, content in told.items():
            assert values(store, version_) == [content] * 3

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda raw: raw[: len(raw) // 2], r"it has \d+ bytes, but \d+ were written"),
            (lambda raw: None, "it is not there any more"),
            (lambda raw: bytes(len(raw)), "it is not readable as Parquet"),
            (lambda raw: parquet(pa.table({"x": [0.5]})), "column 'x' is double where the table has int64"),
            (lambda raw: parquet(ints(1, 2)), "it has 2 rows, but 1 were written"),
        ],
    )
    def test_a_damaged_object_is_named_and_the_table_stays(
        self, s3: S3, damage: Callable[[bytes], bytes | None], message: str, request: pytest.FixtureRequest
    ) -> None:
        store = Store(f"s3://lake/damaged/{abs(hash(request.node.name))}")
        commit(store, [part(store, "a.parquet", ints(1))], "a")
        good, bad = part(store, "b.parquet", ints(2)), part(store, "c.parquet", ints(3))
        place = store.path(bad.path)
        raw = damage(store.fs.cat(place))
        store.fs.rm_file(place)
        if raw is not None:
            store.fs.pipe_file(place, raw)
            bad = bad if "bytes" in message else bad.model_copy(update={"bytes": len(raw)})
        with pytest.raises(StorageError, match=f"stages/c.parquet cannot be published: {message}"):
            commit(store, [good, bad], "b")
        assert values(store) == [1]

    def test_a_place_with_a_space(self, s3: S3) -> None:
        store = Store("s3://lake/a b/ü")
        for number in (0, 1):
            assert commit(store, [part(store, f"{number}.parquet", ints(number))], str(number)) == number
        assert values(store) == [1]
        assert values(store, 0) == [0]
        (file,) = delta.data_files(delta.open_table(store.fs, store.path("tables/t")))
        assert file.startswith("s3://lake/a b/ü/tables/t/part-00000-")
        assert polars.read_parquet(file)["x"].to_list() == [1]

    def test_what_it_costs(self, s3: S3, store: Store) -> None:
        parts = [part(store, f"{number}.parquet", ints(number)) for number in range(20)]
        s3.seen()
        assert store.has(*parts)
        assert len(s3.seen()) == 1
        assert commit(store, parts, "a") == 0
        # Of each file: that it is there, a copy, the copy's size and footer.
        assert len(s3.seen()) <= 4 * 20 + 20
        for number in range(1, 12):
            assert commit(store, parts[:1], str(number)) == number
        s3.seen()
        assert values(store) == [0]
        # Of the log, the last checkpoint and the entries after it are read, however many versions there are.
        entries = {name.rpartition("/")[2] for name in s3.seen() if "_delta_log/0" in name and name.endswith(".json")}
        assert entries <= {f"{number:020d}.json" for number in (10, 11)}
        assert values(store, 0) == list(range(20))


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())
