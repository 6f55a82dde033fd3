"""What `treadle dvc` shows."""

from __future__ import annotations

import shlex

from treadle.jobs.dvc.export import Exported


def show_export(done: Exported) -> None:
    print(f"stage     {done.stage} in {done.file}")
    for label, paths in (("pointer", done.pointers), ("as it was", done.kept), ("lines in", done.ignored)):
        for path in paths:
            print(f"{label:<9} {path}")
    for note in done.notes:
        print(f"note      {note}")
    if done.pointers:
        print(f"next      {shlex.join(['dvc', 'commit', *done.pointers])} puts the data into DVC's cache")
