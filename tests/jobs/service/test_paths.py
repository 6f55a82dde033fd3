"""Jobs read and write below the allowed roots only: laws of `confine`, held against what the engine would read."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.jobs.service.served import Served, small_spec
from treadle.engine.inputs import find_files
from treadle.engine.readers.delta import inspect
from treadle.errors import DataError, RequestError
from treadle.jobs import loading
from treadle.jobs.service.paths import PathRefused, confine
from treadle.jobs.spec import JobSpec

ROWS = pa.table({"x": [1, 2], "target": [0, 1]})


def spec_of(**sections: Any) -> JobSpec:
    return loading.load(
        {"apiVersion": "treadle/v1", "name": "n", "data": {"path": "sklearn://iris"}, **sections}, JobSpec
    )


def allows(path: Any, *allowed: str | Path, root: str | Path | None = None, closed: tuple[str, ...] = ()) -> bool:
    """Whether an input may be read; the artifacts root is allowed unless it is given."""
    places = [str(place) for place in allowed]
    try:
        confine(spec_of(data={"path": path}), str(root or places[0]), places, closed)
    except PathRefused:
        return False
    return True


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Folders `in`, which is allowed, `in-not` and `out`, each with a file s.csv."""
    for name in ("in", "in-not", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "s.csv").write_text("x,target\n1,2\n")
    return tmp_path


LEADS_OUT: dict[str, Callable[[Path], str]] = {
    "absolute": lambda t: f"{t}/out/s.csv",
    "the root's parent": lambda t: str(t),
    "everything": lambda t: "/",
    "another with its name's beginning": lambda t: f"{t}/in-not/s.csv",
    "dots": lambda t: f"{t}/in/../out/s.csv",
    "dots of what is not there": lambda t: f"{t}/in/nobody/../../out/s.csv",
    "file URL": lambda t: f"file://{t}/out/s.csv",
    "file URL with dots": lambda t: f"file://{t}/in/../out/s.csv",
    "file URL with a host": lambda t: f"file://localhost{t}/in/s.csv",
    "local": lambda t: f"local://{t}/out/s.csv",
    "capitals": lambda t: f"FILE://{t}/out/s.csv",
    "chained": lambda t: f"simplecache::file://{t}/out/s.csv",
    "chained after the scheme that is always allowed": lambda t: f"sklearn://iris::file://{t}/out/s.csv",
    "chained, as the system reads it within": lambda t: f"{t}/in/../out/s.csv::/../../in/s.csv",
    "glob": lambda t: f"{t}/out/*.csv",
    "glob with a way out": lambda t: f"{t}/in/*/../../out/s.csv",
    "glob above": lambda t: f"{t}/*/s.csv",
    "list": lambda t: f"{t}/out/s.csv",
    "http": lambda t: "http://127.0.0.1:1/s.csv",
    "metadata of a cloud's machine": lambda t: "http://169.254.169.254/latest/meta-data/",
    "ftp": lambda t: "ftp://host/s.csv",
    "s3": lambda t: "s3://bucket/allowed-not/s.parquet",
    "s3, above": lambda t: "s3://bucket/",
    "s3, with dots": lambda t: "s3://bucket/allowed/../secret/s.parquet",
    "s3, with dots in disguise": lambda t: "s3://bucket/allowed/%2e%2E/secret/s.parquet",
    "s3, with dots and a backslash": lambda t: "s3://bucket/allowed/..\\secret/s.parquet",
    "s3, in capitals": lambda t: "S3://bucket/allowed/s.parquet",
    "credentials": lambda t: "s3://key:secret@bucket/allowed/s.parquet",
}  # fmt: skip


@pytest.mark.parametrize("case", LEADS_OUT)
def test_what_leads_out_of_the_roots_is_refused(tree: Path, case: str) -> None:
    path = LEADS_OUT[case](tree)
    assert not allows([path] if case == "list" else path, tree / "in", "s3://bucket/allowed")
    assert not allows(["sklearn://iris", path], tree / "in", "s3://bucket/allowed")


def test_what_lies_below_the_roots_is_accepted(tree: Path) -> None:
    for path in (
        "/in",
        "/in/s.csv",
        "/in/../in/s.csv",
        "/in/*.csv",
        "/in/**/s.csv",
        "/in/nobody/there.csv",
        "/in/[st].csv",
    ):
        assert allows(f"{tree}{path}", tree / "in"), path
        assert allows(f"file://{tree}{path}", tree / "in"), path
        assert allows(f"{tree}{path}", f"file://{tree}/in"), path
    for path in ("s3://bucket/allowed", "s3://bucket/allowed/a/b..c.parquet", "s3://bucket/allowed/*.parquet"):
        assert allows(path, tree, "s3://bucket/allowed")
        assert allows(path, tree, "s3://bucket/allowed/")


def test_relative_paths_start_at_the_working_folder(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree / "in")
    assert allows("s.csv", tree / "in")
    assert allows("*.csv", tree / "in")
    assert not allows("../out/s.csv", tree / "in")
    assert not allows("../*/s.csv", tree / "in")


@pytest.mark.parametrize("path", ["/in/a\0b", "s3://[bucket/x", "/in/**x"])
def test_what_can_be_no_path_is_refused_as_that(tree: Path, path: str) -> None:
    wanted = path if "://" in path else f"{tree}{path}"
    with pytest.raises(RequestError, match=r"^data\.path: "):
        confine(spec_of(data={"path": wanted}), str(tree / "in"), [str(tree / "in"), "s3://[bucket"])


def test_passwords_of_addresses_are_not_told(tree: Path) -> None:
    for path in ("s3://key:hunter2@bucket/x", "simplecache::s3://key:hunter2@bucket/x", "ftp://u:hunter2@h/x"):
        with pytest.raises(PathRefused) as refusal:
            confine(spec_of(data={"path": path}), str(tree), [str(tree), "s3://bucket"])
        assert "hunter2" not in str(refusal.value)


LINKS: dict[str, Callable[[Path], tuple[Path, Path, str]]] = {
    "to a file": lambda t: (t / "in/link.csv", t / "out/s.csv", "link.csv"),
    "to a folder": lambda t: (t / "in/link", t / "out", "link/s.csv"),
    "to a folder above": lambda t: (t / "in/link", t, "link/out"),
    "in a folder that is read": lambda t: (t / "in/a/link.csv", t / "out/s.csv", "a"),
    "deep in folders of a partitioned data set": lambda t: (t / "in/a/y=1/m=2/p.csv", t / "out/s.csv", "a"),
    "matched by a glob": lambda t: (t / "in/link.csv", t / "out/s.csv", "*.csv"),
    "hidden, matched by a glob": lambda t: (t / "in/.link.csv", t / "out/s.csv", "*.csv"),
    "on the way of a glob": lambda t: (t / "in/link", t / "out", "*/s.csv"),
    "called like a glob": lambda t: (t / "in/l[1].csv", t / "out/s.csv", "l[1].csv"),
    "in a glob's folder": lambda t: (t / "in/link", t / "out", "link/*.csv"),
    "to what is not there yet": lambda t: (t / "in/link.csv", t / "out/later.csv", "link.csv"),
    "of a log of Delta": lambda t: (t / "in/a/_delta_log", t / "out", "a"),
}  # fmt: skip


@pytest.mark.parametrize("case", LINKS)
def test_links_that_lead_out_are_refused_and_others_not(tree: Path, case: str) -> None:
    link, target, path = LINKS[case](tree)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    assert not allows(f"{tree}/in/{path}", tree / "in")
    assert allows(f"{tree}/in/{path}", tree / "in", target)


def test_links_behind_links_are_followed(tree: Path) -> None:
    (tree / "in/a").mkdir()
    (tree / "in/b").mkdir()
    (tree / "in/a/to-b").symlink_to(tree / "in/b")
    assert allows(f"{tree}/in/a", tree / "in")
    (tree / "in/b/to-a").symlink_to(tree / "in/a")  # a circle
    assert allows(f"{tree}/in/a", tree / "in")
    (tree / "in/b/out.csv").symlink_to(tree / "out/s.csv")
    assert not allows(f"{tree}/in/a", tree / "in")


def test_an_allowed_root_may_be_a_link_itself(tree: Path) -> None:
    (tree / "alias").symlink_to(tree / "in")
    assert allows(f"{tree}/alias/s.csv", tree / "alias")
    assert allows(f"{tree}/in/s.csv", tree / "alias")


PLACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "data.path": lambda p: {"data": {"path": p}},
    "data.path of several": lambda p: {"data": {"path": ["sklearn://iris", p]}},
    "tables.0.with.path": lambda p: {"tables": [{"op": "join", "with": {"path": p}, "on": ["x"]}]},
    "tables.0.with.path of several": lambda p: {"tables": [{"op": "union", "with": {"path": ["sklearn://iris", p]}}]},
    "contract.0.in.path": lambda p: {"contract": [{"expect": "known", "columns": ["x"], "in": {"path": p}}]},
    "split.path": lambda p: {"split": {"kind": "path", "path": p}},
    "tracking.uri": lambda p: {"tracking": {"uri": f"sqlite:///{p}"}},
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_every_path_of_a_spec_is_looked_at(tree: Path, place: str) -> None:
    confine(spec_of(**PLACES[place](f"{tree}/in/s.csv")), str(tree / "in"), [str(tree / "in")])
    with pytest.raises(PathRefused, match=f"^{place.partition(' ')[0]}: "):
        confine(spec_of(**PLACES[place](f"{tree}/out/s.csv")), str(tree / "in"), [str(tree / "in")])


@pytest.mark.parametrize("uri", ["http://mlflow.example:5000", "postgresql://db.example/mlflow"])
def test_a_job_reports_to_servers_that_are_allowed_only(tree: Path, uri: str) -> None:
    spec = spec_of(tracking={"uri": uri})
    confine(spec, str(tree / "in"), [str(tree / "in"), uri])
    with pytest.raises(PathRefused, match="^tracking.uri: "):
        confine(spec, str(tree / "in"), [str(tree / "in"), uri.replace("example", "example.other")])


def test_no_other_key_of_a_spec_is_a_path() -> None:
    """A new key that sounds like one has to be looked at by `confine`, and be listed here."""
    found = set()
    for name, model in JobSpec.model_json_schema()["$defs"].items():
        for key in model.get("properties", {}):
            if re.search("path|file|folder|root|url|uri|from|dir$", key) and key != "profile":
                found.add(f"{name}.{key}")
    clusters = {"Slurm", "Kubernetes", "Gateway", "Ssh"}
    assert {one for one in found if one.partition(".")[0] not in clusters} == {
        "Artifacts.root", "Data.path", "Model.continue_from", "PathSplit.path", "Side.path",
        "Tracking.uri",
    }  # fmt: skip


@pytest.mark.parametrize("root", ["out", "in/../out", "in/link", "in/link/deeper", "in-not"])
def test_artifacts_are_written_below_the_roots_only(tree: Path, root: str) -> None:
    (tree / "in/link").symlink_to(tree / "out")
    assert (
        allows("sklearn://iris", tree / "in", root=tree / "in-not/../in/new") is True or not (tree / "in/link").exists()
    )
    assert not allows("sklearn://iris", tree / "in", root=f"{tree}/{root}")
    for other in ("sklearn://iris", "memory://x", "http://host/x"):
        assert not allows("sklearn://iris", tree / "in", root=other)


def test_a_table_that_leads_out_of_the_artifacts_is_not_written(tree: Path) -> None:
    (tree / "in/tables").mkdir()
    (tree / "in/tables/n").symlink_to(tree / "out")
    assert not allows("sklearn://iris", tree / "in")


@pytest.mark.parametrize("name", ["../../out/models/m:1", "/etc:1", "..:1", "a/b:1", "a\n:1", ".hidden:1"])
def test_an_earlier_model_is_one_of_the_artifacts(name: str) -> None:
    with pytest.raises(RequestError, match="is no version of a model"):
        spec_of(
            data={"path": "sklearn://iris", "target": "target"}, models=[{"name": "xgboost", "continue_from": name}]
        )


def test_the_services_own_files_are_closed(tree: Path) -> None:
    (tree / "in/home").mkdir()
    closed = (str(tree / "in/home"), str(tree / "in/key.pem"))
    assert allows(f"{tree}/in/s.csv", tree / "in", closed=closed)
    for path in ("in/home", "in/home/jobs.db", "in/key.pem", "in/s/../key.pem", "in/*.pem", "in"):
        (tree / "in/key.pem").touch()
        assert not allows(f"{tree}/{path}", tree / "in", closed=closed), path
    assert not allows("sklearn://iris", tree / "in", root=tree / "in/home/x", closed=closed)
    assert allows("sklearn://iris", tree / "in", root=tree / "in", closed=closed)


steps = st.lists(st.sampled_from(["a", "b", "c", "..", "l1", "l2", "s.csv"]), max_size=5).map("/".join)


@given(
    folders=st.lists(steps, max_size=4),
    links=st.lists(st.tuples(steps, steps, st.booleans()), max_size=3),
    asked=st.lists(steps, min_size=1, max_size=6),
)
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_exactly_what_really_lies_below_a_root_is_accepted(
    folders: list[str], links: list[tuple[str, str, bool]], asked: list[str], tmp_path: Path
) -> None:
    """For any folders and links: as the system itself resolves a path; and the engine finds nothing else."""
    tree = tmp_path / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    for name in ("in/a", "in/b", "out/a"):
        (tree / name).mkdir(parents=True)
        (tree / name / "s.csv").write_text("x\n1\n")
    inside = os.path.realpath(tree / "in")
    for folder in folders:
        made = os.path.normpath(tree / "in" / folder)
        if made.startswith(str(tree)):
            with contextlib.suppress(FileExistsError, NotADirectoryError):
                os.makedirs(made)
    for where, target, absolute in links:
        made = os.path.normpath(tree / "in" / where)
        if made.startswith(f"{tree}/") and not os.path.lexists(made) and os.path.isdir(os.path.dirname(made)):
            os.symlink(str(tree / "out" / target) if absolute else target or ".", made)
    for path in asked:
        whole = f"{tree}/in/{path}"
        accepted = allows(whole, inside, root=f"{inside}/new")
        real = os.path.realpath(whole)
        if not (real == inside or real.startswith(f"{inside}/")):
            assert not accepted
        elif os.path.isfile(real) or not os.path.exists(real):
            assert accepted
        for wanted in (whole, f"{whole}/*.csv", f"{whole}/**"):
            if allows(wanted, inside, root=f"{inside}/new"):
                # With a slash: a link may lead to the root itself.
                assert all(f"{os.path.realpath(file)}/".startswith(f"{inside}/") for file in found(wanted))


def found(path: str) -> list[str]:
    """What the engine would read; nothing where it refuses."""
    try:
        return find_files(path, "csv").paths
    except (RequestError, OSError):
        return []


@pytest.mark.parametrize(
    "form", ["../out/s.parquet", "file://{out}/s.parquet", "{out}/s.parquet", "%2e%2e/out/s.parquet"]
)
def test_a_delta_table_has_only_files_of_its_own_folder(tmp_path: Path, form: str) -> None:
    """The log of a table, which its writer is free to write, names files anywhere."""
    table = foreign_table(tmp_path, form)
    with pytest.raises(DataError, match="has files outside of the table's folder"):
        inspect(str(table), None, {})


def foreign_table(folder: Path, form: str) -> Path:
    """A table whose log names a file beside it."""
    out, table = folder / "out", folder / "table"
    out.mkdir()
    pq.write_table(ROWS, out / "s.parquet")
    write_deltalake(table, ROWS)
    log = table / "_delta_log" / f"{0:020d}.json"
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    for action in actions:
        if "add" in action:
            action["add"] |= {"path": f"{form.format(out=out)}/s.parquet", "size": (out / "s.parquet").stat().st_size}
    log.write_text("\n".join(map(json.dumps, actions)))
    return table


def test_a_real_service_reads_nothing_outside(attached: Served, tmp_path: Path) -> None:
    """Neither at once, nor by a table's log, nor by a link that is made after the submission."""
    secret = tmp_path / "out.parquet"
    pq.write_table(pa.table({"secret_column": list(range(60)), "target": [0, 1, 2] * 20}), secret)
    refused = attached.http.post("/v1/jobs", json={"spec": small_spec(data={"path": str(secret), "target": "target"})})
    assert refused.status_code == 403
    assert "data.path" in refused.json()["detail"]
    audit = attached.http.get("/v1/audit").json()["entries"]
    assert (audit[0]["action"], audit[0]["user"], audit[0]["subject"]) == ("refused", "local", "/v1/jobs")
    assert audit[0]["outcome"].startswith("data.path: ")

    table = foreign_table(attached.folder, "../out")
    spec = small_spec("foreign", data={"path": str(table), "target": "target"})
    planned = attached.http.post("/v1/plan", json={"spec": spec})
    assert planned.status_code == 422
    assert "outside of the table's folder" in planned.json()["detail"]

    swapped = attached.folder / "swapped.parquet"
    pq.write_table(pa.table({"x": list(range(60)), "target": [0, 1, 2] * 20}), swapped)
    first = attached.submit(small_spec("first", seed=1))
    job = attached.submit(small_spec("swapped", data={"path": str(swapped), "target": "target"}), after=[first])
    swapped.unlink()
    swapped.symlink_to(secret)
    view = attached.wait(job)
    assert view["state"] == "failed"
    assert "outside of what jobs of this service may use" in view["reason"]
    assert "secret_column" not in attached.http.get(f"/v1/jobs/{job}/logs").text


def test_a_long_plan_is_made(attached: Served) -> None:
    """Longer than a message to the nursery, which lives on."""
    spec = small_spec("long-plan", data={"path": "sklearn://iris", "target": "target", "null_tokens": ["x" * 300_000]})
    assert attached.http.post("/v1/plan", json={"spec": spec}).status_code == 200
    assert attached.http.post("/v1/plan", json={"spec": small_spec()}).status_code == 200
