"""Checks of the trainer on an NVIDIA GPU, on JAX: correctness of its numbers, speed, and the RMSE it reaches."""
