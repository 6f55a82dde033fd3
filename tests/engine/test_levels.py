"""Levels: their order, their codes, and the same from JSON and from a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter

from tests.engine.parts import applied, fitted_on
from treadle.engine.encoders import AnyFitted, Levels, Shelf
from treadle.engine.encoders.levels import INLINE
from treadle.engine.store import Store

FITTED: TypeAdapter[Any] = TypeAdapter(AnyFitted)
MANY = INLINE + 1


def frame_of(levels: int) -> pd.DataFrame:
    rng = np.random.default_rng(levels)
    code = np.r_[np.arange(levels), rng.integers(0, levels, 500)]
    return pd.DataFrame(
        {
            "c": pd.Series([f"name {i}" for i in code], dtype="str"),
            "i": pd.array(code * 3, dtype="Int64"),
            "f": code / 4,
            "n": pd.array(np.where(code % 2, code, None), dtype="Int64"),
        }
    )


@pytest.mark.parametrize(
    "section",
    [
        {"op": "ordinal"},
        {"op": "ordinal", "min_count": 2},
        {"op": "frequency", "unseen": "ignore"},
    ],
    ids=["ordinal", "rare", "frequency"],
)
@pytest.mark.parametrize("levels", [5, MANY])
def test_from_files_they_are_the_same(tmp_path: Path, section: dict[str, Any], levels: int) -> None:
    frame = frame_of(levels)
    (fitted,), _, inputs = fitted_on([{**section, "columns": [*frame]}], frame)
    shelf = Shelf(Store(str(tmp_path)), "stages/features-1")
    kept = shelf.keep(fitted, 3)
    document = json.dumps(kept.model_dump(mode="json"))
    files = ["levels-3-levels-0.parquet", "levels-3-levels-1.parquet", "levels-3-levels-2.parquet"] * (levels == MANY)
    assert [part.path.rsplit("/", 1)[1] for part in shelf.parts([kept])] == files
    assert all(shelf.store.has(part) for part in shelf.parts([kept]))
    assert len(document) < 30_000
    (opened,) = shelf.opened([FITTED.validate_json(document)])
    assert opened == fitted
    asked = pd.concat([frame, frame_of(levels + 3)], ignore_index=True)
    pd.testing.assert_frame_equal(applied([opened], inputs, asked), applied([fitted], inputs, asked))
    if files:
        with pytest.raises(TypeError, match="levels-3-levels-0.parquet has to be opened first"):
            applied([kept], inputs, asked)
        assert shelf.opened([kept])[0].levels["c"] is opened.levels["c"]  # type: ignore[attr-defined]


def test_what_target_encoding_holds_out_is_kept_apart(tmp_path: Path) -> None:
    frame = frame_of(MANY).assign(__id__=range(MANY + 500))
    (fitted,), _, inputs = fitted_on([{"op": "target_encode", "columns": ["c"]}], frame[["c", "__id__"]])
    shelf = Shelf(Store(str(tmp_path)), "stages/features-1")
    kept = shelf.keep(fitted, 0)
    assert [part.path.rsplit("/", 1)[1] for part in shelf.parts([kept])] == [
        "levels-0-levels-0.parquet",
        "levels-0-held_out-0.parquet",
    ]
    assert shelf.opened([kept]) == [fitted]
    assert len(shelf.parts([kept.at_prediction()])) == 1  # type: ignore[attr-defined]
    assert inputs == ["c"]


@pytest.mark.parametrize(
    ("levels", "column", "codes"),
    [
        (["a", ""], pd.Series(["", None, "b", "a"], dtype="str"), [1, -1, -2, 0]),
        ([False, True], pd.Series([True, None, False], dtype="boolean"), [1, -1, 0]),
        ([1, 2**60 + 1], pd.Series([2**60 + 1, 2**60, None], dtype="Int64"), [1, -2, -1]),
        ([0.0, 2.5], pd.Series([-0.0, np.nan, 2.5, 1.0]), [0, -1, 1, -2]),
        ([], pd.Series(["a", None], dtype="str"), [-2, -1]),
        (["a"], pd.Series([], dtype="str"), []),
        ([1.0], np.array([1.0, np.nan, 0.0]), [0, -1, -2]),
    ],
    ids=["text", "bool", "int", "float", "no levels", "no rows", "array"],
)
def test_codes(levels: list[Any], column: Any, codes: list[int]) -> None:
    for known in (Levels(levels), Levels.of(json.loads(json.dumps(Levels(levels).document())))):
        found = known.codes(column)
        assert found.dtype == np.int32
        assert found.tolist() == codes


def test_what_they_are_worth_stands_beside_them() -> None:
    levels = Levels(["a", "b"], np.array([[1.0, 2.0, 0.5, 0.25]]))
    assert levels.document() == {"levels": ["a", "b"], "worth": [[1.0, 2.0, 0.5, 0.25]]}
    assert Levels.of(levels.document()) == levels == Levels.of_table(levels.table())
    assert levels != Levels(["a", "b"])
    assert levels != Levels(["a", "b"], np.array([[1.0, 2.0, 0.5, 0.0]]))
    assert levels.worth is not None
    codes = levels.codes(pd.Series(["b", None, "z"], dtype="str"))
    assert levels.worth[0][codes].tolist() == [2.0, 0.25, 0.5]
    with pytest.raises(ValueError, match="levels are a list, or an object with levels and worth"):
        Levels.of({"levels": ["a"]})
