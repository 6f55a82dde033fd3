"""What a run was made by: held against git itself and the metadata of what is installed."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from treadle.jobs.lineage import environment


def git(folder: Path, *command: str) -> str:
    identity = {f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(
        ["git", *command], cwd=folder, capture_output=True, text=True, check=True, env={**os.environ, **identity}
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    git(folder, "init", "-q", "-b", "trunk")
    (folder / "a.py").write_text("1")
    git(folder, "add", "a.py")
    git(folder, "commit", "-qm", "first")
    git(folder, "remote", "add", "origin", "https://me:secret@example.org/a.git")
    return folder


def test_the_commit_is_git_s_own_however_it_is_kept(checkout: Path, tmp_path: Path) -> None:
    def commit(folder: Path) -> str | None:
        found = environment._git_folder(folder)
        assert found is not None
        assert environment._repository(found) == "https://example.org/a.git"
        return environment._commit(found)

    head = git(checkout, "rev-parse", "HEAD")
    assert commit(checkout) == head
    git(checkout, "worktree", "add", "-q", "-b", "side", str(tmp_path / "tree"))
    (tmp_path / "tree" / "b.py").write_text("2")
    git(tmp_path / "tree", "add", "b.py")
    git(tmp_path / "tree", "commit", "-qm", "second")
    assert commit(tmp_path / "tree") == git(tmp_path / "tree", "rev-parse", "HEAD") != head
    git(checkout, "pack-refs", "--all")
    assert commit(checkout) == head
    assert commit(tmp_path / "tree") == git(tmp_path / "tree", "rev-parse", "HEAD")
    git(checkout, "checkout", "-q", "--detach")
    assert commit(checkout) == head


def test_changes_of_tracked_files_make_a_checkout_dirty(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment._dirty(checkout) is False
    (checkout / "untracked.py").write_text("3")
    assert environment._dirty(checkout) is False
    (checkout / "a.py").write_text("other")
    assert environment._dirty(checkout) is True
    monkeypatch.setenv("PATH", str(checkout))
    assert environment._dirty(checkout) is None


def test_no_checkout_is_no_error(tmp_path: Path) -> None:
    assert environment._git_folder(tmp_path) is None
    (tmp_path / ".git").write_text("gitdir: gone\n")
    assert environment._git_folder(tmp_path) is None
    (tmp_path / ".git").unlink()
    (tmp_path / ".git").mkdir()
    assert environment._commit(tmp_path / ".git") is None
    assert environment._repository(tmp_path / ".git") is None


def test_the_digest_goes_by_names_and_content_of_sources_only(tmp_path: Path) -> None:
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "real" / "inner" / "a.py").write_text("1")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "inner").symlink_to("../real/inner")
    before = environment.sources_digest(tmp_path / "package")
    assert environment.sources_digest(tmp_path / "real") == before, "links are what they lead to"
    (tmp_path / "real" / "inner" / "notes.txt").write_text("x")
    (tmp_path / "real" / "inner" / "__pycache__").mkdir()
    (tmp_path / "real" / "inner" / "__pycache__" / "a.py").write_text("x")
    assert environment.sources_digest(tmp_path / "real") == before
    (tmp_path / "real" / "inner" / "a.py").write_text("2")
    changed = environment.sources_digest(tmp_path / "real")
    (tmp_path / "real" / "inner" / "a.py").rename(tmp_path / "real" / "inner" / "b.py")
    assert len({before, changed, environment.sources_digest(tmp_path / "real")}) == 3


def test_every_installed_distribution_has_its_version() -> None:
    expected: dict[str, str] = {}
    for one in importlib.metadata.distributions():
        expected.setdefault(re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower(), one.version)
    assert environment.environment()["distributions"] == expected


TOLD = """
import json, time
from treadle.jobs.lineage.environment import code, environment
started = time.process_time()
found = {"code": code(), "environment": environment()}
print(json.dumps({**found, "seconds": time.process_time() - started}))
"""


def test_only_variables_that_change_numbers_are_kept_and_it_is_quick() -> None:
    import json

    said = {"OMP_NUM_THREADS": "3", "AWS_SECRET_ACCESS_KEY": "hidden", "NUMBA_NUM_THREADS": "2"}
    clean = {name: value for name, value in os.environ.items() if name not in environment.VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", TOLD], capture_output=True, text=True, check=True, env={**clean, **said}
    )
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["environment"]["variables"] == {"OMP_NUM_THREADS": "3", "NUMBA_NUM_THREADS": "2"}
    assert "hidden" not in done.stdout
    assert found["seconds"] < 0.3, "some 30 ms on a machine that does nothing else"


def test_what_differs_is_told_and_nothing_else() -> None:
    now = {"code": environment.code(), "environment": environment.environment()}
    assert environment.differences(now, now) == []
    then = {
        "code": {**now["code"], "sources": "0" * 32, "commit": "a" * 40, "dirty": True},
        "environment": {
            **now["environment"],
            "python": "3.1",
            "distributions": {**now["environment"]["distributions"], "numpy": "1.0", "gone": "2.0"},
            "variables": {"OMP_NUM_THREADS": "64"},
        },
    }
    numpy = importlib.metadata.version("numpy")
    found = environment.differences(then, now)
    assert found[0].endswith("and was treadle 0.1.0 (commit aaaaaaaaaaaa with changes, sources 000000000000)")
    assert found[2:4] == ["gone: absent, and was 2.0", f"numpy: {numpy}, and was 1.0"]
    assert found[1].endswith("and was 3.1")
    assert any(re.fullmatch("OMP_NUM_THREADS: (not set|[0-9]+), and was 64", text) for text in found)
    assert environment.differences({}, now) == [
        "the run did not record its code", "the run did not record its environment"
    ]  # fmt: skip


def test_it_is_told_once_a_process() -> None:
    environment.code()
    started = time.process_time()
    for _ in range(100):
        environment.code()
        environment.environment()
    assert time.process_time() - started < 1.0


def test_the_code_is_that_of_all_folders_and_its_commit_that_of_the_checkout() -> None:
    root = Path(__file__).resolve().parents[3]
    assert environment.code()["sources"] == environment.sources_digest(root / "treadle")
    assert environment.sources_digest(root / "treadle") != environment.sources_digest(root / "jobs")
    if not (root / ".git").exists():
        pytest.skip("this is no checkout")
    assert environment.code()["commit"] == git(root, "rev-parse", "HEAD")
