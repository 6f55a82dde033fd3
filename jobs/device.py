"""Which device a job runs on."""

from __future__ import annotations

from typing import Literal

from treadle.cluster.hardware import Check, gpus_here, installation_problem
from treadle.cluster.profiles import Local, LocalCuda, Profile, has_gpus, is_here
from treadle.errors import RequestError
from treadle.jobs.gpu_proof import proof

Device = Literal["cpu", "cuda"]


def choose_device(asked: str, profile: Profile) -> tuple[Device, str]:
    """The device of a job whose spec says auto, cpu or cuda, and why it is that.

    Raises
    ------
    RequestError
        The spec insists on cuda, or its cluster on GPUs, which cannot be used; or they contradict each other.
    """
    insists = has_gpus(profile)
    if asked == "cpu":
        if insists:
            raise RequestError(
                f"device: cpu, and a cluster of GPUs (profile: {name_of(profile)}); set device: auto, "
                "or another cluster.profile."
            )
        return "cpu", "the spec says so"
    if asked == "auto" and not insists:
        check = _unproven(profile)
        return ("cuda" if check.ok else "cpu"), f"auto: {check.found}"
    # Other machines' GPUs are looked at when their workers use them.
    problem = gpus_here().problem if is_here(profile) else None
    asking = "device: cuda" if asked == "cuda" else f"cluster.profile: {name_of(profile)} with GPUs"
    if problem is None:
        return "cuda", f"{asking}, which the spec says"
    remedy = f" To use it, {problem.remedy}." if problem.remedy else ""
    raise RequestError(
        f"{asking} cannot be used: {problem.found}.{remedy} Set device: auto or cpu to run on the CPU; "
        "`treadle doctor --device cuda` looks at all that it needs."
    )


def gpu_problem() -> str | None:
    """Why no job can run on the GPUs of this machine; None where one can."""
    problem = gpus_here().problem
    return None if problem is None else problem.found


def _unproven(profile: Profile) -> Check:
    """The first thing that keeps a job from the GPUs of its machine, or what says that they are proven."""
    if not is_here(profile):
        return Check("jobs", None, f"a cluster of other machines (profile: {name_of(profile)}), not said to have GPUs")
    problem = installation_problem() or gpus_here().problem
    return problem or proof(gpus_here())


def on_device(profile: Profile, device: Device) -> Profile:
    """The profile that a job on this device runs on: on GPUs of this machine, `local` means a worker for each."""
    if device == "cpu" or not isinstance(profile, Local):
        return profile
    workers = profile.workers
    gpus = tuple(gpu.index for gpu in gpus_here().gpus)[:workers]
    return LocalCuda(profile="local-cuda", gpus=gpus, threads=profile.threads, memory=profile.memory)


def name_of(profile: Profile) -> str:
    """As a spec names it."""
    return str(profile.profile)  # type: ignore[attr-defined]
