"""`treadle doctor`: what is said, and with which exit status."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.s3 import S3
from treadle.cluster import hardware
from treadle.cluster.profiles import Local, LocalCuda, Slurm
from treadle.errors import RequestError
from treadle.jobs import device, gpu_proof
from treadle.jobs.cli import app
from treadle.jobs.device import choose_device


def doctor(*options: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, ["doctor", *options])
    assert result.exit_code == status, result.output
    return result.output


def test_this_installation_is_sound(tmp_path: Path) -> None:
    said = doctor("--root", str(tmp_path / "new"))
    for word in ("machine", "libraries", "kernels", "scratch", "artifacts", "driver", "computing"):
        assert word in said
    assert "A job with device: auto runs on" in said
    assert not (tmp_path / "new").exists()
    assert "A job with device: cpu can run here." in doctor("--device", "cpu", "--root", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_json_has_every_check(tmp_path: Path) -> None:
    found: dict[str, Any] = json.loads(doctor("--json", "--root", str(tmp_path)))
    assert [check["name"] for check in found["checks"]] == ["machine", "libraries", "kernels", "scratch", "artifacts"]
    assert all(check["ok"] for check in found["checks"])
    assert found["gpu"]["usable"] in (True, False)
    assert set(found["gpu"]["libraries"]) == set(hardware.GPU_LIBRARIES)


def test_without_gpus_cuda_fails_and_auto_does_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hardware, "DRIVER_FILES", ())
    hardware.gpus_here.cache_clear()
    said = doctor("--device", "cuda", "--root", str(tmp_path), status=1)
    assert "A job with device: cuda cannot run here: this machine has no NVIDIA driver." in said
    doctor("--device", "cuda", "--json", "--root", str(tmp_path), status=1)
    assert "runs on the CPU: this machine has no NVIDIA driver." in doctor("--root", str(tmp_path))
    assert choose_device("auto", Local()) == ("cpu", "auto: this machine has no NVIDIA driver")
    assert choose_device("cpu", Local()) == ("cpu", "the spec says so")
    with pytest.raises(
        RequestError, match=r"device: cuda cannot be used: this machine has no NVIDIA driver. To use it"
    ):
        choose_device("cuda", Local())


def test_on_a_machine_with_gpus_cuda_is_tried_when_a_spec_insists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "gpus_here", lambda: hardware.GpuReport((), (), "1", {}))
    monkeypatch.setattr(device, "installation_problem", lambda: None)
    assert choose_device("cuda", Local()) == ("cuda", "device: cuda, which the spec says")
    assert choose_device("auto", LocalCuda(profile="local-cuda"))[0] == "cuda"


def test_auto_takes_the_gpus_on_which_jobs_were_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And no others: another driver, or library, or code of Treadle's makes the check void."""
    monkeypatch.setenv("TREADLE_HOME", str(tmp_path / "home"))
    gpus = (hardware.Gpu(0, "GPU-0", "a stand-in", 2**36, (9, 0)),)
    report = hardware.GpuReport((), gpus, "580.1", {"cudf": "26.10.2"})
    monkeypatch.setattr(device, "gpus_here", lambda: report)
    monkeypatch.setattr(device, "installation_problem", lambda: None)
    chosen, why = choose_device("auto", Local())
    assert chosen == "cpu"
    assert why.startswith("auto: no job was checked on the GPUs of this machine")
    gpu_proof.keep(report)
    chosen, why = choose_device("auto", Local())
    assert chosen == "cuda"
    assert re.fullmatch(r"auto: treadle bench gpu found all right on 20\S+", why)
    assert choose_device("auto", Slurm(profile="slurm", workers=1, cores=1, memory="1GB"))[0] == "cpu"
    for other, words in (
        (hardware.GpuReport((), gpus, "590.0", {"cudf": "26.10.2"}), "with another driver: device: auto stays"),
        (hardware.GpuReport((), (), "580.1", {"cudf": "26.12.0"}), "with another set of GPUs and set of libraries"),
    ):
        monkeypatch.setattr(device, "gpus_here", lambda other=other: other)
        chosen, why = choose_device("auto", Local())
        assert chosen == "cpu"
        assert words in why
    monkeypatch.setattr(device, "gpus_here", lambda: report)
    monkeypatch.setattr(gpu_proof, "code", lambda: {"sources": "other"})
    assert "with another treadle" in choose_device("auto", Local())[1]
    gpu_proof.forget()
    assert "no job was checked" in choose_device("auto", Local())[1]
    (tmp_path / "home" / gpu_proof.FILE).write_text("damaged")
    assert "no job was checked" in choose_device("auto", Local())[1]


def test_on_gpus_local_means_a_worker_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = tuple(hardware.Gpu(i, f"GPU-{i}", "a stand-in", 2**36, (9, 0)) for i in range(4))
    monkeypatch.setattr(device, "gpus_here", lambda: hardware.GpuReport((), gpus, "1", {}))
    local = Local(workers=2, threads=3, memory="4GB")
    expected = LocalCuda(profile="local-cuda", gpus=(0, 1), threads=3, memory="4GB")
    assert device.on_device(local, "cuda") == expected
    assert device.on_device(Local(), "cuda") == LocalCuda(profile="local-cuda", gpus=(0, 1, 2, 3))
    assert device.on_device(local, "cpu") is local
    assert device.on_device(expected, "cuda") is expected


def test_a_root_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = doctor("--root", str(tmp_path / "file" / "below"), status=1)
    assert "cannot run here" in said
    assert "name another folder by --root" in said


def test_a_root_on_an_object_store(s3: S3) -> None:
    assert "s3://lake/new can be written" in doctor("--root", "s3://lake/new")
    s3.control("ignore", "conditions")
    try:
        said = doctor("--root", "s3://lake/new", status=1)
    finally:
        s3.control("ignore")
    assert "does not know puts on a condition (If-None-Match)" in said
    assert s3.fs.ls("lake") == []
    said = doctor("--root", "s3://none/root", status=1)
    assert "none/root/.doctor cannot be found or made (The specified bucket does not exist)" in said


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "below"))
    assert "set NUMBA_CACHE_DIR" in doctor("--root", str(tmp_path), status=1)


def test_refusals(tmp_path: Path) -> None:
    assert "--device: 'gpu' is not known. Allowed: [auto, cpu, cuda]." in doctor("--device", "gpu", status=2)
    (tmp_path / "file").touch()
    assert "is a file; name a folder" in doctor("--root", str(tmp_path / "file"), status=2)
