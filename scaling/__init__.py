"""From measured costs to a cluster: arithmetic, and a simulation of routing and batching."""
