"""Runs and models in MLflow: recording, versions, aliases, promotion by gates. Manifests and bundles are the truth."""
