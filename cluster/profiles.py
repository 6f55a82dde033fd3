"""Cluster profiles: where a job runs, as a value in the spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


class ClusterProfile(BaseModel):
    """`local` starts worker processes on this machine; `address` attaches to a running scheduler."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: Literal["local", "address"] = "local"
    workers: Annotated[int, Field(ge=1)] | None = None
    """Local worker processes; one a core when absent, four at most."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads a local worker; the cores are shared out when absent."""
    memory: Annotated[str, Field(pattern=r"^\d+(\.\d+)?\s*([kMGT]i?)?B$")] | None = None
    """Memory limit of a local worker, e.g. 4GB; an equal share of 90 % of the machine when absent."""
    address: str | None = None
    """The scheduler's address, e.g. tcp://127.0.0.1:8786."""

    @model_validator(mode="after")
    def _address_goes_with_attach(self) -> ClusterProfile:
        if (self.address is None) == (self.profile == "address"):
            raise PydanticCustomError("address", "cluster.address: it is needed with profile: address, and only there")
        return self
