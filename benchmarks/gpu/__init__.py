"""What the trainer does on an NVIDIA GPU, on JAX: whether its numbers are right, how fast it is, what it reaches."""
