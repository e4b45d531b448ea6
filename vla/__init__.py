"""vla: Vision-Language-Action policies as Lightning modules, in one straight line from shards to rollouts."""

import os

# Read by GNU OpenMP when torch is loaded: threads that wait give the core back soon. Measured on two cores beside another busy process: training
# runs at half its speed instead of a third; alone nothing changes.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"
