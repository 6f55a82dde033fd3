"""Models that are trained on all rows where they lie, exactly: what a pass over the partitions gathers, and solved."""
