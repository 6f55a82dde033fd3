"""A whole job on the CPU and on GPUs of this machine, and what its stages made on both.

XGBoost's models that were trained on both differ in their last digits. So what they are good for is compared as
trained, by metrics; predictions and contributions are held to a bound for one model only.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from treadle.cluster.launch import worker_count
from treadle.cluster.profiles import Local, LocalCuda, is_here
from treadle.engine.column_parity import compare
from treadle.engine.store import Store
from treadle.errors import RequestError
from treadle.jobs.device import gpu_problem, on_device
from treadle.jobs.parity_lines import BOUND, Line
from treadle.jobs.plan import make_plan
from treadle.jobs.registry.sections import Promotion, Tracking
from treadle.jobs.run import Run
from treadle.jobs.runner import execute
from treadle.jobs.spec import JobSpec

if TYPE_CHECKING:
    from treadle.engine.events import Listener
    from treadle.engine.parity import Compared

FEATURES_BOUND = 1e-6
"""Of features, which are float32, as a part of a column's largest value; other tables are to be equal."""
METRIC_BOUND = 1e-3
"""Of metrics of the models as trained, as a part of the metric or of 1 where that is smaller."""
TABLE_OF = {"etl": "etl", "features": "features", "predict": "predictions", "explain": "explanations"}
"""Stage -> the table that it makes."""
VALUES_OF = {"predict": "margins", "explain": "contributions"}
SMOOTH = ("auc", "average_precision", "log_loss", "brier", "rmse", "mae", "r2")
"""Metrics that are judged. Others count rows by their class, and one at the threshold moves them by more."""
EQUAL_RESULTS = ("read", "duplicates", "contract", "split", "folds")
"""Stages of which the manifest has results that may not differ at all."""


def why_not(spec: JobSpec) -> str | None:
    """Why the whole job cannot run on the CPU and on GPUs from here; None where it can."""
    if not is_here(spec.cluster):
        return "the cluster is not of this machine; with cluster.profile: local it would run on this one's GPUs"
    return gpu_problem()


def run_both(spec: JobSpec, root: str, listener: Listener | None) -> tuple[str, Run, Run]:
    """Runs the job on the CPU and on GPUs, each under a root of its own: nothing of one is cached for the other.

    Both have as many workers, on which boosted trees depend. Returns the folder of both roots, relative to `root`.

    Raises
    ------
    RequestError
        A model continues an earlier one, which is under the job's root.
    TreadleError
        A run fails.
    """
    models = () if isinstance(spec.models, str) else spec.models
    if any(getattr(model, "continue_from", None) for model in models):
        raise RequestError("parity: models.continue_from is not covered; leave it out (--set) to compare the rest.")
    place = f"parity/{secrets.token_hex(4)}"
    here = spec.cluster
    assert isinstance(here, Local | LocalCuda)
    workers = worker_count(on_device(here, "cuda"))
    threads = here.threads if isinstance(here, Local) else None
    cpu = Local(workers=workers, threads=threads, memory=here.memory)
    runs = []
    for device, cluster in (("cpu", cpu), ("cuda", here)):
        own = {"device": device, "cluster": cluster, "tracking": Tracking(enabled=False), "promotion": Promotion()}
        plan = make_plan(spec.model_copy(update=own), f"{root.rstrip('/')}/{place}/{device}", fresh=True)
        runs.append(execute(plan, fresh=True, listener=listener))
    return place, runs[0], runs[1]


def forget(root: str, place: str) -> None:
    """Removes what `run_both` made."""
    store = Store(root)
    store.fs.rm(store.path(place), recursive=True)
    store.remove_empty("parity")


def lines_of(cpu: Run, gpu: Run, kernels: Mapping[str, Compared]) -> tuple[Line, ...]:
    """A line for each stage; `kernels` are values of one model, computed on both, by their kind."""
    there = {record["stage"]: record for record in gpu.manifest["stages"]}
    same_model = _model_files(cpu) == _model_files(gpu)
    lines = []
    for record in cpu.manifest["stages"]:
        stage = record["stage"]
        rest = _compared(stage, cpu, gpu, kernels, same_model)
        begin = f"{stage}: "
        fell_back = (text for text in gpu.manifest["fell_back"] if text.startswith(begin))
        line = {"difference": None, **rest, "fell_back": tuple(text.removeprefix(begin) for text in fell_back)}
        lines.append(Line(stage, record["wall_seconds"], there[stage]["wall_seconds"], **line))
    return tuple(lines)


def _compared(stage: str, cpu: Run, gpu: Run, kernels: Mapping[str, Compared], same_model: bool) -> dict[str, Any]:
    """What a line says of the difference."""
    if stage in VALUES_OF:
        return _of_model(stage, cpu, gpu, kernels.get(VALUES_OF[stage]), same_model)
    if stage in TABLE_OF and TABLE_OF[stage] in cpu.tables:
        return _table(stage, cpu, gpu, FEATURES_BOUND if stage == "features" else 0.0)
    if stage in EQUAL_RESULTS and stage in cpu.manifest["results"]:
        here, there = (run.manifest["results"][stage] for run in (cpu, gpu))
        faults = tuple(f"{name}: {here.get(name)} and {there.get(name)}" for name in _differing(here, there))
        return {"difference": 0.0, "bound": 0.0, "said": "results in the manifest", "faults": faults}
    if stage == "evaluate" or stage == "refit" or stage.startswith("train:"):
        return _metrics(stage, cpu, gpu)
    if stage == "publish":
        here, there = ({name: table.rows for name, table in run.tables.items()} for run in (cpu, gpu))
        faults = tuple(
            f"table '{name}': {here.get(name, 'no')} rows and {there.get(name, 'no')}"
            for name in _differing(here, there)
        )
        return {"difference": 0.0, "bound": 0.0, "said": "tables and their rows", "faults": faults}
    if stage == "etl":
        return {"said": "not compared by itself: the features are made from its rows"}
    return {"said": "not compared: what it finds depends on models trained on both"}


def _differing(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    return [name for name in {**here, **there} if here.get(name) != there.get(name)]


def _table(stage: str, cpu: Run, gpu: Run, bound: float) -> dict[str, Any]:
    """The stage's tables, rows matched by id."""
    name = TABLE_OF[stage]
    if name not in gpu.tables:
        return {"said": f"table {name}", "faults": (f"there is no table '{name}' on the device",)}
    columns, faults = compare(cpu.table(name), gpu.table(name), "id")
    faults += [column.fault for column in columns if column.fault]
    faults += [
        f"column '{column.name}': values are up to {column.difference:.1e} of the largest apart"
        for column in columns
        if column.difference > bound
    ]
    return {
        "difference": max((column.difference for column in columns), default=0.0),
        "bound": bound,
        "said": f"{len(columns)} columns of {cpu.table(name).rows:,} rows",
        "faults": tuple(faults),
        "columns": {column.name: column.difference for column in columns if column.difference},
    }


def _of_model(stage: str, cpu: Run, gpu: Run, kernel: Compared | None, same_model: bool) -> dict[str, Any]:
    """Values of one model on both; and the tables, which are held to the bound where both runs have that model."""
    # A class goes by a threshold: of models that differ it may be another in some rows.
    table = _table(stage, cpu, gpu, BOUND if same_model else float("inf"))
    faults = table["faults"] if same_model else tuple(f for f in table["faults"] if "rows are unequal" not in f)
    said = [] if kernel is None else [f"{kernel.values} of {kernel.rows} rows by the same model"]
    judged = [] if kernel is None else [kernel.difference]
    if same_model:
        said.append(table["said"])
        judged.append(table.get("difference", 0.0))
    else:
        said.append(f"by the models as trained up to {table.get('difference', 0.0):.1e} apart")
    return {
        "difference": max(judged, default=None),
        "said": "; ".join(said),
        "faults": faults,
        "columns": table.get("columns", {}),
    }


def _metrics(stage: str, cpu: Run, gpu: Run) -> dict[str, Any]:
    """Metrics of the models as trained: of one, or of all on the leaderboard."""
    here, there = ({row["model"]: row for row in run.manifest["results"]["evaluate"]["rows"]} for run in (cpu, gpu))
    wanted = stage.partition(":")[2]
    titles = [title for title in here if title in there and wanted in ("", title)]
    found = {f"{title} {name}": apart for title in titles for name, apart in _apart(here[title], there[title])}
    judged = {name: apart for name, apart in found.items() if name.rpartition(" ")[2] in SMOOTH}
    faults = [f"{name} differs by {apart:.1e}" for name, apart in judged.items() if apart > METRIC_BOUND]
    faults += [
        f"model {title} is on one leaderboard only" for title in sorted(here.keys() ^ there.keys()) if not wanted
    ]
    return {
        "difference": max(judged.values(), default=0.0),
        "bound": METRIC_BOUND,
        "said": "metrics of the models as trained: " + ", ".join(name for name in SMOOTH if any(
            key.endswith(f" {name}") for key in judged)),
        "faults": tuple(faults),
        "columns": {name: apart for name, apart in found.items() if apart},
    }  # fmt: skip


def _apart(here: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Metric -> how far apart it is; a metric that only one has, or that is no number on one, is infinitely far."""
    from treadle.engine.sections.outputs import COSTS

    for name, value in here.items():
        if name in (*COSTS, "rows_used") or not isinstance(value, float | int):
            continue
        other = there.get(name)
        if value == other or (value != value and other != other):
            yield name, 0.0
        elif other is None or not abs(value - other) < float("inf"):
            yield name, float("inf")
        else:
            yield name, abs(value - other) / max(1.0, abs(value))


def _model_files(run: Run) -> dict[str, bytes]:
    """The files of the best model itself."""
    if run.manifest["model"] is None:
        return {}
    folder = f"models/{run.manifest['model'].replace(':', '/')}"
    found = {}
    for name in run.store.list(folder):
        if name.startswith("model."):
            with run.store.fs.open(run.store.path(f"{folder}/{name}"), "rb") as file:
                found[name] = file.read()
    return found
