"""`python -m treadle.jobs.client.local_driver FOLDER`: the process of a job of `Client.local`.

The folder holds `request.json` (spec, root, fresh). What happens is appended to `events.jsonl`, what
became of it is written to `outcome.json`, and what a terminal would show goes to this process's output.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from treadle.errors import TreadleError
from treadle.signals import held, terminable


def main(folder: Path) -> int:
    """Runs the job; the exit status is that of `treadle run`."""
    with terminable():
        try:
            outcome = _run(folder)
        except KeyboardInterrupt:
            outcome = {"state": "cancelled", "reason": "Cancelled; nothing was published."}
        except TreadleError as error:
            outcome = {"state": "failed", "reason": str(error)}
            print(f"treadle: {error}", file=sys.stderr)
        with held():
            unfinished = folder / "outcome.json.tmp"
            unfinished.write_text(json.dumps(outcome), encoding="utf-8")
            os.replace(unfinished, folder / "outcome.json")
    return 0 if outcome["state"] == "succeeded" else 1


def _run(folder: Path) -> dict[str, Any]:
    from treadle.jobs import runner
    from treadle.jobs.commands import console

    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    with (folder / "events.jsonl").open("a", encoding="utf-8") as events, console.listener(silent=False) as shown:

        def listener(event: dict[str, Any]) -> None:
            events.write(f"{json.dumps(event, default=str)}\n")
            events.flush()
            if shown is not None:
                shown(event)

        run = runner.run(request["spec"], root=request["root"], fresh=request["fresh"], listener=listener)
        return {"state": "succeeded", "reason": "All stages are done.", "run": run.id}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
