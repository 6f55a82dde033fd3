"""One library's way to do the work that a benchmark measures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

if TYPE_CHECKING:
    from treadle.benchmarks.models import Case, Trained

REMEDY = "not installed: pip install 'treadle[bench]'"


class Side(ABC):
    """Ours or a peer's way with one trained model. Making one is preparation and is not measured."""

    name: ClassVar[str]
    modules: ClassVar[tuple[str, ...]]
    """What must be installed."""
    libraries: ClassVar[tuple[str, ...]]
    """Whose models it is measured on."""
    whole: ClassVar[bool] = False
    """Whether it prepares the model anew on every call, so that only whole batches show its speed."""

    def __init__(self, model: Any, case: Case) -> None:
        self.model = model
        self.case = case

    @abstractmethod
    def call(self, x: NDArray[Any]) -> Callable[[], Any]:
        """The work on these rows (rows, features) of float32, with the rows in the library's own container."""

    @abstractmethod
    def values(self, result: Any) -> NDArray[Any]:
        """The result of a call as (rows, outputs, features) or (rows, outputs)."""


def installed(module: str) -> bool:
    return find_spec(module) is not None


def left_out(kinds: Sequence[type[Side]]) -> dict[str, str]:
    """The modules that are not installed, and the remedy."""
    return {module: REMEDY for kind in kinds for module in kind.modules if not installed(module)}


def made(kinds: Sequence[type[Side]], models: Trained) -> tuple[dict[str, Side], dict[str, str]]:
    """By name the sides that are installed and take one of the models, and the errors of those that refuse it."""
    sides, errors = {}, {}
    for kind in kinds:
        library = next((name for name in kind.libraries if name in models.models), None)
        if library is None or left_out([kind]):
            continue
        try:
            sides[kind.name] = kind(models.models[library], models.case)
        except Exception as error:
            errors[kind.name] = told(error)
    return sides, errors


def told(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
