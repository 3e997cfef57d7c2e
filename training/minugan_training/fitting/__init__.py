"""Training: the loop, its step, losses, state and checkpoints."""
