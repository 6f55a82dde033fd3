"""Gates: what a version must meet to be promoted, measured. None raises: what cannot be measured is not met."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from treadle.engine.bundle import Bundle, load_bundle
from treadle.engine.job import LOWER_IS_BETTER
from treadle.engine.skew import Sample
from treadle.engine.store import Store
from treadle.errors import DataError, TreadleError, listed
from treadle.jobs.registry.comparing import metrics, rows_of_test
from treadle.jobs.registry.sections import AnyGate, Bound, Calibration, Fairness, Latency, NotWorse

if TYPE_CHECKING:
    import pandas as pd

LATENCY_ROWS = 1000
"""Test rows that latency is measured on where a bundle has no sample."""
WARM_UP = 3


@dataclass(frozen=True)
class Verdict:
    """What became of a gate."""

    gate: str
    """Where it stands in the spec, and its kind."""
    passed: bool
    measured: str
    """The value, in words."""
    limit: str
    remedy: str = ""
    """What to do where it is not met."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """What was measured, as numbers."""

    def described(self) -> dict[str, Any]:
        return {
            "gate": self.gate,
            "passed": self.passed,
            "measured": self.measured,
            "limit": self.limit,
            "values": dict(self.values),
            **({} if self.passed else {"remedy": self.remedy}),
        }


type Measured = tuple[bool, str, str, Mapping[str, Any]]
"""Whether a gate is met, the value in words, what to do where it is not, and the numbers."""


class NotMeasured(TreadleError):
    """Why a gate's value is not known, and in `remedy` what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass
class Candidate:
    """A version that is to be promoted, and what there is to measure it by."""

    store: Store
    bundle: Bundle
    manifest: Mapping[str, Any]
    """Of the run that made it."""
    aliases: Mapping[str, int]
    """Alias -> version of the same model, as they are now."""

    @property
    def evaluation(self) -> Mapping[str, Any]:
        return dict(self.manifest["results"].get("evaluate") or {})

    def metric(self, asked: str | None) -> str:
        return asked or str(self.evaluation["metric"])

    def judge(self, gates: Sequence[AnyGate], alias: str) -> list[Verdict]:
        """The verdicts of the gates that guard an alias, in their order."""
        found = []
        for i, gate in enumerate(gates):
            if gate.aliases is not None and alias not in gate.aliases:
                continue
            name = f"promotion.gates.{i} ({gate.gate})"
            try:
                passed, measured, remedy, values = self._measured(gate)
                found.append(Verdict(name, passed, measured, _limit(gate), remedy, values))
            except TreadleError as error:
                remedy = error.remedy if isinstance(error, NotMeasured) else "mend that, or promote with --force"
                found.append(Verdict(name, False, f"not measured: {error}", _limit(gate), remedy))
        return found

    def _measured(self, gate: AnyGate) -> Measured:
        if isinstance(gate, NotWorse):
            return self._not_worse(gate)
        if isinstance(gate, Bound):
            return self._bound(gate)
        if isinstance(gate, Fairness):
            return self._fairness(gate)
        return self._calibration(gate) if isinstance(gate, Calibration) else self._latency(gate)

    def _not_worse(self, gate: NotWorse) -> Measured:
        metric = self.metric(gate.metric)
        number = self.aliases.get(gate.than)
        document = self.bundle.document
        if number is None:
            return True, f"no version is '{gate.than}' yet", "", {}
        if number == document.version:
            return True, f"{self.bundle.reference} is '{gate.than}' itself", "", {}
        other = load_bundle(self.store, document.name, number)
        if (other.document.task, other.document.target) != (document.task, document.target):
            raise NotMeasured(
                f"{other.reference} predicts something else ({other.document.task} of '{other.document.target}')",
                "give models of different targets different job names",
            )
        try:
            rows = rows_of_test(self.store, self.bundle, other, gate.rows)
            (ours, theirs), count = metrics([self.bundle, other], rows)
        except DataError as error:
            raise NotMeasured(str(error), "mend that, or compare by hand and promote with --force") from error
        for reference, found in ((self.bundle.reference, ours), (other.reference, theirs)):
            if metric not in found:
                raise NotMeasured(f"{reference} has no {metric}", f"use one of [{listed(found)}]")
        sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
        passed = sign * (ours[metric] - theirs[metric]) >= -gate.tolerance
        measured = (
            f"{metric} is {ours[metric]:.6g}, and that of {other.reference} {theirs[metric]:.6g}, on the same {count} "
            f"of {rows.test_rows} test rows"
        )
        remedy = "train a better model, or raise the tolerance"
        values = {
            "metric": metric, "value": ours[metric], "other": theirs[metric], "than": other.reference, "rows": count,
            "test_rows": rows.test_rows,
        }  # fmt: skip
        return passed, measured, remedy, values

    def _bound(self, gate: Bound) -> Measured:
        metric, found = self.metric(gate.metric), self.bundle.document.metrics
        place = f"test_{metric}" if f"test_{metric}" in found else metric
        if place not in found:
            raise NotMeasured(f"the run has no {metric}", f"use one of [{listed(found)}]")
        value = float(found[place])
        passed = (gate.min is None or value >= gate.min) and (gate.max is None or value <= gate.max)
        return passed, f"{metric} is {value:.6g}", "train a better model", {"metric": metric, "value": value}

    def _fairness(self, gate: Fairness) -> Measured:
        groups = self.evaluation.get("groups") or {}
        if gate.column not in groups:
            raise NotMeasured(
                f"the run measured no rates by '{gate.column}'; it has those by [{listed(groups)}]",
                f"name '{gate.column}' in data.protected of a job for two classes with test rows, and run it again",
            )
        every = groups[gate.column]
        rates = {
            value: rate[gate.rate]
            for value, rate in every.items()
            if rate["n"] >= gate.min_rows and rate[gate.rate] is not None
        }
        if len(rates) < 2:
            raise NotMeasured(
                f"fewer than two values of '{gate.column}' have {gate.min_rows} test rows and a {gate.rate}",
                "test by more rows, or lower min_rows",
            )
        low, high = min(rates, key=rates.__getitem__), max(rates, key=rates.__getitem__)
        difference = rates[high] - rates[low]
        left_out = f"; {len(every) - len(rates)} smaller groups are left out" if len(every) > len(rates) else ""
        measured = (
            f"{gate.rate} by '{gate.column}' is from {rates[low]:.4g} ({low}) to {rates[high]:.4g} ({high}), a "
            f"difference of {difference:.4g}{left_out}"
        )
        remedy = "look at the features that tell the groups apart, at data.weights and at decision.threshold"
        return difference <= gate.max_difference, measured, remedy, {"difference": difference, "rates": rates}

    def _calibration(self, gate: Calibration) -> Measured:
        curves = self.evaluation.get("calibration") or {}
        bins = curves.get(self.evaluation.get("best"))
        rows = sum(int(one["count"]) for one in bins or ())
        if not bins or not rows:
            raise NotMeasured(
                "the run has no calibration of it: it is not for two classes, its model has no probabilities, or no "
                "row was held back",
                "leave the gate out for such models",
            )
        error = sum(one["count"] * abs(one["positive_rate"] - one["mean_score"]) / rows for one in bins if one["count"])
        measured = f"the expected calibration error is {error:.4g} on {rows} test rows"
        remedy = "calibrate the model: decision: {calibrate: isotonic} in the spec"
        return error <= gate.max_error, measured, remedy, {"error": error, "rows": rows}

    def _latency(self, gate: Latency) -> Measured:
        import numpy as np

        raw = self._some_rows()
        taken = np.arange(gate.batch * (gate.calls + WARM_UP)) % len(raw)
        seconds = []
        for call in range(gate.calls + WARM_UP):
            frame = raw.iloc[taken[call * gate.batch : (call + 1) * gate.batch]]
            started = time.perf_counter()
            self.bundle.predict(frame)
            seconds.append(time.perf_counter() - started)
        p50, p95 = (float(value) * 1000 for value in np.percentile(seconds[WARM_UP:], [50, 95]))
        passed = (gate.p50_ms is None or p50 <= gate.p50_ms) and (gate.p95_ms is None or p95 <= gate.p95_ms)
        said = f"{gate.batch} row{'s' * (gate.batch > 1)}"
        measured = f"a prediction of {said} takes {p50:.3g} ms at the median, {p95:.3g} ms at the 95th percentile"
        values = {"p50_ms": p50, "p95_ms": p95, "batch": gate.batch, "calls": gate.calls}
        return passed, measured, "train a smaller model, or measure on a machine that is idle", values

    def _some_rows(self) -> pd.DataFrame:
        """Raw rows: those of the sample, else test rows."""
        d = self.bundle.document
        if d.sample is not None and d.sample.rows:
            sample = Sample.read(self.store, self.bundle.folder, list(d.inputs), d.features, self.bundle.model.outputs)
            return self.bundle.program.backend.frame(sample.rows)
        return rows_of_test(self.store, self.bundle, None, LATENCY_ROWS).frame[list(d.inputs)]


def _limit(gate: AnyGate) -> str:
    """What is asked for, in words."""
    if isinstance(gate, NotWorse):
        slack = f", or by {gate.tolerance:g} at most" if gate.tolerance else ""
        return f"not worse than that of '{gate.than}'{slack}"
    if isinstance(gate, Bound):
        bounds = [("at least", gate.min), ("at most", gate.max)]
        return " and ".join(f"{word} {value:g}" for word, value in bounds if value is not None)
    if isinstance(gate, Fairness):
        return f"a difference of at most {gate.max_difference:g}"
    if isinstance(gate, Calibration):
        return f"at most {gate.max_error:g}"
    limits = [("median", gate.p50_ms), ("95th percentile", gate.p95_ms)]
    return " and ".join(f"{word} of at most {value:g} ms" for word, value in limits if value is not None)
