"""Everything that a job reads, as footers and heads describe it."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.engine import text_input
from treadle.engine.digests import with_whole_digests
from treadle.engine.expectations import Known
from treadle.engine.inputs import Inspected
from treadle.engine.job import Job
from treadle.engine.relational import Join, Side, Union


@dataclass(frozen=True)
class Inputs:
    """Everything a job reads, as footers and heads describe it."""

    main: Inspected
    test: Inspected | None
    sides: dict[int, Inspected]
    """Other tables of operations, by their places in `tables`."""
    known: dict[int, Inspected]
    """Other tables of expectations, by their places in `contract`."""

    def named(self) -> dict[str, Inspected]:
        """All of them, by the section of the spec that names each."""
        found = {"data": self.main, "split": self.test}
        found.update({f"tables.{i}": side for i, side in self.sides.items()})
        found.update({f"contract.{i}": side for i, side in self.known.items()})
        return {section: inspected for section, inspected in found.items() if inspected is not None}

    def with_whole_digests(self) -> Inputs:
        """The same, with every file identified by all of its content."""
        return Inputs(
            with_whole_digests(self.main),
            None if self.test is None else with_whole_digests(self.test),
            {i: with_whole_digests(side) for i, side in self.sides.items()},
            {i: with_whole_digests(side) for i, side in self.known.items()},
        )


def inspect(job: Job) -> Inputs:
    """Looks at every input of a job without reading its rows."""
    test = getattr(job.split, "path", None)
    options = text_input.text_options(job.data)
    found = Inputs(
        main=text_input.inspect(job.data.path, job.data.format, options, job.data.version),
        test=text_input.inspect(test, job.data.format, options) if test is not None else None,
        sides={
            i: _inspect_side(operation.with_, f"tables.{i}.with")
            for i, operation in enumerate(job.tables)
            if isinstance(operation, (Join, Union))
        },
        known={
            i: _inspect_side(expectation.in_, f"contract.{i}.in")
            for i, expectation in enumerate(job.contract)
            if isinstance(expectation, Known)
        },
    )
    return found.with_whole_digests() if job.data.digest == "full" else found


def _inspect_side(side: Side, section: str) -> Inspected:
    return text_input.inspect(side.path, side.format, version=side.version, section=section)
