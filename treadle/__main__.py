"""`treadle`, and `python -m treadle`."""

from __future__ import annotations


def main() -> None:
    """The command line. Exit status: 0 done, 1 the job failed, 2 the request was wrong."""
    from treadle.jobs.cli import app

    app()


if __name__ == "__main__":
    main()
