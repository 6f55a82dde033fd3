"""`treadle parity` of a whole job, with the stand-ins of `test_cuda_job`: the device is Numba's simulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import people_spec, write_people
from tests.jobs.test_cuda_job import with_stand_ins

TREE = [{"name": "decision_tree", "params": {"max_depth": 3}}]
PARITY = """
from typer.testing import CliRunner
from treadle.jobs import parity_job
from treadle.jobs.cli import app

spec, changed, arguments = json.load(sys.stdin)
real = parity_job.make_plan

def make_plan(loaded, root, **options):
    if changed and loaded.device == "cuda":
        own = loaded.model_dump(mode="json", by_alias=True, exclude_unset=True)
        loaded = type(loaded).model_validate({**own, **changed})
    return real(loaded, root, **options)

parity_job.make_plan = make_plan
with open("spec.json", "w") as file:
    json.dump(spec, file)
done = CliRunner().invoke(app, ["parity", "spec.json", "--rows", "3", "--quiet", *arguments])
print(json.dumps([done.exit_code, done.stdout, done.stderr, repr(done.exception)]))
"""


def parity(folder: Path, changed: dict[str, Any], *arguments: str, **sections: Any) -> tuple[int, str, dict[str, Any]]:
    """Exit status and what was printed, of a parity whose job on the device has some sections changed."""
    people = write_people(folder / "people.parquet", rows=60)
    spec = {**people_spec(people, folder / "artifacts", "", models=TREE), "cluster": {"workers": 2}, **sections}
    script = f"import os\nos.chdir({str(folder)!r})\n{PARITY}"
    done = with_stand_ins(script, [spec, changed, arguments], folder)
    assert done.returncode == 0, done.stderr[-3000:]
    code, out, err, error = json.loads(done.stdout.splitlines()[-1])
    assert out, (err, error)
    return code, out, spec


@pytest.mark.slow
def test_a_whole_job_agrees_stage_by_stage(tmp_path: Path) -> None:
    code, out, spec = parity(tmp_path, {}, "--json")
    found = json.loads(out)
    stages = {line["stage"]: line for line in found["stages"]}
    assert (code, found["right"]) == (0, True), [line for line in found["stages"] if line["right"] is False]
    assert list(stages) == [
        "read", "etl", "split", "features", "train:decision_tree", "evaluate", "explain", "predict", "publish",
    ]  # fmt: skip
    assert {name for name, line in stages.items() if line["right"] is None} == {"etl"}
    assert stages["features"]["said"] == "14 columns of 60 rows"
    assert stages["features"]["difference"] == 0.0
    assert stages["explain"]["said"] == "contributions of 3 rows by the same model; 13 columns of 15 rows"
    assert stages["predict"]["said"].startswith("margins of 3 rows by the same model; ")
    assert stages["evaluate"]["said"].endswith("auc, average_precision, log_loss, brier")
    assert all(line["cpu_seconds"] > 0 and line["device_seconds"] > 0 for line in stages.values())
    assert stages["read"]["fell_back"] == ["files are read on the host, by Arrow"]
    assert stages["etl"]["fell_back"] == []
    assert stages["explain"]["fell_back"] == []
    assert found["device_run"] != found["run"]
    # What agrees is not kept.
    assert not (Path(spec["artifacts"]["root"]) / "parity").exists()


@pytest.mark.slow
def test_a_table_that_differs_is_named_with_its_column(tmp_path: Path) -> None:
    other = [
        {"op": "derive", "name": "log_income", "sql": "ln(income) * case when key = 1007 then 1.001 else 1 end"},
        {"op": "drop", "columns": ["income"]},
    ]
    code, out, spec = parity(tmp_path, {"tables": other})
    lines = out.splitlines()
    assert code == 1
    assert any(line.startswith("features: column 'log_income': values are up to ") for line in lines), out
    assert not any(line.startswith(("split: ", "predict: ", "publish: ")) for line in lines), out
    (row,) = [line for line in lines if " NO " in line]
    assert " features " in row
    assert "fell back to the host: read: files are read on the host, by Arrow" in " ".join(lines)
    kept = Path(spec["artifacts"]["root"]) / "parity"
    assert "Both runs lie under" in out
    assert {path.name for path in kept.glob("*/*")} == {"cpu", "cuda"}


@pytest.mark.slow
def test_a_job_without_models_is_compared_by_its_rows(tmp_path: Path) -> None:
    sections = {"features": [], "models": [], "split": None, "metric": None}
    other = [
        {"op": "derive", "name": "log_income", "sql": "ln(income)"},
        {"op": "derive", "name": "city", "sql": "coalesce(city, 'nowhere')"},
        {"op": "drop", "columns": ["income"]},
    ]
    code, out, _ = parity(tmp_path, {"tables": other}, "--json", **sections)
    found = json.loads(out)
    stages = {line["stage"]: line for line in found["stages"]}
    assert code == 1
    assert [name for name, line in stages.items() if line["right"] is False] == ["etl"]
    (fault,) = stages["etl"]["faults"]
    assert fault.startswith("column 'city': ")
    assert fault.endswith(" rows are unequal")
