"""vla: Vision-Language-Action policies as Lightning modules, in one straight line from shards to rollouts."""

__version__ = "0.1.0"
