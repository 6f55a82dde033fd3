"""Which device a job runs on."""

from __future__ import annotations

from treadle.cluster.hardware import Check, gpu_problem
from treadle.cluster.profiles import Profile, has_gpus, is_here
from treadle.errors import RequestError

CPU_ONLY = Check("stages", False, "this version of Treadle runs its stages on the CPU only")


def cuda_problem(hardware: Check | None) -> Check | None:
    """What keeps a job from running on GPUs: a problem of the machine, or else of this version; None when nothing."""
    return hardware or CPU_ONLY


def choose_device(asked: str, profile: Profile) -> tuple[str, str]:
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
                f"device: cpu, and a cluster of GPUs (profile: {profile.profile}); set device: auto, "  # type: ignore[attr-defined]
                "or another cluster.profile."
            )
        return "cpu", "the spec says so"
    problem = cuda_problem(gpu_problem() if is_here(profile) else None)
    if problem is None:
        return "cuda", "the spec says so" if asked == "cuda" else "auto: there are GPUs, and they compute"
    if asked == "auto" and not insists:
        return "cpu", f"auto: {problem.found}"
    asking = "device: cuda" if asked == "cuda" else f"cluster.profile: {profile.profile} with GPUs"  # type: ignore[attr-defined]
    remedy = f" To use it, {problem.remedy}." if problem.remedy else ""
    raise RequestError(
        f"{asking} cannot be used: {problem.found}.{remedy} Set device: auto or cpu to run on the CPU; "
        "`treadle doctor --device cuda` looks at all that it needs."
    )
