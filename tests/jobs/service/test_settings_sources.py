"""Where the settings of a service come from, and which goes first."""

from __future__ import annotations

from pathlib import Path

import pytest

from treadle.jobs.service.settings import load_settings


def test_the_database_comes_from_the_command_line_then_the_environment_then_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TREADLE_DATABASE", raising=False)
    assert load_settings(tmp_path, {}).database is None
    (tmp_path / "service.yaml").write_text("database: sqlite:////file.db\nretries: 1\n", encoding="utf-8")
    assert load_settings(tmp_path, {}).database == "sqlite:////file.db"
    monkeypatch.setenv("TREADLE_DATABASE", "postgresql://user:secret@host/jobs")
    assert load_settings(tmp_path, {}).database == "postgresql://user:secret@host/jobs"
    assert load_settings(tmp_path, {}).retries == 1
    assert load_settings(tmp_path, {"database": "sqlite:////given.db"}).database == "sqlite:////given.db"


def test_an_empty_variable_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREADLE_DATABASE", "")
    assert load_settings(tmp_path, {}).database is None
