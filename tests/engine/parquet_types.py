"""Parquet columns of every type that is read: type, values, the kind, and the values in the engine's frames."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

DAY = datetime.date(2024, 2, 29)
NOON = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)
TYPES: list[tuple[pa.DataType, list[Any], str, list[Any]]] = [
    (pa.int8(), [1, None, -128], "int", [1, pd.NA, -128]),
    (pa.uint32(), [2**32 - 1, None], "int", [2**32 - 1, pd.NA]),
    (pa.uint64(), [2**63 - 1], "int", [2**63 - 1]),
    (pa.float16(), [np.float16(0.5), None], "float", [0.5, np.nan]),
    (pa.float32(), [0.25, None], "float", [0.25, np.nan]),
    (pa.decimal128(38, 4), [Decimal("12345678901234567890.1234"), None], "float", [12345678901234567890.1234, np.nan]),
    (pa.bool_(), [True, None], "bool", [True, pd.NA]),
    (pa.large_string(), ["ä", None, ""], "text", ["ä", np.nan, ""]),
    (pa.string_view(), ["ä", None], "text", ["ä", np.nan]),
    (pa.dictionary(pa.int8(), pa.string()), ["x", None, "y"], "text", ["x", np.nan, "y"]),
    (pa.dictionary(pa.int32(), pa.int16()), [7, None], "int", [7, pd.NA]),
    (pa.date32(), [DAY, None], "timestamp", [pd.Timestamp(DAY), pd.NaT]),
    (pa.timestamp("ns", "Europe/Berlin"), [NOON, None], "timestamp", [pd.Timestamp("2024-02-29 12:00"), pd.NaT]),
    (pa.timestamp("ms"), [datetime.datetime(1, 1, 1), None], "timestamp", [pd.Timestamp("0001-01-01"), pd.NaT]),
    (pa.null(), [None, None], "text", [np.nan, np.nan]),
]
