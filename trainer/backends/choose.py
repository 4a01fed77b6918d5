"""Which backend, devices and precision a run uses."""

from tfrecords.errors import RunError, install_extra
from trainer.backends import on_jax, on_tensorflow
from trainer.backends.base import WHOLE, Devices, Share
from trainer.backends.startup import load_backend

# The first NVIDIA generation with bfloat16 arithmetic (Ampere); older ones have only float16.
_BFLOAT16_CAPABILITY = (8, 0)


def choose(precision: str, require_gpu: bool, share: Share = WHOLE) -> Devices:
    """Find the devices and choose the precision; all GPUs of the machine are used, or its CPU if it has none.

    precision "auto": bfloat16 on GPUs that have it, float16 (with loss scaling) on older ones, float32 on CPUs.
    Raises RunError if a GPU is required but none is found, or if the precision is unsafe on several devices.
    """
    backend = load_backend()
    hardware = on_jax.find_hardware() if backend == "jax" else on_tensorflow.find_hardware()
    if require_gpu and not hardware.gpus:
        extra = "jax-gpu" if backend == "jax" else "gpu"
        raise RunError(
            f"no GPU found, and --require_gpu was given: check nvidia-smi, run {install_extra(extra)}, or omit the flag"
        )
    unsafe = on_tensorflow.UNSAFE_ON_SEVERAL if backend == "tensorflow" and hardware.local > 1 else None
    if precision == "auto":
        mixed = "mixed_bfloat16" if hardware.capability >= _BFLOAT16_CAPABILITY else "mixed_float16"
        precision = mixed if hardware.gpus and mixed != unsafe else "float32"
    if precision == unsafe:
        raise RunError(
            f"--precision {precision} on several devices needs JAX (Keras' loss scaling checks only the first device's "
            "gradients): set KERAS_BACKEND=jax, or use --precision float32"
        )
    if backend == "jax":  # JAX always compiles its steps
        return on_jax.JaxDevices(hardware.gpus, hardware.memory, precision, True, hardware.local, share)
    # TensorFlow's strategies fail with XLA, and on a CPU oneDNN is faster (benchmarks/README.md, "XLA").
    xla = bool(hardware.gpus) and hardware.local == 1
    return on_tensorflow.TensorFlowDevices(hardware.gpus, hardware.memory, precision, xla, hardware.local, share)
