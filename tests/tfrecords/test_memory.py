"""A lack of memory is the fault of the machine: it ends the build, and no image is rejected for it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits on address space need Linux")
SIDE = 4000
# Stores an image with a limit on how much the address space may grow, and prints the outcome.
STORE = """
import resource, sys
from pathlib import Path
from tfrecords import images
from tfrecords.errors import ImageError
data, settings = Path(sys.argv[1]).read_bytes(), images.CropSettings(0.5, 64, "png", 95)
now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + int(sys.argv[2]), ) * 2)
try:
    images.store(data, settings)
    print("stored")
except MemoryError:
    print("not enough memory")
except ImageError as error:
    print("rejected", error)
"""
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("PNG", {"compress_level": 1}),
    "jpeg": ("JPEG", {}),
    "progressive jpeg": ("JPEG", {"progressive": True}),
    "cmyk jpeg": ("JPEG", {}),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A large image as a file of each kind. Read-only."""
    folder = tmp_path_factory.mktemp("large")
    coarse = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    picture = Image.fromarray(coarse).resize((SIDE, SIDE))
    for kind, (form, options) in KINDS.items():
        (picture.convert("CMYK") if kind.startswith("cmyk") else picture).save(folder / kind, form, **options)
    return {kind: folder / kind for kind in KINDS}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_good_image_is_stored_or_ends_the_work_and_is_never_rejected(kind: str, files: dict[str, Path]) -> None:
    ends = []
    for megabytes in (4, 30, 60, 90, 130, 200, 2000):
        command = [sys.executable, "-c", STORE, str(files[kind]), str(megabytes * 2**20)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        ends.append(done.stdout.strip())
    assert set(ends) == {"not enough memory", "stored"}
    assert ends[0] == "not enough memory" and ends[-1] == "stored"


@pytest.mark.slow
def test_a_damaged_image_is_rejected_however_much_memory_there_is(files: dict[str, Path], tmp_path: Path) -> None:
    for kind in KINDS:
        content = files[kind].read_bytes()
        (tmp_path / "cut").write_bytes(content[: len(content) // 2])
        command = [sys.executable, "-c", STORE, str(tmp_path / "cut"), str(2000 * 2**20)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert done.stdout.startswith("rejected not a readable image"), kind


@pytest.mark.slow
def test_the_job_ends_in_one_line_that_names_the_image_and_resumes_where_there_is_memory(
    files: dict[str, Path], tmp_path: Path
) -> None:
    source = tmp_path / "galaxies"
    source.mkdir()
    (source / "7.png").write_bytes(files["png"].read_bytes())
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2);"
        "sys.argv[1:2] = []; from preprocess.cli import main; main()"
    )
    job = ["--src", str(source), "--out", str(tmp_path / "out"), "--size=64", "--encoding=png", "--workers=1"]
    environment = {"PATH": "/usr/bin:/bin", "OPENBLAS_NUM_THREADS": "1"}
    for megabytes in range(240, 1000, 40):  # what Python and NumPy need differs between machines
        command = [sys.executable, "-c", limited, str(megabytes * 2**20), *job]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
        printed = done.stderr.strip().splitlines()  # nothing, if not even Python or NumPy could start
        line = printed[-1].split("\r")[-1] if printed else ""
        if "7.png" in line:
            break
    assert done.returncode == 1
    assert line.startswith(
        f"error: not enough memory ({source}/7.png: {SIDE} x {SIDE} pixels): close other programs, use fewer"
    )
    assert not (tmp_path / "out" / "manifest.json").exists()
    done = subprocess.run([sys.executable, "-m", "preprocess", *job], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "rejected.csv").read_text() == "galaxy_id,source path,reason\n"
