"""Bundles for MLflow: `MLmodel` of a bundle names this module as what loads it, wherever its folder is now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from treadle.engine.bundle import Bundle, open_bundle
from treadle.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd


class Served:
    """A bundle as MLflow calls it."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def predict(self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """As `Bundle.predict`; times may be texts in ISO 8601, which is how JSON has them, in UTC without an offset.

        `explain` of `params` adds the contributions.
        """
        import pandas as pd

        frame = model_input
        if isinstance(frame, pd.DataFrame):
            frame = frame.assign(**{name: _times(frame[name]) for name in self._texts(frame)})
        return self.bundle.predict(frame, explain=bool((params or {}).get("explain", False)))

    def _texts(self, frame: pd.DataFrame) -> list[str]:
        """Columns of times that hold texts."""
        import pandas as pd

        times = [name for name, kind in self.bundle.document.inputs.items() if kind == "timestamp"]
        return [name for name in times if name in frame and pd.api.types.infer_dtype(frame[name]) == "string"]


def _times(series: pd.Series) -> pd.Series:
    import pandas as pd

    try:
        return pd.to_datetime(series, format="ISO8601", utc=True)
    except ValueError as error:
        raise RequestError(f"Column '{series.name}' of the input holds texts that are no times: {error}") from error


def _load_pyfunc(data_path: str) -> Served:
    """MLflow's entry: the folder is the bundle's, or a copy of it."""
    return Served(open_bundle(data_path))
