"""Training runs, their optimiser, logs and checkpoints."""
