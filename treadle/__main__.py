"""`treadle`, and `python -m treadle`."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """The command line. Exit status: 0 done, 1 the job failed, 2 the request was wrong."""
    try:
        from treadle.jobs.cli import app

        app()
    except KeyboardInterrupt:  # while modules were imported
        print("treadle: cancelled; nothing was published", file=sys.stderr)
        sys.exit(130)
    finally:
        # The exit status is decided: an impatient second Ctrl-C must not turn it into a traceback.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
