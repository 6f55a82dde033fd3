"""Runs and models in MLflow: recording, versions and aliases, promotion by gates. Manifests and bundles are the truth."""
