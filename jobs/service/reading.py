"""Plans specs and reads tables for requests, in copies of the nursery: the service itself loads no Arrow."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from treadle.errors import TreadleError
from treadle.jobs.service.faults import fault_of
from treadle.jobs.service.folders import order_of
from treadle.jobs.service.paths import confine


def plan(order: str) -> int:
    """Prints the plan of a spec as JSON: {"plan": ...}, or {"error": ..., "fault": ...}."""
    from treadle.cluster.launch import open_cluster
    from treadle.engine.workers import Workers
    from treadle.jobs.plan import make_plan
    from treadle.jobs.spec import load_spec

    found = order_of(json.loads(order))
    try:
        spec = load_spec({**found.spec, "cluster": dict(found.cluster)})
        confine(spec, found.root, found.allowed, found.closed)
        with open_cluster(spec.cluster) as client:
            planned = make_plan(spec, found.root, workers=Workers.of(client))
        said: Mapping[str, Any] = {"plan": planned.describe()}
    except TreadleError as error:
        fault, reason = fault_of(error)
        said = {"error": reason, "fault": fault}
    print(json.dumps(said, default=str))
    return 0


def rows(root: str, path: str, version: float, columns: str, limit: float | None) -> int:
    """Prints {} in a line and then a version of a table as an Arrow stream, or {"error": ..., "fault": ...}."""
    import pyarrow as pa

    from treadle.engine import delta
    from treadle.engine.store import Store

    left = int(limit) if limit is not None else sys.maxsize
    try:
        table = delta.open_table(Store(root).fs, path, int(version))
        batches = delta.read_batches(table, json.loads(columns))
        first = next(batches)
    except TreadleError as error:
        fault, reason = fault_of(error)
        print(json.dumps({"error": reason, "fault": fault}))
        return 0
    print("{}", flush=True)
    with open(1, "wb", closefd=False) as out, pa.ipc.new_stream(out, first.schema) as writer:
        for batch in batches:
            part = batch.slice(0, min(left, batch.num_rows))
            writer.write_batch(part)
            left -= part.num_rows
            if left <= 0:
                break
    return 0
