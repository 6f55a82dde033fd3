"""The one pass over a table: a task a partition, and a tree of merges on the workers."""

from __future__ import annotations

from collections.abc import Mapping

from treadle.engine.artifacts import Source
from treadle.engine.context import FAN_IN, Context
from treadle.engine.profile.statistics import Statistics, merge_tables, read_and_gather
from treadle.engine.program import Program


def gather(context: Context, source: Source, kinds: Mapping[str, str], target: str | None) -> Statistics:
    """The statistics of all rows of an input.

    Partial results are merged before other partitions are begun, and nothing else holds them, so that a worker's
    memory is that of a partition and of a few tables, however many partitions there are.
    """
    from distributed import as_completed

    program = Program(context.store, context.backend, tuple(source.kinds.items()), None, ())
    sizes = [sum(piece.rows for piece in partition) for partition in source.partitions]
    leaves = context.submit(read_and_gather, source.partitions, program, kinds, target)
    rows_of = dict(zip([leaf.key for leaf in leaves], sizes, strict=True))
    level = list(leaves)
    while len(level) > 1:
        groups = [level[i : i + FAN_IN] for i in range(0, len(level), FAN_IN)]
        level = [context.client.submit(merge_tables, group, pure=False, priority=1) for group in groups]
    (root,) = level
    arriving = as_completed(leaves)
    del leaves, level
    done = rows = 0
    for leaf in arriving:
        if leaf.status != "finished":
            break  # the root has the same error, which `Context.gather` explains
        done, rows = done + 1, rows + rows_of[leaf.key]
        context.progress(done, len(rows_of), rows)
        del leaf
    found: Statistics = context.gather([root])[0]
    return found
