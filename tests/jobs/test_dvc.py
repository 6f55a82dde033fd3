"""Jobs as stages of DVC: pointers are those of DVC itself, and what something else wrote stays."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

import treadle
from tests.conftest import people_spec, write_people
from tests.test_docs import blocks
from treadle.jobs.cli import app
from treadle.jobs.dvc.pointers import pointer_of

ROOT = Path(__file__).resolve().parents[2]
FILES: Mapping[str, bytes] = {
    "a-b.txt": b"a-b",
    "a/b.txt": b"x",
    "a.b.txt": b"y",
    "a0": b"z",
    'Ü/é "q".txt': b"\r\n",
    "empty": b"",
    "part=1/_x": b"1" * 5000,
    ".hidden": b"h",
}
FOLDER = ("c1c513d28b2033f53cdbb59ed33fb030.dir", 5009, 8)
"""What `dvc add` of DVC 3.67.1 wrote of a folder with these files."""


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def read(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def test_hashes_are_those_of_dvc(tmp_path: Path) -> None:
    found = pointer_of(write_files(tmp_path / "data", FILES))
    assert (found.md5, found.size, found.files) == FOLDER
    (tmp_path / "crlf.csv").write_bytes(b"a,b\r\n1,2\r\n")
    found = pointer_of(tmp_path / "crlf.csv")
    assert (found.md5, found.size, found.files) == ("b202f333fba4fd38d4b8e5e693077aab", 10, None)
    for skipped in (".git/x", ".dvc/x", "a/.hg/x"):
        write_files(tmp_path / "data", {skipped: b"x"})
    assert pointer_of(tmp_path / "data").md5 == FOLDER[0]


@given(changed=st.sampled_from(sorted(FILES)), content=st.binary(max_size=5))
def test_a_folder_is_known_by_each_of_its_files(
    changed: str, content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = dict(sorted(FILES.items(), reverse=True))
    folder = write_files(tmp_path_factory.mktemp("data"), {**files, changed: content})
    assert (pointer_of(folder).md5 == FOLDER[0]) == (content == FILES[changed])
    (folder / changed).rename(folder / "other")
    assert pointer_of(folder).md5 != FOLDER[0]
    shutil.rmtree(folder)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a spec, its input and Git, as a user has it before the export."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    git("init", "--quiet")
    (folder / "data").mkdir()
    write_people(folder / "data" / "people.parquet", rows=300)
    write_spec(folder)
    return folder


def git(*words: str) -> str:
    who = ["-c", "user.email=a@example.org", "-c", "user.name=a"]
    return subprocess.run(["git", *who, *words], check=True, capture_output=True, text=True).stdout


def write_spec(
    folder: Path, file_name: str = "spec.yaml", scheduler: str = "tcp://127.0.0.1:1", **changes: Any
) -> None:
    spec = people_spec("data/people.parquet", "artifacts", scheduler, **changes)
    with open(folder / file_name, "w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(spec, file)


def export(*words: str, spec: str = "spec.yaml", status: int = 0) -> Result:
    result = CliRunner().invoke(app, ["dvc", "export", spec, *words])
    assert result.exit_code == status, result.output
    return result


def test_a_stage_and_a_pointer(repository: Path) -> None:
    (repository / ".gitignore").write_text("*.tmp")
    told = json.loads(export("--json", "--set", "seed=9").stdout)
    stage = read(repository / "dvc.yaml")["stages"]["people"]
    assert stage == {
        "cmd": [
            "treadle run spec.yaml --root artifacts --set seed=9 --quiet",
            "treadle dvc metrics people --root artifacts --out results/people",
        ],
        "deps": ["data/people.parquet"],
        "params": [{"spec.yaml": None}],
        "outs": [
            {"artifacts/tables/people": {"cache": False, "persist": True}},
            {"artifacts/models/people": {"cache": False, "persist": True}},
        ],
        "metrics": [{"results/people/metrics.json": {"cache": False}}],
        "plots": stage["plots"],
        "meta": {"written_by": "treadle dvc export"},
    }
    assert [next(iter(plot)) for plot in stage["plots"]] == [
        "results/people/leaderboard.json",
        "results/people/importance.json",
    ]
    found = pointer_of(repository / "data" / "people.parquet")
    assert read(repository / "data" / "people.parquet.dvc")["outs"] == [
        {"md5": found.md5, "size": found.size, "hash": "md5", "path": "people.parquet"}
    ]
    assert (repository / ".gitignore").read_text() == "*.tmp\n/artifacts\n"
    assert (repository / "data" / ".gitignore").read_text() == "/people.parquet\n"
    assert told["pointers"] == [str(repository / "data" / "people.parquet.dvc")]
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    assert json.loads(export("--json", "--set", "seed=9").stdout)["kept"] == told["pointers"]
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before


def test_what_changed_is_brought_up_to_date_and_the_rest_stays(repository: Path) -> None:
    (repository / "dvc.yaml").write_text(
        "# mine\nstages:\n  clean:\n    cmd: ./clean  # by hand\n    outs:\n    - made.parquet\n"
    )
    export()
    write_people(repository / "data" / "people.parquet", rows=301)
    write_people(repository / "made.parquet", rows=300)
    other = "artifacts/tables/other/etl"
    (repository / other).mkdir(parents=True)
    joins = [{"op": "union", "with": {"path": path}} for path in ("made.parquet", other)]
    write_spec(repository, "etl.yaml", name="etl", tables=joins, features=[], models=[], split=None, metric=None)
    export()
    export(spec="etl.yaml")
    text = (repository / "dvc.yaml").read_text()
    assert text.startswith("# mine\nstages:\n  clean:\n    cmd: ./clean  # by hand\n")
    stages = read(repository / "dvc.yaml")["stages"]
    assert list(stages) == ["clean", "people", "etl"]
    assert stages["etl"]["deps"] == ["data/people.parquet", "made.parquet", other]
    assert not (repository / "made.parquet.dvc").exists()
    assert not (repository / f"{other}.dvc").exists()
    assert "plots" not in stages["etl"]
    assert [next(iter(out)) for out in stages["etl"]["outs"]] == ["artifacts/tables/etl"]
    pointer = read(repository / "data" / "people.parquet.dvc")
    assert pointer["outs"][0]["md5"] == pointer_of(repository / "data" / "people.parquet").md5


def test_what_something_else_wrote_is_refused(repository: Path) -> None:
    (repository / "dvc.yaml").write_text("stages:\n  people: {cmd: mine}\n")
    pointer = repository / "data" / "people.parquet.dvc"
    pointer.write_text("outs:\n- {md5: 0, size: 1, hash: md5, path: people.parquet}\n")
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    said = export(status=2).stderr
    assert "stage 'people' of" in said
    assert f"{pointer}: not written by `treadle dvc export`, so nothing was changed" in said
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before
    export("--force")
    assert read(pointer)["meta"] == {"written_by": "treadle dvc export"}
    assert read(repository / "dvc.yaml")["stages"]["people"]["deps"] == ["data/people.parquet"]


def test_a_pointer_of_dvc_that_is_right_stays(repository: Path) -> None:
    found = pointer_of(repository / "data" / "people.parquet")
    text = f"outs:\n- md5: {found.md5}\n  size: {found.size}\n  hash: md5\n  path: people.parquet\n"
    (repository / "data" / "people.parquet.dvc").write_text(text)
    assert "as it was" in export().stdout
    assert (repository / "data" / "people.parquet.dvc").read_text() == text


@pytest.mark.parametrize("text", ["stages: [a]", "- a", "a: [", "a: \x01"])
def test_a_file_that_is_not_of_dvc_is_refused(repository: Path, text: str) -> None:
    (repository / "dvc.yaml").write_text(text)
    assert "dvc.yaml" in export(status=2).stderr
    assert (repository / "dvc.yaml").read_text() == text


def test_inputs_of_every_kind(repository: Path, tmp_path: Path) -> None:
    parts = repository / "parts ${x}"
    write_files(parts, {})
    parts.mkdir()
    shutil.copy(repository / "data" / "people.parquet", parts / "1.parquet")
    shutil.copy(repository / "data" / "people.parquet", tmp_path / "outside.parquet")
    shutil.copy(repository / "data" / "people.parquet", repository / "tracked.parquet")
    git("add", "tracked.parquet")
    sides = ["tracked.parquet", str(tmp_path / "outside.parquet"), "s3://bucket/side.parquet", "az://a/b.parquet"]
    joins = [{"op": "union", "with": {"path": path}} for path in sides]
    data = {"path": "parts ${x}/*.parquet", "target": "buys"}
    write_spec(repository, data=data, tables=joins, split={"kind": "path", "path": "data"})
    told = json.loads(export("--json", "--root", str(tmp_path / "elsewhere")).stdout)
    stage = read(repository / "dvc.yaml")["stages"]["people"]
    assert stage["deps"] == [
        "parts \\${x}",
        "data",
        "tracked.parquet",
        str(tmp_path / "outside.parquet"),
        "s3://bucket/side.parquet",
    ]
    assert told["pointers"] == [str(repository / "parts ${x}.dvc"), str(repository / "data.dvc")]
    assert read(repository / "parts ${x}.dvc")["outs"][0]["md5"].endswith(".dir")
    assert "outs" not in stage
    notes = "\n".join(told["notes"])
    for words in (
        "tracked.parquet is tracked by Git",
        "outside.parquet is outside of the repository",
        "s3://bucket/side.parquet is an external dependency",
        "az://a/b.parquet is not followed",
        "elsewhere is outside of the repository: its tables are no outputs",
    ):
        assert words in notes


def test_what_only_dvc_can_tell_is_left_to_it(repository: Path) -> None:
    (repository / ".dvcignore").write_text("# nothing\n\n")
    write_spec(repository, data={"path": "data", "target": "buys"})
    assert json.loads(export("--json").stdout)["notes"] == []
    (repository / "data.dvc").unlink()
    (repository / "data" / ".dvcignore").write_text("*.tmp\n")
    assert "run `dvc add` on it" in json.loads(export("--json").stdout)["notes"][0]
    assert not (repository / "data.dvc").exists()


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> treadle.Run:
    folder = tmp_path_factory.mktemp("metrics")
    people = write_people(folder / "people.parquet", rows=300)
    models = ["logistic_regression", "dummy"]
    return treadle.run(people_spec(people, folder / "artifacts", scheduler, models=models, compare={"folds": 2}))


def metrics(job: str, root: str, out: Path, status: int = 0) -> Result:
    result = CliRunner().invoke(app, ["dvc", "metrics", job, "--root", root, "--out", str(out)])
    assert result.exit_code == status, result.output
    return result


def test_the_numbers_are_those_of_the_newest_run(ran: treadle.Run, tmp_path: Path) -> None:
    root = ran.path("").rstrip("/")
    metrics("people", root, tmp_path / "a")
    metrics("people", root, tmp_path / "b")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "importance.json",
        "leaderboard.json",
        "metrics.json",
    ]
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    found = json.loads((tmp_path / "a" / "metrics.json").read_text())
    evaluation = ran.manifest["results"]["evaluate"]
    assert found["best"] == evaluation["best"]
    assert found["auc"] == evaluation["rows"][0]["auc"]
    assert found["auc_std"] == evaluation["rows"][0]["auc_std"]
    assert found["test"]["auc"] == evaluation["held_out"]["auc"]
    assert found["tables"]["predictions"] == ran.table("predictions").rows
    assert "train_seconds" not in found
    board = json.loads((tmp_path / "a" / "leaderboard.json").read_text())
    assert [(row["model"], row["value"]) for row in board] == list(
        ran.leaderboard[["model", "auc"]].itertuples(index=False, name=None)
    )
    importance = json.loads((tmp_path / "a" / "importance.json").read_text())
    assert {row["feature"]: row["contribution"] for row in importance} == ran.importance
    assert "Did you mean 'people'" in metrics("peopel", root, tmp_path / "c", status=2).stderr


@pytest.mark.slow
def test_the_recipe_with_dvc(repository: Path, scheduler: str) -> None:
    """The commands of docs/dvc.md; then what changes is noticed, and hashes are those of `dvc add`."""
    python = os.environ.get("TREADLE_DVC_PYTHON", sys.executable)
    bin_ = repository.parent / "bin"
    write_files(bin_, {"treadle": f'#!/bin/sh\nexec "{sys.executable}" -m treadle "$@"\n'.encode()})
    (bin_ / "treadle").chmod(0o755)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PYTEST")},
        "PYTHONPATH": str(ROOT),
        "PATH": f"{bin_}{os.pathsep}{Path(python).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org",
        "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.org",
    }  # fmt: skip
    found = subprocess.run([python, "-c", "import dvc"], env=environment, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"DVC is not installed: {found.stderr.strip().splitlines()[-1]}")

    def sh(command: str) -> str:
        done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return str(done.stdout)

    write_spec(repository, scheduler=scheduler)
    page = (ROOT / "docs" / "dvc.md").read_text(encoding="utf-8")
    (recipe,) = [block.text for block in blocks(page) if block.language == "sh"]
    for line in recipe.splitlines():
        sh(line)
    assert "up to date" in sh("dvc status")
    assert sh("git status --porcelain") == ""
    assert "accuracy" in sh("dvc metrics show")
    manifests = list((repository / "artifacts" / "runs").glob("*/manifest.json"))
    assert len(manifests) == 1

    # Ours and DVC's own pointers of the same data, a file and a folder.
    pointer = repository / "data" / "people.parquet.dvc"
    ours = read(pointer)["outs"]
    pointer.unlink()
    write_files(repository / "data" / "folder", FILES)
    sh("dvc add data/people.parquet data/folder")
    assert read(pointer)["outs"] == ours
    folder = pointer_of(repository / "data" / "folder")
    assert read(repository / "data" / "folder.dvc")["outs"] == [folder.out("folder")]

    frame = pd.read_parquet(repository / "data" / "people.parquet")
    frame.iloc[:280].to_parquet(repository / "data" / "people.parquet")
    assert "modified:           data/people.parquet" in sh("dvc status")
    assert "modified: data/people.parquet" in sh("dvc data status")
    sh("treadle dvc export spec.yaml --force && dvc commit data/people.parquet.dvc")
    assert "uncommitted" not in sh("dvc data status")
    sh("dvc repro")
    assert "up to date" in sh("dvc status")
    assert len(list((repository / "artifacts" / "runs").glob("*/manifest.json"))) == 2
    assert "rows.train" in sh("dvc metrics diff")
    # A key that is new is noticed, a comment is not.
    text = (repository / "spec.yaml").read_text()
    (repository / "spec.yaml").write_text(f"# said\n{text}")
    assert "up to date" in sh("dvc status")
    (repository / "spec.yaml").write_text(f"{text}\nseed: 8\n")
    assert "seed" in sh("dvc status")
