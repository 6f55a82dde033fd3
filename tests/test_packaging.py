"""What is asked for, pinned and shipped: pyproject.toml, constraints.txt and conda-env.yml agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")
CONDA = YAML(typ="safe").load(ROOT / "conda-env.yml")

# What only conda needs: the interpreter, pip for Treadle itself, and the CUDA version, which pip's
# names carry instead (cudf-cu13).
CONDA_ONLY = {"python", "pip", "cuda-version"}


def ranges(requirements: list[str]) -> dict[str, SpecifierSet]:
    """Normalised name -> version range."""
    parsed = [Requirement(text) for text in requirements]
    return {str(canonicalize_name(r.name)): r.specifier for r in parsed}


def conda_ranges(requirements: list[str]) -> dict[str, SpecifierSet]:
    """Normalised name -> version range of conda specifications, where `=26.10` means any 26.10.x."""
    found: dict[str, SpecifierSet] = {}
    for text in requirements:
        parts = re.fullmatch(r"([\w.-]+?)(?:=(\d[\d.]*)|([<>!=]=?.*))?", text)
        assert parts, text
        name, fuzzy, versions = parts.groups()
        if fuzzy:
            *head, last = fuzzy.split(".")
            versions = f">={fuzzy},<{'.'.join([*head, str(int(last) + 1)])}"
        found[canonicalize_name(name)] = SpecifierSet(versions or "")
    return found


def pins() -> dict[str, Version]:
    lines = [line for line in CONSTRAINTS.splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in lines)}


CORE = ranges(PROJECT["dependencies"])
EXTRAS = {name: ranges(listed) for name, listed in PROJECT["optional-dependencies"].items()}


def test_conda_lists_what_pip_lists_in_the_same_ranges() -> None:
    gpu = {re.sub(r"-cu\d+$", "", name): versions for name, versions in EXTRAS["gpu"].items()}
    conda = {k: v for k, v in conda_ranges(CONDA["dependencies"]).items() if k not in CONDA_ONLY}
    assert conda == CORE | gpu


def test_conda_channels_and_platform() -> None:
    assert CONDA["channels"] == ["rapidsai", "conda-forge", "nvidia"]
    versions = conda_ranges(CONDA["dependencies"])
    assert versions["python"] == SpecifierSet(">=3.12,<3.13")
    assert versions["cuda-version"] == SpecifierSet(">=13.0,<13.1")
    assert {name for name in EXTRAS["gpu"] if name.endswith("-cu13")} >= {
        "cudf-cu13",
        "cuml-cu13",
        "rmm-cu13",
    }


@pytest.mark.parametrize("extra", ["", "dev", "bench", "boosters", "clusters", "registry"])
def test_every_requirement_is_pinned_within_its_range(extra: str) -> None:
    pinned = pins()
    wanted = EXTRAS[extra] if extra else CORE
    assert wanted.keys() <= pinned.keys()
    outside = {name: str(pinned[name]) for name, versions in wanted.items() if pinned[name] not in versions}
    assert not outside


def test_constraints_hold_names_and_versions_only() -> None:
    lines = CONSTRAINTS.splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!]+", line) for line in pinned)
    assert pinned == sorted(pinned, key=str.lower)
    assert len(pins()) == len(pinned)
    comments = "\n".join(line for line in lines if line.startswith("#"))
    assert not re.search(r"://|@|--|\b[\w-]+\.(com|org|io|net|dev|local)\b", comments)


def test_python_versions_agree() -> None:
    wanted = SpecifierSet(PROJECT["requires-python"])
    assert (ROOT / ".python-version").read_text().strip() == "3.12"
    assert Version("3.12") in wanted
    assert Version("3.11.9") not in wanted


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("dask", ["2026.7.1"], ["2026.7.0", "2026.7.2"]),
        ("distributed", ["2026.7.1"], ["2026.7.0", "2026.7.2"]),
        ("pandas", ["3.0.0", "3.0.6", "3.0.99"], ["2.3.3", "3.1.0", "4.0"]),
        ("numba", ["0.64.0"], ["0.65.0", "0.68.0"]),
        ("bokeh", ["3.9.2"], ["3.10.0"]),
        ("xgboost", ["3.4.1"], ["3.3.0", "4.0.0"]),
    ],
)
def test_ranges_hold_the_versions_of_rapids_26_10(name: str, inside: list[str], outside: list[str]) -> None:
    assert all(Version(version) in CORE[name] for version in inside)
    assert not any(Version(version) in CORE[name] for version in outside)


def test_the_licence_is_the_one_declared() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    for name in PROJECT["license-files"]:
        assert "Apache License" in (ROOT / name).read_text(encoding="utf-8")
