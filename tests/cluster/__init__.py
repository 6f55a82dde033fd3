"""Tests of treadle.cluster."""
