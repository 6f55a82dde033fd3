"""A small spec with every kind of part, and what the tests of reading share."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import strategies as st
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel, field_validator, model_validator
from pydantic_core import PydanticCustomError

from treadle.jobs.loading import SpecError, load


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Filter(Part):
    op: Literal["filter"]
    sql: str
    # A key named as the operation: pydantic's loc holds 'filter' twice.
    filter: int = 0


class Rename(Part):
    op: Literal["rename", "alias"]
    columns: dict[str, str]


class Join(Part):
    op: Literal["join"]
    with_: Other = Field(alias="with")
    how: Literal["left", "inner"] = "left"


class Other(Part):
    path: str


class Model(Part):
    name: str
    params: dict[str, Any] = {}

    @field_validator("name")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value == "forest":
            raise PydanticCustomError("model", "'{value}' is not a model here", {"value": value})
        return value


class Split(Part):
    test_size: float = Field(0.25, gt=0, lt=1, allow_inf_nan=False)
    columns: Literal["numeric", "all"] | list[str] = "all"
    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"


class Device(Enum):
    CPU = "cpu"
    CUDA = "cuda"


def _as_model(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Operation = Annotated[Filter | Rename | Join, Field(discriminator="op")]
type Operations = list[Operation]


class Bounds(RootModel[dict[str, Annotated[int, Field(multiple_of=2)]]]):
    pass


class Spec(Part):
    name: Annotated[str, Field(pattern="^[a-z-]+$", max_length=8)]
    tables: Operations = []
    first: Operation | None = None
    models: list[str | Model] = []
    best: Annotated[Model, BeforeValidator(_as_model)] | None = None
    split: Split | None = None
    device: Device = Device.CPU
    born: str | None = None
    when: datetime.date | None = None
    folds: tuple[int, float] | None = None
    seeds: list[bool] = Field([], min_length=1)
    bounds: Bounds | None = None
    more: dict[Literal["a", "b"], Model | Spec] = {}

    @model_validator(mode="after")
    def _agree(self) -> Spec:
        if self.name == "empty" and not self.models:
            raise ValueError("an empty job has nothing to do")
        return self


VALID = """\
# line 1
name: job
tables:
  - op: filter
    sql: age > 1
    filter: 3
  - op: alias
    columns: {old: new}
  - {op: join, with: {path: x.csv}, how: left}
first:
  op: filter
  sql: "true"
models:
  - linear
  - name: tree
    params:
      depth: 3
best: tree
split:
  test_size: 0.5
  columns: [a, b]
  workers: 2
device: cuda
born: 2025-01-31
seeds: [true]
bounds:
  low: 4
more:
  a:
    name: inner
"""


class Anything(BaseModel):
    model_config = ConfigDict(extra="allow")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)


def nested(leaves: st.SearchStrategy[Any], keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[Any, Any]]:
    """Mappings of mappings, lists and leaves."""
    inner = st.recursive(
        leaves, lambda some: st.lists(some, max_size=4) | st.dictionaries(keys, some, max_size=4), max_leaves=15
    )
    return st.dictionaries(keys, inner, max_size=5)


def problems_of(source: str | Path | Mapping[str, Any], *overrides: str) -> list[str]:
    """The lines of the message but the first."""
    with pytest.raises(SpecError) as caught:
        load(source, Spec, overrides)
    head, *lines = str(caught.value).splitlines()
    count = len(caught.value.problems)
    assert head.endswith(": 1 problem" if count == 1 else f": {count} problems")
    assert len(lines) == count
    return [line.removeprefix("  ") for line in lines]


def assert_read_or_refused(source: Path | dict[Any, Any], overrides: list[str]) -> None:
    """Anything but a SpecError passes through and fails the test."""
    problem = None
    try:
        spec = load(source, Spec, overrides)
    except SpecError as error:
        problem = error
    if problem is None:
        assert isinstance(spec, Spec)
    else:
        assert problem.problems
        assert str(problem).encode()
