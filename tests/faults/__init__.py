"""Faults injected for real into whole jobs: killed processes, signals, full disks, corrupt files."""
