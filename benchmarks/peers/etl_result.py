"""What the sides of `treadle bench etl` say of the features that they wrote, to be compared."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.dataset as ds


def described(out: Path | list[str]) -> dict[str, float]:
    """Rows, and the sum of every float column, in float64."""
    dataset = ds.dataset(sorted(map(str, out.rglob("*.parquet"))) if isinstance(out, Path) else out)
    found: dict[str, float] = {"rows": float(dataset.count_rows())}
    for name in dataset.schema.names:
        if dataset.schema.field(name).type == "float":
            batches = dataset.to_batches(columns=[name])
            found[name] = sum(pc.sum(b.column(0).cast("float64")).as_py() or 0.0 for b in batches)
    return found
