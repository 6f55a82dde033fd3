"""Revisions of the job store's tables, for Alembic; `JobStore.migrate` applies those that are missing."""
