"""Fingerprints of stages: what makes a stage anew, and what does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from treadle.engine import job_inputs, pipeline
from treadle.engine.job import Job


def fingerprints(path: Path) -> dict[str, str]:
    job = Job.model_validate({"name": "small", "data": {"path": str(path)}})
    return {stage.name: stage.fingerprint for stage in pipeline.stages_of(job, job_inputs.inspect(job))}


@pytest.mark.parametrize(("ending", "alike"), [("parquet", False), ("csv", True)])
def test_the_place_counts_for_files_that_later_stages_read_again(tmp_path: Path, ending: str, alike: bool) -> None:
    """A stage may not go to where Parquet was when it was read first: other rows may be there by now."""
    first, second = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
    frame = pd.DataFrame({"x": [1, 2, 3]})
    frame.to_parquet(first) if ending == "parquet" else frame.to_csv(first, index=False)
    shutil.copy(first, second)
    assert fingerprints(first) == fingerprints(first)
    assert (fingerprints(first)["etl"] == fingerprints(second)["etl"]) is alike
