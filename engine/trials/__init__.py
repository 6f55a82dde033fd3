"""Trials: a model trained without one fold of the training rows, and measured on it.

Comparing models, tuning them and building ensembles all ask for trials. What came of one is kept under the digest
of all that it depends on, so that none is made twice, whoever asks and however often a run is interrupted.
"""
