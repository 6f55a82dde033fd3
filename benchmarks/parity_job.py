"""`treadle parity` of the small example in a process of its own; what it found as JSON on standard output.

python -m treadle.benchmarks.parity_job ROOT
"""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from treadle.jobs.parity import parity
from treadle.jobs.spec import load_spec


def main(root: Path) -> dict[str, Any]:
    """The example `breast-cancer` with its models of trees, on the CPU and on the GPUs of this machine."""
    spec = load_spec(Path(str(files("treadle.jobs"))) / "examples" / "breast-cancer.yaml")
    # The best of all is linear there, for which there are no kernels to compare.
    assert not isinstance(spec.models, str)
    trees = tuple(model for model in spec.models if model.name != "logistic_regression")
    return parity(spec.model_copy(update={"models": trees}), str(root)).described()


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
