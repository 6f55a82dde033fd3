"""Tests of treadle.engine.readers."""
