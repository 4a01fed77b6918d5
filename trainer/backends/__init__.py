"""What Keras computes with: hardware, training steps and predictions, on TensorFlow and on JAX.

It imports nothing else of `trainer`. One file per backend, `on_tensorflow` and `on_jax`; everything outside this folder works
on both alike.
"""
