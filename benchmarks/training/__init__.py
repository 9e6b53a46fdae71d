"""The one training loop, what a method does in it, and its checkpoints."""
