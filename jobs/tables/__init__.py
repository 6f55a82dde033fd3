"""Published tables by name and version: what there is, what differs, and back to an earlier run."""
