"""Where a job runs: cluster profiles, hardware probe, launch and attach."""
