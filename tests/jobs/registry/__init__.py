"""Tests of treadle.jobs.registry."""
