"""Trained models of other libraries as compiled forests, one module a library."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UnsupportedModel
from treadle.kernels.forest import Forest, Tree, build_forest

_LIBRARIES = ("xgboost", "lightgbm", "sklearn", "catboost", "treelite")


def read_model(model: Any) -> Forest:
    """The compiled forest of a trained model; see `treadle.kernels.forest.compile_forest`.

    The library is told from the names of the model's classes, so that none is imported that the
    caller has not imported. Whatever hands out a treelite model is read through that (cuML).

    Raises
    ------
    UnsupportedModel
        The model is not fitted, or is of a kind that has no such form; says which and why.
    """
    if hasattr(model, "as_treelite") or hasattr(model, "convert_to_treelite_model"):
        return _reader("treelite").read(model)
    # An early class is a later one's child: XGBClassifier comes before the scikit-learn classes it derives from.
    for kind in type(model).__mro__:
        library = kind.__module__.partition(".")[0]
        if library in _LIBRARIES:
            return _reader(library).read(model)
    raise unsupported(model, f"it is no tree model of {', '.join(_LIBRARIES)} or cuml", "Pass the fitted tree model.")


def _reader(library: str) -> Any:
    return importlib.import_module(f"treadle.kernels.importers.{library}")


def unsupported(model: Any, reason: str, remedy: str = "Use the library's own explainer for it.") -> UnsupportedModel:
    """The one spelling of a refusal."""
    kind = type(model)
    library = kind.__module__.partition(".")[0]
    message = f"A {library}.{kind.__name__} cannot be compiled to a forest: {reason}. {remedy}"
    return UnsupportedModel(message, reason)


def compiled(model: Any, trees: Sequence[Tree], **layout: Any) -> Forest:
    """`build_forest`, with what it objects to said as a refusal of `model`."""
    try:
        return build_forest(trees, **layout)
    except ValueError as error:
        raise unsupported(model, str(error)) from error


def bits_of(words: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """A bit set, lowest bit of the first word first, up to its last member; at least one entry."""
    bits = np.unpackbits(np.ascontiguousarray(words, dtype="<u4").view(np.uint8), bitorder="little").astype(bool)
    members = np.flatnonzero(bits)
    return bits[: members[-1] + 1 if len(members) else 1]
