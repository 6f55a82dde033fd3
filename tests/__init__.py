"""Tests of Treadle."""
