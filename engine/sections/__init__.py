"""Sections of a spec that have much to say of themselves; `treadle.engine.job` puts all sections together."""
