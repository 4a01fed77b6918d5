"""What hardware is found, what is made of it, and that finding it is quiet."""

import os

import pytest

from tfrecords.errors import RunError
from trainer import devices


@pytest.fixture(scope="module")
def gpus() -> int:
    """How many GPUs TensorFlow finds on this machine."""
    return len(devices.load_tensorflow())


def test_auto_precision_is_float32_on_a_cpu_and_mixed_on_a_gpu(gpus: int) -> None:
    found = devices.choose("auto", require_gpu=False)
    assert len(found.gpus) == gpus
    assert found.precision == "float32" if not gpus else found.precision.startswith("mixed_")


@pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_a_precision_that_was_asked_for_is_kept(precision: str) -> None:
    assert devices.choose(precision, require_gpu=False).precision == precision


def test_a_required_gpu_that_is_missing_is_an_error_with_the_way_out(gpus: int) -> None:
    if gpus:
        assert devices.choose("auto", require_gpu=True).gpus
    else:
        with pytest.raises(RunError, match=r"no GPU found.*nvidia-smi.*leave the flag out"):
            devices.choose("auto", require_gpu=True)


def test_the_line_about_the_hardware_names_what_is_used_and_what_lies_idle() -> None:
    assert devices.Devices((), "float32").describe() == (f"CPU with {os.cpu_count()} cores, no GPU found; precision float32")
    two = devices.Devices(("H200", "H200"), "mixed_bfloat16").describe()
    assert two == "GPU H200 (of 2 GPUs the first is used); precision mixed_bfloat16"


def test_native_notes_are_held_back_where_all_goes_well(capfd: pytest.CaptureFixture[str]) -> None:
    with devices._without_native_notes():
        os.write(2, b"a screenful of notes\n")
    os.write(2, b"our line\n")
    assert capfd.readouterr().err == "our line\n"


def test_native_notes_are_shown_where_the_start_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ImportError), devices._without_native_notes():
        os.write(2, b"libcuda.so is of the wrong version\n")
        raise ImportError
    assert capfd.readouterr().err == "libcuda.so is of the wrong version\n"
