"""Commands in groups, what they have in common, and what a terminal shows; `treadle.jobs.cli` has them all."""
