"""Code that specs name: refused, unless whoever runs the service allows its module."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs.service.served import Served, served, small_spec

HERE = "tests.engine.own_estimators"
OWN = {"name": "centres", "estimator": f"{HERE}:Centres", "params": {"sharpness": 2}}
ROOT = Path(__file__).parents[3]


def test_a_service_runs_no_code_of_specs(attached: Served) -> None:
    answer = attached.http.post("/v1/jobs", json={"spec": small_spec("own", models=[OWN])})
    assert answer.status_code == 422
    assert f"estimator '{HERE}:Centres' is code, which is run only when its module is allowed" in answer.text


@pytest.mark.slow
def test_a_service_runs_code_of_modules_that_its_operator_allows(tmp_path: Path) -> None:
    """Also when the shell that it is started from allows others."""
    environment = {"TREADLE_ALLOW_CODE": "tests.jobs", "PYTHONPATH": str(ROOT)}
    with served(tmp_path, "--workers", "1", "--allow-code", HERE, environment=environment) as service:
        job = service.submit(small_spec("own", models=[OWN]))
        assert service.wait(job)["state"] == "succeeded", service.job(job)["reason"]
        manifest = service.http.get(f"/v1/jobs/{job}/manifest").json()
        assert manifest["results"]["evaluate"]["best"] == "centres"
        other = {**OWN, "estimator": "tests.jobs.demo_spec:Centres"}
        assert service.http.post("/v1/jobs", json={"spec": small_spec("own", models=[other])}).status_code == 422
