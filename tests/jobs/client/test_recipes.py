"""The recipes of docs/client.md, run with the schedulers that they are for.

A scheduler is looked for in the interpreter that TREADLE_AIRFLOW_PYTHON, TREADLE_PREFECT_PYTHON,
TREADLE_DAGSTER_PYTHON or TREADLE_NOTEBOOK_PYTHON names, which must have Treadle's dependencies, too;
else in this one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.service.served import Served
from tests.test_docs import blocks
from treadle import Client
from treadle.jobs.client import Job

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
MODULES = {"airflow": "airflow.sdk", "prefect": "prefect", "dagster": "dagster", "notebook": "nbclient, ipykernel"}
RUNS = {
    "airflow": "from recipe import adult\nrun = adult.test()\nassert run.state == 'success', run.state",
    "prefect": "from recipe import adult\nassert 0.5 < adult('spec.yaml') <= 1",
    "dagster": "import dagster, recipe\nassert dagster.materialize([recipe.adult]).success",
}
"""What is added to a recipe to run it at once."""


def recipe(name: str) -> str:
    (found,) = [block.text for block in blocks(PAGE) if block.text.startswith(f"# recipe: {name}\n")]
    return found


@pytest.fixture
def folder(tmp_path: Path, service: Served, spec: dict[str, Any]) -> Path:
    """A working folder with the spec that recipes submit."""
    (tmp_path / "spec.yaml").write_text(json.dumps(spec))
    return tmp_path


def ran(name: str, folder: Path, service: Served, code: str) -> str:
    """What a program says, run by the interpreter that has the scheduler."""
    python = os.environ.get(f"TREADLE_{name.upper()}_PYTHON", sys.executable)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PYTEST")},
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
        "PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}",
        "TREADLE_URL": service.url,
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
        "DAGSTER_HOME": "",
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_CONFIG_DIR": str(folder / "jupyter"),
    }
    found = subprocess.run([python, "-c", f"import {MODULES[name]}"], env=environment, capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"{MODULES[name]} is not installed: {found.stderr.strip().splitlines()[-1]}")
    if name == "airflow":
        migrate = [python, "-m", "airflow", "db", "migrate"]
        subprocess.run(migrate, env=environment, cwd=folder, capture_output=True, check=True)
    (folder / "recipe.py").write_text(recipe(name))
    done = subprocess.run([python, "-c", code], env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_recipe_makes_one_job_and_sees_it_succeed(name: str, folder: Path, service: Served, client: Client) -> None:
    before = {job.id for job in client.jobs()}
    said = ran(name, folder, service, RUNS[name])
    (job,) = [job for job in client.jobs() if job.id not in before]
    assert job.seen.state.value == "succeeded"
    assert (job.seen.submission_id or "").startswith("adult.")
    assert job.seen.timeout == 3600
    assert "train:xgboost" in said, "the job's log goes to the scheduler's"


@pytest.mark.slow
def test_a_notebook_shows_the_job_with_its_leaderboard(folder: Path, service: Served, client: Client) -> None:
    cells = [
        {"cell_type": "code", "metadata": {}, "source": recipe("notebook"), "outputs": [], "execution_count": None}
    ]
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
    code = (
        "import json, nbformat\nfrom nbclient import NotebookClient\n"
        f"notebook = nbformat.from_dict(json.loads({json.dumps(notebook)!r}))\n"
        "NotebookClient(notebook, timeout=120, kernel_name='python3').execute()\n"
        "print(notebook.cells[0].outputs[-1]['data']['text/html'])"
    )
    shown = ran("notebook", folder, service, code)
    newest: Job = next(client.jobs())
    assert newest.id in shown
    assert "<th>auc</th>" in shown
    assert "<td>train:xgboost</td>" in shown
