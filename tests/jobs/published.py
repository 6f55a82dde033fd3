"""A published run, and the command line as a user meets it when something is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from typer.testing import CliRunner

import treadle
from tests.conftest import people_spec, write_people
from treadle.engine import delta
from treadle.jobs.cli import app
from treadle.jobs.run import Run

SIMPLE: dict[str, Any] = {"tables": [{"op": "select", "columns": ["age", "buys"]}], "features": []}
"""One number and the target: nothing to encode."""


@dataclass
class Published:
    """The job `people`, run once, and what it published then."""

    folder: Path
    scheduler: str
    people: Path = field(init=False)
    raw: pd.DataFrame = field(init=False)
    run: Run = field(init=False)
    before: dict[str, pa.Table] = field(init=False)

    def __post_init__(self) -> None:
        self.people = write_people(self.folder / "people.parquet", rows=300)
        self.raw = pd.read_parquet(self.people)
        self.run = treadle.run(self.spec(explain={"rows": "all"}))
        self.before = {name: table.to_arrow() for name, table in self.run.tables.items()}

    @property
    def root(self) -> str:
        return str(self.folder / "artifacts")

    def spec(self, **changes: Any) -> dict[str, Any]:
        """The quick spec on `people`, with some sections changed."""
        return people_spec(self.people, self.root, self.scheduler, **changes)

    def data(self, **changes: Any) -> dict[str, Any]:
        """The section `data` of the quick spec, with some keys changed; a frame becomes a file."""
        path = changes.get("path")
        if isinstance(path, pd.DataFrame):
            changes["path"] = self.file("changed.parquet", path)
        return {**self.spec()["data"], **changes}

    def file(self, name: str, content: pd.DataFrame | bytes | str) -> str:
        """A file in the folder, as Parquet, or CSV where it is called so."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        if isinstance(content, pd.DataFrame):
            _ = content.to_csv(path, index=False) if path.suffix == ".csv" else content.to_parquet(path)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content, encoding="utf-8")
        return str(path)

    def refuses(self, status: int, words: str, *options: str, **changes: Any) -> str:
        """`treadle run` of the spec with `changes` ends so; returns what it said."""
        spec = self.file("bad.json", json.dumps(self.spec(**changes)))
        return self.fails(status, words, "run", spec, "--quiet", *options)

    def fails(self, status: int, words: str, *command: str) -> str:
        """A command ends with one message on stderr and an exit status, and what was published stays."""
        result = CliRunner().invoke(app, list(command))
        assert result.exit_code == status, f"{result.exit_code}: {result.output}"
        assert re.search(words, result.stderr), result.stderr
        assert result.stderr.startswith("treadle: "), result.stderr
        assert "Traceback" not in result.stderr
        assert "bug in Treadle" not in result.stderr
        assert result.stdout == ""
        self.is_intact()
        return result.stderr

    def is_intact(self) -> None:
        """The tables hold what they held, at the version that is still the newest; the model loads."""
        for name, before in self.before.items():
            table = self.run.table(name)
            assert delta.open_table(self.run._store.fs, table.path).version() == table.version
            assert table.to_arrow().equals(before)
        assert treadle.load_model("people", root=self.root).reference == self.run.model.reference


Changes = dict[str, Any] | Callable[[Published], dict[str, Any]]
"""Sections of a spec in place of those of the quick spec."""
NO_TIMES = {"op": "drop", "columns": ["joined", "member"]}
CITY = {"op": "one_hot", "columns": ["city"]}
INCOME: dict[str, Any] = {
    "data": {"target": "income"},
    "tables": [{"op": "select", "columns": ["income", "age"]}],
    "features": [],
    "split": None,
    "metric": None,
}
"""A job for numbers."""
CITIES: dict[str, Any] = {
    **INCOME,
    "data": {"target": "city"},
    "tables": [{"op": "select", "columns": ["city", "age"]}],
}
"""A job for four classes."""


def case(name: str, words: str, changes: Changes) -> Any:
    """A parameter set: what is changed, and what the message says (a pattern)."""
    return pytest.param(changes, words, id=name)


def changed(changes: Changes, people: Published) -> dict[str, Any]:
    """The sections; the input is that of the job unless they name another."""
    sections = changes(people) if callable(changes) else changes
    data = {"path": str(people.people), **sections["data"]} if "data" in sections else people.data()
    return {**sections, "data": data}


def table(**operation: Any) -> dict[str, Any]:
    """A spec whose only relational operation this is."""
    return {"tables": [operation]}


def feature(**operation: Any) -> dict[str, Any]:
    """A spec whose only feature operation this is."""
    return {"features": [operation]}


def join(side: pd.DataFrame | str, on: str = "city") -> Callable[[Published], dict[str, Any]]:
    """A spec that joins a frame, or a file, and does nothing else."""

    def sections(people: Published) -> dict[str, Any]:
        path = people.file("side.parquet", side) if isinstance(side, pd.DataFrame) else str(people.folder / side)
        return table(op="join", on=[on], **{"with": {"path": path}})

    return sections
