"""Better parameters of models: what is tried next, and what is not worth trying on.

A study of Optuna's proposes parameters of each model (TPE), from what came of those before. Trials are made in
rounds, each of so many trials of a model without a fold as keep all workers busy; what is in a round follows from
what came of the rounds before and from the number of workers, never from time. So a run that was interrupted asks
for the same again, and finds what was finished. A model's parameters are measured on a few folds first, and dropped
when they are worse there than the median of those that were measured on all folds.

Sources: Bergstra et al., "Algorithms for hyper-parameter optimization", NIPS 2011 (TPE); Golovin et al., "Google
Vizier: a service for black-box optimization", KDD 2017, section 3.2.1 (the median stopping rule).
"""

from __future__ import annotations

import inspect
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from treadle.engine.job import LOWER_IS_BETTER
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.base import Task
from treadle.engine.models.catalogue import entry_of
from treadle.engine.sections.tune import Dimension
from treadle.engine.trials.base import Terms, Trials
from treadle.engine.trials.outcome import NOT_BEGUN, Outcome

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

State = Literal["running", "complete", "pruned", "failed", "unfinished"]
FIRST_FOLDS = 2
"""Folds that all parameters are measured on."""
MEASURED = 4
"""Parameters of a model that are measured on all folds before any are dropped."""
RANDOM = 10
"""Parameters of a model that are drawn at random, before TPE has something to go by."""
HOPELESS = 5
"""Trials of a model that fail, with none that does not, before it is left alone."""
WAVES = 2
"""Trials in a round for each thread of a worker."""


@dataclass
class Attempt:
    """One model with some parameters."""

    number: int
    """0 is the model as the spec has it."""
    config: ModelConfig
    proposed: Trial | None
    rung: int = 0
    outcomes: list[Outcome] = field(default_factory=list)
    """By fold, without arrays."""
    state: State = "running"
    error: str | None = None

    def values(self, metric: str) -> list[float]:
        """By fold; NaN where there is none."""
        return [outcome.metrics.get(metric, math.nan) for outcome in self.outcomes]

    @property
    def seconds(self) -> float:
        """Of training and predicting, over all folds that it was measured on."""
        return sum(outcome.train_seconds + outcome.predict_seconds for outcome in self.outcomes)


def rungs(folds: int) -> tuple[int, ...]:
    """Numbers of folds after which it is asked whether to go on: 2, half of them, all; `folds` is 2 or more."""
    return tuple(sorted({FIRST_FOLDS, max(FIRST_FOLDS, (folds + 1) // 2), folds}))


def is_hopeless(value: float, others: Sequence[float], lower_is_better: bool) -> bool:
    """Whether a mean over some folds is worse than the median of others' means over the same folds."""
    if len(others) < MEASURED:
        return False
    median = statistics.median(others)
    return value > median if lower_is_better else value < median


class Search:
    """The study of one model."""

    def __init__(
        self,
        config: ModelConfig,
        space: Mapping[str, Dimension],
        metric: str,
        task: Task,
        own: Sequence[Outcome],
        limit: int,
        seed: int,
    ) -> None:
        """`own` are the outcomes of the model as the spec has it, of all folds; so many as `limit` are tried beside."""
        import optuna
        from optuna.samplers import TPESampler

        self.config, self.space, self.metric, self.limit = config, space, metric, limit
        self.lower = metric in LOWER_IS_BETTER
        self.rungs = rungs(len(own))
        self.distributions = {name: distribution_of(dimension) for name, dimension in space.items()}
        sampler = TPESampler(seed=seed, n_startup_trials=RANDOM, multivariate=True, constant_liar=True)
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            self.study = optuna.create_study(sampler=sampler, direction="minimize" if self.lower else "maximize")
        finally:
            optuna.logging.set_verbosity(before)
        first = Attempt(0, config, None, rung=len(self.rungs) - 1)
        self.attempts = [first]
        self.take(first, own)
        point = point_of(config, space, task)
        if first.state == "complete" and point is not None:
            value = statistics.fmean(first.values(metric))
            self.study.add_trial(optuna.trial.create_trial(params=point, distributions=self.distributions, value=value))

    @property
    def asked(self) -> int:
        return len(self.attempts) - 1

    @property
    def seconds(self) -> float:
        """Of a thread, for all that was asked: what is under way counts as the mean of what is not."""
        known = [attempt.seconds for attempt in self.attempts if attempt.state != "running"]
        return sum(known) / len(known) * len(self.attempts)

    @property
    def is_open(self) -> bool:
        """Whether there is more to ask for."""
        states = [attempt.state for attempt in self.attempts]
        return self.asked < self.limit and ("complete" in states or states.count("failed") < HOPELESS)

    def ask(self) -> Attempt:
        """The next parameters to try."""
        trial = self.study.ask(fixed_distributions=self.distributions)
        params: dict[str, Any] = dict(self.config.params)
        for name, dimension in self.space.items():
            value = trial.params[name]
            params[name] = value if dimension.choices is None else dimension.choices[value]
        attempt = Attempt(len(self.attempts), self.config.model_copy(update={"params": params}), trial)
        self.attempts.append(attempt)
        return attempt

    def folds(self, attempt: Attempt) -> range:
        """Those that it is to be measured on next."""
        return range(len(attempt.outcomes), self.rungs[attempt.rung])

    def take(self, attempt: Attempt, outcomes: Sequence[Outcome]) -> None:
        """What came of an attempt on its next folds; decides whether it goes on, and tells the study."""
        from optuna.trial import TrialState

        attempt.outcomes += [replace(outcome, margin=None, score=None) for outcome in outcomes]
        values = attempt.values(self.metric)
        value = statistics.fmean(values)
        attempt.error = next((outcome.error for outcome in attempt.outcomes if outcome.error is not None), None)
        if attempt.error is None and not math.isfinite(value):
            fold = next(i for i, one in enumerate(values) if not math.isfinite(one))
            attempt.error = f"it has no {self.metric} in fold {fold}"
        if attempt.proposed is not None and attempt.error is None:
            attempt.proposed.report(value, len(values))
        if attempt.error is not None:
            attempt.state = "failed"
        elif attempt.rung == len(self.rungs) - 1:
            attempt.state = "complete"
        elif is_hopeless(value, self.means(len(values)), self.lower):
            attempt.state = "pruned"
        else:
            attempt.rung += 1
            return
        if attempt.proposed is not None:
            states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
            self.study.tell(
                attempt.proposed, value if attempt.state == "complete" else None, state=states[attempt.state]
            )

    def means(self, folds: int) -> list[float]:
        """Over the first folds, of all that were measured on every fold."""
        done = [attempt for attempt in self.attempts if attempt.state == "complete"]
        return [statistics.fmean(attempt.values(self.metric)[:folds]) for attempt in done]

    @property
    def best(self) -> Attempt | None:
        """Of those that were measured on all folds; of equally good ones the first."""
        done = [attempt for attempt in self.attempts if attempt.state == "complete"]
        sign = 1.0 if self.lower else -1.0
        return min(done, key=lambda attempt: sign * statistics.fmean(attempt.values(self.metric)), default=None)


def search(searches: Sequence[Search], trials: Trials, end: float | None = None) -> None:
    """Tries parameters of all models until as many are tried as may be, or until `end` on the monotonic clock.

    Without an end, models are tried equally often; with one, they get equal time.

    Raises
    ------
    TreadleError
        The cluster is lost, or the features of a fold cannot be made.
    """
    context = trials.context
    terms = Terms(end=end)
    room = len(context.all_workers()) * context.room.threads * WAVES
    total = sum(one.limit for one in searches)
    active: list[tuple[Search, Attempt]] = []

    def say(done: int, of: int) -> None:
        tried = sum(attempt.state != "running" for one in searches for attempt in one.attempts[1:])
        note = f"{tried}/{total} trials, {done}/{of} folds of those under way{_best(searches)}"
        context.events.emit(context.stage, "progress", done=tried, total=total, note=note)

    while not terms.is_over:
        cells = sum(len(one.folds(attempt)) for one, attempt in active)
        while cells < room and (open_ones := [one for one in searches if one.is_open]):
            least = min(open_ones, key=lambda one: one.asked if end is None else one.seconds)
            active.append((least, least.ask()))
            cells += len(least.folds(active[-1][1]))
        if not active:
            break
        asked = [(attempt.config, one.folds(attempt)) for one, attempt in active]
        for (one, attempt), outcomes in zip(active, trials.run_each(asked, say, terms), strict=True):
            if NOT_BEGUN not in outcomes:
                one.take(attempt, outcomes)
        active = [(one, attempt) for one, attempt in active if attempt.state == "running"]
    for _, attempt in active:
        attempt.state = "unfinished"


def _best(searches: Sequence[Search]) -> str:
    """The best so far of all models, for people who wait."""
    found = [(one, best) for one in searches if (best := one.best) is not None]
    if not found:
        return ""
    sign = 1.0 if found[0][0].lower else -1.0
    one, best = min(found, key=lambda pair: sign * statistics.fmean(pair[1].values(pair[0].metric)))
    value = statistics.fmean(best.values(one.metric))
    return f"; best {one.config.title} with {one.metric} {value:.4f}"


def distribution_of(dimension: Dimension) -> BaseDistribution:
    """Optuna's; of choices it is that of their numbers, so that they may be anything."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension.choices is not None:
        return CategoricalDistribution(range(len(dimension.choices)))
    assert dimension.low is not None
    assert dimension.high is not None
    if dimension.whole:
        return IntDistribution(int(dimension.low), int(dimension.high), log=bool(dimension.log))
    return FloatDistribution(dimension.low, dimension.high, log=bool(dimension.log))


def point_of(config: ModelConfig, space: Mapping[str, Dimension], task: Task) -> dict[str, Any] | None:
    """The model as the spec has it as a point of the space; None when it lies outside, or is not known to lie inside.

    What the spec leaves open is the default of the library's class, where it names one.
    """
    entry = entry_of(config)
    signature = inspect.signature(entry.estimator(task).__init__).parameters
    defaults = {name: one.default for name, one in signature.items()} | dict(entry.defaults)
    point: dict[str, Any] = {}
    for name, dimension in space.items():
        value = config.params.get(name, defaults.get(name))
        if dimension.choices is not None:
            places = [i for i, one in enumerate(dimension.choices) if type(one) is type(value) and one == value]
            if not places:
                return None
            point[name] = places[0]
            continue
        number = isinstance(value, int if dimension.whole else (int, float)) and not isinstance(value, bool)
        assert dimension.low is not None
        assert dimension.high is not None
        if not number or not dimension.low <= value <= dimension.high:  # type: ignore[operator]
            return None
        point[name] = value if dimension.whole else float(value)  # type: ignore[arg-type]
    return point
