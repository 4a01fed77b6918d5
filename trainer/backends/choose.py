"""Which backend, devices and precision a run uses."""

from tfrecords.errors import RunError
from trainer.backends import on_jax, on_tensorflow
from trainer.backends.base import WHOLE, Devices, Share
from trainer.backends.startup import load_backend

# The first NVIDIA generation with bfloat16 arithmetic (Ampere); older ones have float16 alone.
_BFLOAT16_CAPABILITY = (8, 0)


def choose(precision: str, require_gpu: bool, share: Share = WHOLE) -> Devices:
    """Find the devices and settle the precision; all GPUs of the machine are used, or else its CPU.

    precision "auto": bfloat16 on GPUs that have it, float16 (with loss scaling) on older ones, float32 on CPUs.
    Raises RunError where a GPU is required and none is found.
    """
    backend = load_backend()
    hardware = on_jax.find_hardware() if backend == "jax" else on_tensorflow.find_hardware()
    if require_gpu and not hardware.gpus:
        extra = "jax-gpu" if backend == "jax" else "gpu"
        raise RunError(
            f"no GPU found, and --require_gpu was given: check nvidia-smi, install with the {extra} extra "
            f"(pip install '.[{extra}]'), or leave the flag out"
        )
    unsafe = on_tensorflow.UNSAFE_ON_SEVERAL if backend == "tensorflow" and hardware.local > 1 else None
    if precision == "auto":
        mixed = "mixed_bfloat16" if hardware.capability >= _BFLOAT16_CAPABILITY else "mixed_float16"
        precision = mixed if hardware.gpus and mixed != unsafe else "float32"
    if precision == unsafe:
        raise RunError(
            f"--precision {precision} on several devices needs JAX (Keras' loss scaling looks at the first device's gradients "
            "only): set KERAS_BACKEND=jax, or take --precision float32"
        )
    if backend == "jax":  # which always compiles its steps
        return on_jax.JaxDevices(hardware.gpus, hardware.memory, precision, True, hardware.local, share)
    # TensorFlow's strategies fail with XLA, and on a CPU oneDNN is faster (benchmarks/README.md, "XLA").
    xla = bool(hardware.gpus) and hardware.local == 1
    return on_tensorflow.TensorFlowDevices(hardware.gpus, hardware.memory, precision, xla, hardware.local, share)
