"""Batch prediction: files of raw rows in, tables of predictions out, by a published model."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from treadle.cluster.launch import open_cluster
from treadle.cluster.profiles import Local
from treadle.engine import text_input
from treadle.engine.artifacts import Piece
from treadle.engine.backend import conform
from treadle.engine.bundle import Bundle, load_bundle
from treadle.engine.document import Part
from treadle.engine.events import Listener
from treadle.engine.inputs import InputFile, cut, partition_count, row_bytes
from treadle.engine.program import Program
from treadle.engine.readers.options import TextOptions
from treadle.engine.store import Store, storage_errors
from treadle.engine.text_input import convert_file, rejected
from treadle.errors import DataError, RequestError
from treadle.jobs.registry.versions import aliased, split_reference
from treadle.jobs.spec import root_of

FORMATS = ("parquet", "delta")
WHOLE_BYTES = 2 * 2**30
"""Most memory of rows that are predicted all at once."""
THREADS = 8
"""Objects that are copied at a time."""
PROGRESS = {"stage": "predict", "event": "progress"}


def find_model(model: str, root: str | None = None) -> Bundle:
    """A published model, by `name`, `name:version` or `name@alias`."""
    store = Store(root_of(root))
    name, version, alias = split_reference(model)
    if alias is not None:
        version = aliased(store, name, alias)
    return load_bundle(store, name, version)


def predict_files(
    model: str,
    inputs: Sequence[str],
    output: str,
    *,
    explain: bool = False,
    format_: str = "parquet",
    root: str | None = None,
    workers: int | None = None,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Predicts every row of files of any input format and writes `output`.

    As `parquet`, `output` becomes a folder of files, whole or absent; as `delta`, it gets a new
    version. With `explain`, contributions go to `<output>-explanations` in the same format.

    Returns
    -------
    The model, rows read and predicted, those that break the job's contract, and the paths and versions written.

    Raises
    ------
    RequestError
        No such model; an input that is missing or lacks a column; an output folder that has files.
    StorageError
        The model would not predict as it was trained.
    """
    if format_ not in FORMATS:
        raise RequestError(f"--format: '{format_}' is not known. Allowed: [{', '.join(FORMATS)}].")
    bundle = find_model(model, root)
    bundle.verify()
    # Types are the model's: a column that happens to look otherwise in these files is still read as trained.
    options = TextOptions(**{**bundle.document.csv, "types": {}})
    inspected = text_input.inspect(list(inputs), options=options, hints=dict(bundle.program.kinds))
    program = _program(bundle, inspected.kinds)
    store = Store(root_of(output))
    beside = Store(f"{store.url}-explanations")
    for folder in (store, beside) if explain else (store,):
        _check_output(folder, format_)
    scratch = Store(f"{store.url}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open_cluster(Local(workers=workers)) as client:

            def each(function: Callable[..., Any], tasks: Sequence[Any], *arguments: Any) -> list[Any]:
                futures = [client.submit(function, task, *arguments, pure=False) for task in tasks]
                results = []
                for future in futures:
                    results.append(future.result())
                    if listener:
                        listener({**PROGRESS, "done": len(results), "total": len(futures), "rows": None})
                return results

            files, pieces_of = list(inspected.files), bundle.store
            if inspected.is_text:
                made = each(convert_file, [(n, file.path) for n, file in enumerate(files)], scratch, inspected, "rows")
                rejected([table for _, bad in made for table in bad], 0, "Mend them in the input.")
                files = [InputFile(part.path, part.bytes, "", part.rows) for parts, _ in made for part in parts]
                pieces_of = scratch
            rows = sum(file.rows or 0 for file in files)
            if rows == 0:
                raise DataError(f"The input {', '.join(inputs)} has no rows; there is nothing to predict.")
            count = _partitions(bundle, rows, row_bytes(inspected.kinds), workers or 2)
            tasks = list(enumerate(cut(files, count, own=inspected.is_text)))
            reading = replace(program, store=pieces_of)
            parts = each(predict_partition, tasks, bundle.store, bundle.reference, reading, scratch, explain)
        predicted = [part for part, _, _ in parts if part is not None]
        written = [_publish(scratch, "predictions", predicted, store, format_, bundle)]
        if explain:
            explained = [part for _, part, _ in parts if part is not None]
            written.append(_publish(scratch, "explanations", explained, beside, format_, bundle))
    finally:
        if scratch.fs.exists(scratch.path("")):
            scratch.fs.rm(scratch.path(""), recursive=True)
    return {
        "model": bundle.reference,
        "rows_read": rows,
        "rows_predicted": written[0]["rows"],
        "left_out": list(bundle.document.left_out),
        "contract": {name: sum(broken[name] for *_, broken in parts) for name in bundle.document.contract},
        "written": written,
    }


def _partitions(bundle: Bundle, rows: int, bytes_a_row: int, workers: int) -> int:
    """As many as is good for the size; one where operations need the other rows of a key as well."""
    together = [step.where for step in bundle.program.steps if step.operation.together is not None]
    if not together:
        return partition_count(rows, bytes_a_row, workers)
    if rows * bytes_a_row > WHOLE_BYTES:
        raise RequestError(
            f"{together[0]} looks at several rows of a key, so all rows to predict are taken at once, and {rows} rows "
            f"are {rows * bytes_a_row / 2**30:.1f} GiB, more than {WHOLE_BYTES / 2**30:.0f} GiB; predict fewer keys at "
            "a time, each with all its rows."
        )
    return 1


def _check_output(store: Store, format_: str) -> None:
    there = store.list("")
    if format_ == "parquet" and there:
        raise RequestError(
            f"The output folder {store.url} is not empty; name another, or use --format delta to add a version."
        )
    if there and "_delta_log" not in there:
        raise RequestError(f"The output folder {store.url} holds files and is no Delta table; name another.")


def _program(bundle: Bundle, kinds: dict[str, str]) -> Program:
    """The bundle's program, reading the input's own types; refuses columns that cannot become the model's."""
    wanted = dict(bundle.program.kinds)
    conform(bundle.program.backend.empty(kinds), wanted, "the input")
    return Program(
        bundle.store,
        bundle.program.backend,
        tuple((name, kinds[name]) for name in wanted),
        bundle.document.id,
        (),
    )


def predict_partition(
    task: tuple[int, Sequence[Piece]],
    models: Store,
    reference: str,
    program: Program,
    out: Store,
    explain: bool,
) -> tuple[Part | None, Part | None, dict[str, int]]:
    """On a worker: one partition's predictions, and its contributions when asked, in one pass.

    And how many of its rows break each expectation of the contract.
    """
    number, partition = task
    name, _, version = reference.partition(":")
    bundle = load_bundle(models, name, int(version))
    explanations = f"explanations/part-{number:05d}.parquet" if explain else None
    predictions = f"predictions/part-{number:05d}.parquet"
    rows = program.rows(partition)
    scored = bundle.write_tables(rows, out, predictions, explanations, partition[0].offset, f"partition {number}")
    return scored.predictions, scored.explanations, bundle.violations(rows)


def _publish(
    scratch: Store, name: str, parts: Sequence[Part], store: Store, format_: str, bundle: Bundle
) -> dict[str, Any]:
    rows = sum(part.rows for part in parts)
    target = store.path("").rstrip("/")
    if format_ == "parquet":
        _move(scratch, name, parts, store)
        return {"path": store.uri("").rstrip("/"), "rows": rows, "files": len(parts)}
    import pyarrow.parquet as pq

    from treadle.engine.commits import commit_table
    from treadle.engine.delta_files import DataFile

    with scratch.fs.open(scratch.path(parts[0].path), "rb") as file:
        schema = pq.read_schema(file)
    files = [DataFile(scratch.path(part.path), part.rows, part.bytes) for part in parts]
    version = commit_table(
        store.fs,
        target,
        files,
        schema,
        fingerprint=uuid.uuid4().hex,
        metadata={"treadle.model": bundle.reference},
    )
    return {"path": version.uri, "version": version.version, "rows": rows, "files": len(parts)}


def _move(scratch: Store, name: str, parts: Sequence[Part], store: Store) -> None:
    """Makes the folder of files in `scratch` the output: whole or absent on this machine, file by file elsewhere."""
    target = store.path("").rstrip("/")
    with storage_errors(target):
        if store.is_local:
            scratch.fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
            if scratch.fs.exists(target):
                scratch.fs.rmdir(target)
            scratch.fs.mv(scratch.path(name), target, recursive=True)
            return
        moves = {scratch.path(part.path): f"{target}/{part.path.rpartition('/')[2]}" for part in parts}
        try:
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(store.fs.cp_file, moves, moves.values()))
        except BaseException:
            for path in moves.values():
                with contextlib.suppress(FileNotFoundError):
                    store.fs.rm_file(path)
            raise
