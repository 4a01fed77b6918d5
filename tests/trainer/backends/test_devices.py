"""The choice of hardware and precision, the line that describes it, and a quiet start."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tfrecords.errors import RunError
from trainer.backends.base import Share
from trainer.backends.choose import choose
from trainer.backends.on_jax import JaxDevices, find_hardware
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


class _Gpu:
    """What JAX shows of a GPU with 140 GiB, of which it may use three quarters."""

    platform, device_kind, compute_capability = "gpu", "NVIDIA H200", "9.0"

    def __init__(self, fraction: float) -> None:
        self._fraction = fraction

    def memory_stats(self) -> dict[str, int]:
        return {"bytes_limit": int(self._fraction * 140 * 2**30)}


@pytest.fixture
def no_compilation_cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """JAX as without JAX_COMPILATION_CACHE_DIR."""
    jax = pytest.importorskip("jax")
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.parametrize(("name", "fraction"), [("", 0.75), ("XLA_CLIENT_MEM_FRACTION", 0.5)])
@pytest.mark.usefixtures("no_compilation_cache")
def test_the_memory_of_a_gpu_is_all_of_it(name: str, fraction: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if name:
        monkeypatch.setenv(name, str(fraction))
    monkeypatch.setattr(jax, "local_devices", lambda: [_Gpu(fraction)])
    hardware = find_hardware()
    assert hardware.memory / 2**30 == pytest.approx(140)
    assert (hardware.gpus, hardware.capability) == (("NVIDIA H200",), (9, 0))


@pytest.mark.usefixtures("no_compilation_cache")
def test_compiled_programs_are_kept_in_the_users_cache_on_gpus_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    find_hardware()
    assert not list(tmp_path.iterdir()) or jax.local_devices()[0].platform == "gpu"
    monkeypatch.setattr(jax, "local_devices", lambda: [_Gpu(0.75)])
    find_hardware()
    ours = tmp_path / "galaxy-zoo-vgg16" / "jax"
    assert jax.config.jax_compilation_cache_dir == str(ours) and ours.is_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    find_hardware()  # a folder that was chosen before, here by the line above, is kept
    assert jax.config.jax_compilation_cache_dir == str(ours)


@pytest.mark.usefixtures("no_compilation_cache")
def test_a_home_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(jax, "local_devices", lambda: [_Gpu(0.75)])
    find_hardware()
    assert jax.config.jax_compilation_cache_dir is None
