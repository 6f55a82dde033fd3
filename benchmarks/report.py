"""A benchmark over models, from the command line to a JSON file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from treadle.benchmarks.machine import described
from treadle.benchmarks.models import CASES, Trained, chosen, trained
from treadle.benchmarks.sides import Side, left_out
from treadle.benchmarks.timing import threads
from treadle.errors import StorageError

FOLDER = Path(__file__).resolve().parent
LIBRARIES = (
    "treadle",
    "numba",
    "llvmlite",
    "numpy",
    "xgboost",
    "lightgbm",
    "scikit-learn",
    "shap",
    "treelite",
    "woodelf-explainer",
)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Benchmark:
    """What is measured of every model of `treadle.benchmarks.models`, and how it is shown."""

    name: str
    sides: tuple[type[Side], ...]
    setting: dict[str, Any]
    """What else a result says about how it was measured."""
    measured: Callable[[Trained, int], dict[str, Any]]
    """A model's part of the result; its key "errors" has the sides that failed, with the reason."""
    lines: Callable[[dict[str, Any]], list[str]]
    """The lines of a model in the table."""
    header: str

    def run(self, texts: Sequence[str], repeats: int, out: Path | None, say: Say) -> dict[str, Any]:
        """Measures the models whose name contains one of the texts, or all; writes and returns the result.

        Raises
        ------
        RequestError
            No model's name contains a text.
        StorageError
            The result cannot be written.
        """
        from treadle.kernels.warmup import warm_up

        cases = chosen(texts)
        result: dict[str, Any] = {
            "benchmark": self.name,
            "repeats": repeats,
            **self.setting,
            **described(LIBRARIES),
            "left_out": left_out(self.sides),
        }
        for module, why in result["left_out"].items():
            say(f"{module} is left out; {why}")
        result["kernels_loaded_seconds"] = warm_up()
        say(f"kernels loaded in {result['kernels_loaded_seconds']:.1f} s\n{self.header}")
        result["models"] = []
        # Libraries warn about what is meant so, such as rows without names.
        with warnings.catch_warnings(), threads(1):
            warnings.simplefilter("ignore")
            for case in cases:
                models = trained(case)
                found = {"model": case.name, "case": asdict(case), **self.measured(models, repeats)}
                result["models"].append(found)
                for line in self.lines(found):
                    say(line)
                for name, why in found["errors"].items():
                    say(f"  {name} failed: {why}")
        written(result, f"{self.name}-cpu", out, whole=len(cases) == len(CASES), say=say)
        return result


def written(result: dict[str, Any], name: str, out: Path | None, whole: bool, say: Say) -> None:
    """Writes a result to `out`; else a whole one to the checkout's results, when this is run in a checkout.

    Raises
    ------
    StorageError
        The file cannot be written.
    """
    in_checkout = (FOLDER.parent / "pyproject.toml").is_file() and Path.cwd().is_relative_to(FOLDER.parent)
    if out is None and whole and in_checkout:
        out = FOLDER / "results" / f"{name}.json"
    if out is None:
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"The result cannot be written to {out}: {error}; name another file by --out.") from error
    say(f"written to {out}")


def ratio(figures: dict[str, dict[str, float]], other: str, clock: str, ours: str = "treadle") -> float | None:
    """How many times as fast as the other ours is, by the row; None when one of them has no figure."""
    if not {ours, other} <= figures.keys():
        return None
    mine, theirs = figures[ours], figures[other]
    return (theirs[clock] / theirs.get("rows", 1)) / (mine[clock] / mine.get("rows", 1))


def shown(value: float | None, width: int) -> str:
    """A ratio in so many columns."""
    text = "-" if value is None else format(value, ".0f" if value >= 100 else ".1f" if value >= 1 else ".2f")
    return f"{text:>{width}}"
