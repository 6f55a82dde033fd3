"""What every expectation of the section `contract` is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator
from pydantic_core import PydanticCustomError

from treadle.errors import listed

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

ON_ROWS = ("range", "values", "matches", "sql", "not_null", "unique", "known")


class Expectation(BaseModel):
    """A frozen expectation."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that it looks at."""
        return ()

    @property
    @abstractmethod
    def said(self) -> str:
        """What is expected, in a few words."""

    def check(self, kinds: Mapping[str, str]) -> None:
        """RequestError where its constants do not fit the kinds of its columns, all of which are there."""


class OnInput(Expectation):
    """One that the rows meet or break together."""

    otherwise: Literal["warn", "fail"] = "fail"

    @field_validator("otherwise", mode="before")
    @classmethod
    def _sets_nothing_aside(cls, value: Any) -> Any:
        if value == "quarantine":
            raise PydanticCustomError(
                "quarantine",
                "quarantine sets single rows aside, and this is about all of them together; use warn or fail "
                "(expectations on rows: [{names}])",
                {"names": listed(ON_ROWS)},
            )
        return value


class OnRows(Expectation):
    """One that each row meets or breaks."""

    otherwise: Literal["warn", "quarantine", "fail"] = "fail"


class OnEachRow(OnRows):
    """One that a row meets or breaks by itself."""

    @abstractmethod
    def broken(self, frame: pd.DataFrame) -> np.ndarray:
        """Which rows break it, (rows,) bool."""
