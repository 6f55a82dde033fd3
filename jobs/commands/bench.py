"""The commands `treadle bench ...`."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from treadle.jobs.commands.options import Debug, Json, messages, whole

bench = typer.Typer(help="Measure Treadle beside other libraries.", no_args_is_help=True, rich_markup_mode=None)

Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="TEXT", help="Only models whose name contains TEXT; may be given several times."),
]
Repeats = Annotated[int, typer.Option(min=1, help="Turns, of which medians are taken.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="Write the result as JSON; else a checkout's results/, if all ran."),
]


@bench.command("treeshap")
def bench_treeshap(
    model: Models = None, repeats: Repeats = 3, out: Out = None, as_json: Json = False, debug: Debug = False
) -> None:
    """Contributions, beside XGBoost, LightGBM, shap and woodelf."""
    with messages(debug, as_json):
        from treadle.benchmarks.treeshap import BENCHMARK

        _measured(BENCHMARK.run(model or (), repeats, out, _say(as_json)), as_json)


@bench.command("predict")
def bench_predict(
    model: Models = None, repeats: Repeats = 3, out: Out = None, as_json: Json = False, debug: Debug = False
) -> None:
    """Margins, beside XGBoost, LightGBM, treelite and scikit-learn."""
    with messages(debug, as_json):
        from treadle.benchmarks.predict import BENCHMARK

        _measured(BENCHMARK.run(model or (), repeats, out, _say(as_json)), as_json)


@bench.command("fraud")
def bench_fraud(
    rows: Annotated[str, typer.Option(help="Number of rows, e.g. 1e6.")] = "1e6",
    repeats: Repeats = 3,
    data: Annotated[Path | None, typer.Option(help="Folder of make-data transactions; else made anew.")] = None,
    out: Out = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """A whole job, beside Polars and XGBoost by hand."""
    with messages(debug, as_json):
        from treadle.benchmarks import fraud

        _measured(fraud.run(whole(rows), repeats, data, out, _say(as_json)), as_json)


@bench.command("etl")
def bench_etl(
    rows: Annotated[str, typer.Option(help="Number of rows, e.g. 1e6.")] = "1e6",
    repeats: Repeats = 3,
    data: Annotated[Path | None, typer.Option(help="Folder of make-data transactions; else made anew.")] = None,
    memory: Annotated[str | None, typer.Option(help="Limit of each worker, e.g. 2GB.")] = None,
    peer: Annotated[list[str] | None, typer.Option(help="polars, duckdb or dask; all when absent.")] = None,
    out: Out = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Raw transactions to features, beside Polars, DuckDB and plain Dask."""
    with messages(debug, as_json):
        from treadle.benchmarks import etl

        peers = etl.PEERS if peer is None else peer
        _measured(etl.run(whole(rows), repeats, data, memory, peers, out, _say(as_json)), as_json)


@bench.command("leaderboard")
def bench_leaderboard(
    data_set: Annotated[str, typer.Option(help="diabetes, adult or all.")] = "all",
    data: Annotated[Path | None, typer.Option(help="Folder that has them; else scikit-learn's own stands in.")] = None,
    repeats: Repeats = 3,
    folds: Annotated[int, typer.Option(min=2, help="Folds of the training rows.")] = 10,
    models: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this model; may be given several times.")
    ] = None,
    peer: Annotated[list[str] | None, typer.Option(help="sklearn or pycaret; what is there when absent.")] = None,
    pycaret_python: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Interpreter of an environment that has PyCaret.")
    ] = None,
    out: Out = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fifteen classifiers by folds, beside a plain scikit-learn loop and PyCaret."""
    with messages(debug, as_json):
        from treadle.benchmarks import leaderboard

        peers = peer or (leaderboard.PEERS if pycaret_python else leaderboard.PEERS[:1])
        for name in leaderboard.data_sets(data_set, data, out):
            result = leaderboard.run(
                name, repeats, data, models or (), peers, pycaret_python, out, _say(as_json), folds
            )
            _measured(result, as_json)


@bench.command("auto")
def bench_auto(
    data: Annotated[Path, typer.Option(help="Folder that has the data set.", show_default=False)],
    data_set: Annotated[str, typer.Option(help="adult or housing.")] = "adult",
    budget: Annotated[str, typer.Option(help="As of treadle auto.")] = "5m",
    tuned: Annotated[int, typer.Option(min=1, help="Models that the search without a budget tunes.")] = 4,
    trials: Annotated[int, typer.Option(min=1, help="Trials of each of them.")] = 50,
    workers: Annotated[int | None, typer.Option(min=1, help="Local worker processes.")] = None,
    out: Out = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """A search within a budget, beside one without."""
    with messages(debug, as_json):
        from treadle.benchmarks import auto

        _measured(auto.run(data_set, budget, data, tuned, trials, workers, out, _say(as_json)), as_json)


@bench.command("versions")
def bench_versions(
    files: Annotated[int, typer.Option(min=1, help="Files of a commit.")] = 1000,
    versions: Annotated[int, typer.Option(min=1, help="Versions of a table that is opened.")] = 1000,
    rows: Annotated[str, typer.Option(help="Rows of the job, e.g. 1e6.")] = "1e6",
    repeats: Repeats = 3,
    out: Out = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Commits, tables with many versions, manifests, and jobs that are cached."""
    with messages(debug, as_json):
        from treadle.benchmarks import versions as measured

        _measured(measured.run(files, versions, whole(rows), repeats, out, _say(as_json)), as_json)


@bench.command("exact")
def bench_exact(
    rows: Annotated[str, typer.Option(help="Number of rows, e.g. 1e7.")] = "1e6",
    fitting: Annotated[str, typer.Option(help="Training rows of scikit-learn, at most.")] = "1e6",
    data: Annotated[Path | None, typer.Option(help="Folder of make-data transactions; else made anew.")] = None,
    memory: Annotated[str | None, typer.Option(help="Limit of each worker, e.g. 2GB.")] = None,
    out: Out = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Models that are solved from sums over rows, beside scikit-learn's."""
    with messages(debug, as_json):
        from treadle.benchmarks import exact

        _measured(exact.run(whole(rows), whole(fitting), data, memory, out, _say(as_json)), as_json)


@bench.command("service")
def bench_service(
    table: Annotated[int, typer.Option(min=1, help="Jobs in the table while submissions are timed.")] = 1000,
    submissions: Annotated[int, typer.Option(min=2, help="Submissions that are timed.")] = 200,
    burst: Annotated[int, typer.Option(min=2, help="Jobs at once, all of which succeed.")] = 50,
    many: Annotated[int, typer.Option(min=10, help="Jobs at once, some of which must not succeed.")] = 200,
    workers: Annotated[int, typer.Option(min=1, help="Local worker processes.")] = 2,
    max_running: Annotated[int, typer.Option(min=1, help="As of treadle up.")] = 2,
    peer_python: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Interpreter of an environment that has ray[default] and psutil."),
    ] = None,
    out: Out = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """The job service: submissions, many jobs, memory, a kill; beside Ray Jobs."""
    with messages(debug, as_json):
        from treadle.benchmarks import service

        result = service.run(table, submissions, burst, many, workers, max_running, peer_python, out, _say(as_json))
        _measured(result, as_json)


@bench.command("gpu")
def bench_gpu(
    model: Models = None,
    minutes: Annotated[float, typer.Option(min=1.0, help="Time for all of it.")] = 8.0,
    rows: Annotated[str, typer.Option(help="Number of rows of the job, e.g. 1e7.")] = "1e6",
    out: Out = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """All that only a GPU can show: the kernels' tests, and their speed beside XGBoost's CUDA code."""
    with messages(debug, as_json):
        from treadle.benchmarks import gpu_check

        result = gpu_check.run(minutes, tuple(model or ()), whole(rows), out, _say(as_json))
        _measured(result, as_json)
    if not result["right"]:
        raise typer.Exit(1)


def _say(as_json: bool) -> Callable[[str], None]:
    return (lambda _: None) if as_json else functools.partial(print, flush=True)


def _measured(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
