"""Data sets that scikit-learn ships, as inputs: `sklearn://breast_cancer`. No network is needed."""

from __future__ import annotations

from treadle.engine.store import Store
from treadle.errors import RequestError, did_you_mean, listed
from treadle.jobs.spec import JobSpec

SCHEME = "sklearn://"
NAMES = ("breast_cancer", "diabetes", "digits", "iris", "wine")


def materialise(spec: JobSpec, store: Store) -> JobSpec:
    """The spec with a `sklearn://` path replaced by a Parquet file under the root, written when absent.

    The target column is called `target`; of classes it holds the names.
    """
    path = spec.data.path
    if not isinstance(path, str) or not path.startswith(SCHEME):
        return spec
    name = path.removeprefix(SCHEME)
    if name not in NAMES:
        raise RequestError(
            f"'{path}' is no data set of scikit-learn. Allowed: [{listed(NAMES)}].{did_you_mean(name, NAMES)}"
        )
    relative = f"inputs/sklearn-{name}.parquet"
    if not store.exists(relative):
        _write(store, relative, name)
    data = spec.data.model_copy(update={"path": store.fs.unstrip_protocol(store.path(relative)), "format": "parquet"})
    return spec.model_copy(update={"data": data})


def _write(store: Store, relative: str, name: str) -> None:
    import pyarrow as pa
    import sklearn.datasets

    found = getattr(sklearn.datasets, f"load_{name}")(as_frame=True)
    frame = found.data.assign(target=found.target)
    if hasattr(found, "target_names"):
        frame["target"] = [str(found.target_names[code]) for code in found.target]
    frame.columns = [column.replace(" ", "_") for column in frame.columns]
    store.write_parquet(relative, pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None))
