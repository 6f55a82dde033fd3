"""The kernels for NVIDIA GPUs: the same forests, bins, tables and sums over rows as on the host, on device arrays.

`predict_margin` and `TreeExplainer` come here by themselves when they are given rows that lie on a
device, and leave their results there; so do `scatter` and `curve`, whose sums go to the host. Nothing
here is imported before that, and nothing needs a GPU to be imported.
"""

from __future__ import annotations

from typing import Any


def on_device(rows: Any) -> bool:
    """Whether rows are a device array (CuPy, Numba, any `__cuda_array_interface__`) or a cuDF frame."""
    module = type(rows).__module__
    # The simulator's arrays do not have the interface.
    return hasattr(rows, "__cuda_array_interface__") or module.startswith(("cudf.", "numba.cuda.simulator."))
