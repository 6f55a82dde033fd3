"""Delta tables: damaged files, racing and killed drivers, full disks; all of them real."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.engine.delta_tables import FS, INTS, commit, ints, values, write
from treadle.engine import commits, delta
from treadle.engine.commits import commit_table
from treadle.engine.delta_files import DataFile
from treadle.errors import RequestError, StorageError


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "stages"


@pytest.fixture
def table(tmp_path: Path) -> str:
    return str(tmp_path / "tables" / "job" / "etl")


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _blank_footer(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(-64, os.SEEK_END)
        file.write(b"\0" * 64)


def _rewrite(table: pa.Table) -> Callable[[Path], None]:
    return lambda path: pq.write_table(table, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, r"b\.parquet cannot be published: it has \d+ bytes, but \d+ were written"),
        (Path.unlink, r"b\.parquet cannot be published: it is not there any more.*--fresh"),
        (_blank_footer, r"b\.parquet cannot be published: it is not readable as Parquet"),
        (_rewrite(pa.table({"x": [0.5]})), "column 'x' is double where the table has int64"),
        (_rewrite(pa.table({"z": [1]})), r"it lacks columns of the table: \[x\]"),
        (_rewrite(pa.table({"x": [1], "z": [1]})), r"it has columns that the table has not: \[z\]"),
        (_rewrite(ints(1, 2, 3)), "it has 3 rows, but 1 were written"),
    ],
)
def test_damaged_file_is_named_and_the_table_stays(
    cache: Path, table: str, damage: Callable[[Path], None], message: str
) -> None:
    commit(table, [write(cache / "a.parquet", ints(1))], "a")
    good, bad = write(cache / "good.parquet", ints(2)), write(cache / "b.parquet", ints(3))
    damage(Path(bad.path))
    if damage is not _truncate and os.path.exists(bad.path):
        bad = DataFile(bad.path, bad.rows, os.path.getsize(bad.path))
    with pytest.raises(StorageError, match=message):
        commit(table, [good, bad], "b")
    assert values(table) == [1]
    assert delta.open_table(FS, table).version() == 0
    Path(bad.path).unlink(missing_ok=True)
    commit(table, [good, write(cache / "b.parquet", ints(3))], "b")
    assert values(table) == [2, 3]


def test_order_of_columns_and_unit_of_timestamps_count(cache: Path, table: str) -> None:
    rows = pa.table({"a": [1], "b": [2]})
    swapped = write(cache / "a.parquet", rows.select(["b", "a"]))
    with pytest.raises(StorageError, match=r"columns \[b, a\] are not in the table's order \[a, b\]"):
        commit(table, [swapped], "a", rows.schema)
    nanos = pa.table({"t": pa.array([1], pa.timestamp("ns"))})
    with pytest.raises(StorageError, match=r"'t' is timestamp\[ns\] where the table has timestamp\[us\]"):
        commit(table, [write(cache / "b.parquet", nanos)], "b", nanos.schema)
    with pytest.raises(RequestError, match="There is no table 'etl'"):
        delta.open_table(FS, table)


def test_a_version_whose_file_is_gone_says_so(cache: Path, table: str) -> None:
    commit(table, [write(cache / "a.parquet", ints(1))], "a")
    opened = delta.open_table(FS, table)
    os.unlink(delta.data_files(opened)[0])
    with pytest.raises(StorageError, match=r"A file of version 0 of table .*etl is gone \(.*; name a newer version\.$"):
        delta.read_arrow(opened)


def test_a_version_whose_file_is_damaged_says_so(cache: Path, table: str) -> None:
    commit(table, [write(cache / "a.parquet", ints(1))], "a")
    opened = delta.open_table(FS, table)
    file = Path(delta.data_files(opened)[0])
    size = file.stat().st_size
    file.unlink()  # the cache has the same file
    file.write_bytes(b"?" * size)
    with pytest.raises(StorageError, match=r"A file of version 0 of table .*etl is damaged \("):
        delta.read_arrow(opened)


def test_damaged_log_is_named_in_one_line(cache: Path, table: str) -> None:
    commit(table, [write(cache / "a.parquet", ints(1))], "a")
    Path(table, "_delta_log", f"{1:020d}.json").write_text("garbage")
    for attempt in (lambda: delta.open_table(FS, table), lambda: commit(table, [], "b")):
        with pytest.raises(StorageError, match=r"etl could not be read or written: .*[Jj]son") as caught:
            attempt()
        assert "\n" not in str(caught.value)


def _meanwhile(monkeypatch: pytest.MonkeyPatch, other: Callable[[], object]) -> None:
    """Lets `other` happen once, between the first look at the table and the commit."""
    original, pending = commits._place_all, [other]

    def placing(*arguments: Any) -> Any:
        placed = original(*arguments)
        if pending:
            pending.pop()()
        return placed

    monkeypatch.setattr(commits, "_place_all", placing)


@pytest.mark.parametrize("kind", ["overwrite", "append", "schema"])
def test_a_commit_that_another_one_overtakes_is_refused(
    cache: Path, table: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    commit(table, [write(cache / "a.parquet", ints(1))], "a")
    schema = pa.schema([("t", pa.timestamp("us"))]) if kind == "schema" else INTS
    late = [] if kind == "schema" else [write(cache / "b.parquet", ints(2))]

    def overtaking() -> None:
        if kind == "append":
            deltalake.write_deltalake(table, ints(9), mode="append")
        else:
            commit(table, [write(cache / "c.parquet", ints(9))], "c")

    _meanwhile(monkeypatch, overtaking)
    with pytest.raises(StorageError, match=r"etl was changed by another run \(version 0 -> 1\).*run again"):
        commit(table, late, "b", schema)
    assert 9 in values(table)
    assert delta.open_table(FS, table).version() == 1
    commit(table, late, "b", schema)
    assert delta.read_arrow(delta.open_table(FS, table)).column_names == schema.names


def test_two_drivers_that_create_a_table(cache: Path, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _meanwhile(monkeypatch, lambda: commit(table, [write(cache / "c.parquet", ints(9))], "c"))
    with pytest.raises(StorageError, match=r"changed by another run \(version none -> 0\)"):
        commit(table, [write(cache / "b.parquet", ints(2))], "b")
    assert values(table) == [9]


def test_two_drivers_with_the_same_content_make_one_version(
    cache: Path, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(table, [write(cache / "a.parquet", ints(1))], "a")
    same = [write(cache / "b.parquet", ints(2))]
    _meanwhile(monkeypatch, lambda: commit(table, same, "b"))
    assert commit(table, same, "b").version == 1
    assert delta.open_table(FS, table).version() == 1


def _python(code: str, *arguments: str, prefix: Sequence[str] = (), **options: Any) -> subprocess.Popen[str]:
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r})\n{code}", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


PUBLISH = """
import fsspec, os, pyarrow as pa, pyarrow.parquet as pq
from treadle.engine import commits, delta
from treadle.engine.commits import commit_table
from treadle.engine.delta_files import DataFile
from treadle.errors import StorageError
FS = fsspec.filesystem("file")

def publish(table, folder, number, count=1):
    files = []
    for index in range(count):
        path = f"{folder}/{number}-{index}.parquet"
        pq.write_table(pa.table({"x": [number]}), path)
        files.append(DataFile(path, 1, os.path.getsize(path)))
    schema, name = pa.schema([("x", pa.int64())]), str(number).rjust(12, "0")
    return commit_table(FS, table, files, schema, fingerprint=name, metadata={}).version

def values(table):
    return delta.read_arrow(delta.open_table(FS, table))["x"].to_pylist()
"""

RACE = """
table, folder, writer = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(writer), int(writer) + 10):
    try:
        print(publish(table, folder, number, 3), number)
    except StorageError as error:
        assert "was changed by another run" in str(error), error
        print("lost", number)
"""


def test_racing_processes_never_mix_their_files(tmp_path: Path, table: str) -> None:
    """Every version holds the files of one commit, and is the one that its driver was told."""
    drivers = []
    for writer in ("100", "200"):
        (tmp_path / writer).mkdir()
        drivers.append(_python(PUBLISH + RACE, table, str(tmp_path / writer), writer))
    for driver in drivers:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "ready\n", driver.communicate()[1]
    for driver in drivers:
        assert driver.stdin is not None
        driver.stdin.write("go\n")
        driver.stdin.flush()
    told: dict[int, int] = {}
    lost = 0
    for driver in drivers:
        output, errors = driver.communicate(timeout=60)
        assert driver.returncode == 0, errors
        for version, number in map(str.split, output.splitlines()):
            if version == "lost":
                lost += 1
            else:
                assert told.setdefault(int(version), int(number)) == int(number)
    assert len(told) + lost == 20
    assert sorted(told) == list(range(len(told)))
    assert delta.open_table(FS, table).version() == len(told) - 1
    for committed, content in told.items():
        assert values(table, committed) == [content] * 3


def test_killed_between_placing_and_commit(tmp_path: Path, table: str) -> None:
    (tmp_path / "cache").mkdir()
    driver = _python(
        PUBLISH
        + """
import signal
publish(*sys.argv[1:3], 1)
commit = commits._commit
def stall(*arguments):
    print("placed", flush=True)
    signal.pause()
commits._commit = stall
publish(*sys.argv[1:3], 2, 3)
""",
        table,
        str(tmp_path / "cache"),
    )
    assert driver.stdout is not None
    assert driver.stdout.readline() == "placed\n", driver.communicate()[1]
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    assert values(table) == [1]
    left = [name for name in os.listdir(table) if "-000000000002" in name]
    assert len(left) == 3
    again = [DataFile(str(tmp_path / "cache" / f"2-{n}.parquet"), 1, 0) for n in range(3)]
    again = [DataFile(file.path, 1, os.path.getsize(file.path)) for file in again]
    published = commit_table(FS, table, again, INTS, fingerprint="2".rjust(12, "0"), metadata={})
    assert published.version == 1
    assert values(table) == [2, 2, 2]
    assert sorted(name for name in os.listdir(table) if "-000000000002" in name) == sorted(left)


FULL_DISK = """
disk, cache = sys.argv[1:]
table = disk + "/tables/etl"
os.mkdir(disk + "/cache")
publish(table, disk + "/cache", 1)
def fill():
    with open(disk + "/fill", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(512))
        except OSError:
            pass
def attempt(number):
    try:
        files = [DataFile(f"{cache}/{number}.parquet", 1, os.path.getsize(f"{cache}/{number}.parquet"))]
        schema = pa.schema([("x", pa.int64())])
        commit_table(FS, table, files, schema, fingerprint=str(number).rjust(12, "0"), metadata={})
    except StorageError as error:
        print(error)
    assert values(table) == [1], values(table)
    assert not any(name.startswith("part-00000-000000000003") for name in os.listdir(table))
for number in (2, 3):
    pq.write_table(pa.table({"x": [number]}), f"{disk}/cache/{number}.parquet")
import shutil
shutil.copy(disk + "/cache/3.parquet", cache)
fill()
attempt(3)
cache = disk + "/cache"
attempt(2)
os.unlink(disk + "/fill")
publish(table, disk + "/cache", 4)
assert values(table) == [4]
"""


def test_full_disk_is_named_and_leaves_the_table(tmp_path: Path) -> None:
    """A tiny disk in a mount name space of its own: the copy fails there, and then the log."""
    disk, cache = tmp_path / "disk", tmp_path / "cache"
    disk.mkdir()
    cache.mkdir()
    mount = 'mount -t tmpfs -o size=128k tmpfs "$0" && exec "$@"'
    prefix = ["unshare", "-m", "sh", "-c", mount, str(disk)]
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here (that takes unshare and root)")
    driver = _python(PUBLISH + FULL_DISK, str(disk), str(cache), prefix=prefix)
    output, errors = driver.communicate(timeout=60)
    assert driver.returncode == 0, errors
    copied, logged = output.splitlines()
    assert copied.startswith(f"No space left on the device of {disk}/tables/etl/part-00000-000000000003")
    assert logged.startswith(f"No space left on the device of {disk}/tables/etl;")
    assert "free space there" in copied
    assert "free space there" in logged


def test_missing_permission_is_named(tmp_path: Path, table: str) -> None:
    """As another user where the tests run as root, who may do everything."""
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o755)
    code = """
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    commit_table(FS, sys.argv[1], [], pa.schema([("x", pa.int64())]), fingerprint="0" * 12, metadata={})
except StorageError as error:
    print(error)
"""
    if os.geteuid():
        locked.chmod(0o555)
    driver = _python(PUBLISH + code, str(locked / "etl"))
    output, errors = driver.communicate(timeout=60)
    assert driver.returncode == 0, errors
    assert str(locked) in output
    assert "may not be written (Permission denied); choose another folder with --root" in output
