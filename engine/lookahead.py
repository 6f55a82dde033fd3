"""What the operations that are still to come mean for rows that are about to be exchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from treadle.engine.operation import Operation
from treadle.engine.program import Program, Step
from treadle.engine.relational import Aggregate, Dedupe, Drop, Pivot, Rename, Select, TableOperation, Union, Window


def held_after(held: frozenset[str] | None, step: Step) -> frozenset[str] | None:
    """The columns whose equal values lie in one partition each after a step, given those before it."""
    operation = step.operation
    if held is None or isinstance(operation, Union):
        return None
    if isinstance(operation, Rename):
        return frozenset(operation.columns.get(name, name) for name in held)
    return None if held & operation.makes(step.side_columns) or _loses(operation, held) else held


def shared_keys(tables: Sequence[TableOperation], index: int, keys: Sequence[str]) -> tuple[str, ...]:
    """Some of the keys: those that later operations have, too, so that one exchange serves several."""
    shared = tuple(dict.fromkeys(keys))
    for operation in tables[index + 1 :]:
        if set(shared) & operation.makes() or _begins_anew(operation):
            break
        together = operation.by if isinstance(operation, Aggregate) else operation.together
        if together is None or (isinstance(operation, Dedupe) and operation.columns is None):
            continue
        common = tuple(key for key in shared if key in together)
        if not common:
            break
        shared = common
    return shared


def keys_of_later(tables: Sequence[TableOperation], index: int, by: Sequence[str]) -> tuple[str, ...]:
    """Keys by which rows are exchanged later on in any case, and that groups by `by` can do with; else none."""
    for operation in tables[index + 1 :]:
        if _begins_anew(operation) or set(by) & operation.makes():
            return ()
        if isinstance(operation, Dedupe) and operation.columns is None:
            return tuple(by)
        if isinstance(operation, (Window, Dedupe)):
            return tuple(key for key in by if key in (operation.together or ()))
    return ()


def still_used(program: Program, tables: Sequence[TableOperation], index: int) -> Select | None:
    """What leaves out the columns that nothing from `index` on looks at before they go; None where there are none."""
    columns = list(program.output())
    kept = tuple(name for name in columns if not _is_unused(name, tables[index:]))
    return Select(op="select", columns=kept) if len(kept) < len(columns) else None


def only(program: Program, kept: Select, index: int) -> Program:
    """The program up to `index` without what only other columns need."""
    pruned = program.pruned(kept.columns)
    # For their order, and because the id column is always read.
    return replace(pruned, steps=(*pruned.steps, Step(index, kept)))


def _is_unused(name: str, operations: Sequence[TableOperation]) -> bool:
    for operation in operations:
        if isinstance(operation, Drop) and name in operation.columns:
            return True
        if isinstance(operation, Select):
            if name not in operation.columns:
                return True
            continue
        groups = isinstance(operation, (Aggregate, Pivot))
        looks_at = {*operation.reads, *(operation.together or ()), *(operation.gathers if groups else ())}  # type: ignore[union-attr]
        every = isinstance(operation, Union) or (isinstance(operation, Dedupe) and operation.columns is None)
        # What is made anew has the place of the column that it replaces.
        if every or name in looks_at or name in operation.makes():
            return False
        if groups and not operation.broadcast:  # type: ignore[union-attr]
            return True
    return False


def _loses(operation: Operation, names: frozenset[str]) -> bool:
    """Whether some of the columns are gone after it, so that another one may come to be called like them."""
    if isinstance(operation, Select):
        return not names <= set(operation.columns)
    return isinstance(operation, Drop) and bool(names & set(operation.columns))


def _begins_anew(operation: TableOperation) -> bool:
    """Whether keys before it say nothing of the rows after it."""
    return isinstance(operation, (Rename, Union, Pivot)) or (
        isinstance(operation, Aggregate) and not operation.broadcast
    )
