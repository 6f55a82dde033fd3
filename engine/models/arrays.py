"""Arrays of a model as one Arrow IPC file, in which nothing is executed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from treadle.engine.models.base import read_file, write_file
from treadle.engine.store import Store

ARRAYS_FILE = "model.arrow"


def write_arrays(store: Store, folder: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Writes arrays of numbers, one column each, flattened in one row; returns the file's digest."""
    columns = {}
    for name, array in arrays.items():
        values = pa.array(np.ascontiguousarray(array).ravel())
        columns[name] = pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values)
    shapes = {name: array.shape for name, array in arrays.items()}
    batch = pa.record_batch(columns).replace_schema_metadata({"shapes": json.dumps(shapes)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return write_file(store, f"{folder}/{ARRAYS_FILE}", memoryview(sink.getvalue()))


def read_arrays(store: Store, folder: str, digest: str) -> dict[str, np.ndarray[Any, Any]]:
    """What `write_arrays` wrote, read-only.

    Raises
    ------
    StorageError
        The file is missing or not the one that was written.
    """
    batch = pa.ipc.open_file(read_file(store, f"{folder}/{ARRAYS_FILE}", digest)).get_batch(0)
    shapes = json.loads(batch.schema.metadata[b"shapes"])
    return {name: batch.column(name).values.to_numpy().reshape(shape) for name, shape in shapes.items()}
