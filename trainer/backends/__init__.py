"""Hardware, training steps and predictions, on TensorFlow and on JAX.

This folder imports nothing else from `trainer`. Each backend has one file, `on_tensorflow` or `on_jax`; all other code works on
both.
"""
