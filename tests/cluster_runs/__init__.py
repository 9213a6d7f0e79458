"""A real Ray cluster under faults and under a growing load: `python -m tests.cluster_runs`."""
