"""The choice of hardware and precision, the line that describes it, and a quiet start."""

import os

import pytest

from tfrecords.errors import RunError
from trainer.backends.base import Share
from trainer.backends.choose import choose
from trainer.backends.on_jax import JaxDevices
from trainer.backends.on_tensorflow import TensorFlowDevices
from trainer.backends.startup import without_native_notes


def test_auto_precision_is_float32_on_a_cpu_and_mixed_on_a_gpu() -> None:
    chosen = choose("auto", require_gpu=False)
    assert chosen.precision.startswith("mixed_") if chosen.gpus else chosen.precision == "float32"


@pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_a_precision_that_was_asked_for_is_kept(precision: str) -> None:
    assert choose(precision, require_gpu=False).precision == precision


def test_a_required_gpu_that_is_missing_is_an_error_with_the_way_out() -> None:
    if choose("auto", require_gpu=False).gpus:
        assert choose("auto", require_gpu=True).gpus
    else:
        with pytest.raises(RunError, match=r"no GPU found.*nvidia-smi.*omit the flag"):
            choose("auto", require_gpu=True)


def test_the_line_about_the_hardware_names_all_that_is_used() -> None:
    cpu = TensorFlowDevices((), 0, "float32")
    assert cpu.describe(32) == (
        f"CPU with {os.cpu_count()} cores, no GPU found; tensorflow, precision float32, XLA off, one device, 32 images per step"
    )
    two = TensorFlowDevices(("H200", "H200"), 150 * 2**30, "mixed_bfloat16", local=2)
    assert two.describe(64) == (
        "2 x GPU H200 with 150 GiB; tensorflow, precision mixed_bfloat16, XLA off, "
        "MirroredStrategy over 2 devices, 32 images each per step"
    )
    four = JaxDevices(("H200", "H200"), 0, "mixed_bfloat16", xla=True, local=2, share=Share(2, 1))
    assert four.describe(64) == (
        "2 x GPU H200; jax, precision mixed_bfloat16, XLA on, "
        "data parallel over 4 devices of 2 processes, 16 images each per step"
    )


def test_native_notes_are_held_back_where_all_goes_well(capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    with without_native_notes():
        os.write(1, b"notes on stdout\n")
        os.write(2, b"a screenful of notes\n")
    os.write(2, b"our line\n")
    assert capfd.readouterr() == ("before\n", "our line\n")


def test_native_notes_are_shown_where_the_start_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ImportError), without_native_notes():
        os.write(2, b"libcuda.so is of the wrong version\n")
        raise ImportError
    assert capfd.readouterr().err == "libcuda.so is of the wrong version\n"
