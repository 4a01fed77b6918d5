"""A single operation of the file system that fails, whichever it is and however, costs one line and never a byte."""

import errno
import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from preprocess.job import BuildSettings, build_dataset
from tfrecords.dataset import Dataset

Settings = Callable[..., BuildSettings]
Contents = Callable[[Path], dict[str, bytes]]
# Runs a job again and again, each time in a new folder and in a process of its own. Its first, second, third ... operation
# fails, which Python reports to an audit hook before it happens; then it is run again undisturbed. Prints for each the
# operation, the error of the first run as a command would print it, and the bytes that the second left, as a hash.
INJECTOR = """
import hashlib, itertools, json, os, sys
from pathlib import Path
from preprocess import job
from preprocess.engines import _run_here
from preprocess.job import BadImages, BuildSettings, build_dataset, build_share
from preprocess.plan import PlanSettings
from tfrecords.errors import GalaxyZooError, one_line
from tfrecords.images import CropSettings
from tfrecords.shares import JobShare

src, outs, number = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
part, settings = sys.argv[4] == "part", eval(sys.argv[5])
job.run_local = lambda work, tasks, workers, on_images: _run_here(work, tasks, on_images)  # all operations in one process
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.listdir", "os.scandir")

def build(out):
    if part:
        build_share(JobShare(1, 1), src, out, settings)
    build_dataset(src, out, settings)

def content(out):
    digest = hashlib.sha256()
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(out)).encode() + b"\\0" + path.read_bytes() + b"\\0")
    return digest.hexdigest()

for step in itertools.count():
    out = outs / str(step)
    end, begin = os.pipe()
    child = os.fork()
    if child:
        os.close(begin)
        with os.fdopen(end) as answer:
            line = answer.read()
        assert os.waitpid(child, 0)[1] == 0, step
        print(line)
        if not json.loads(line)["failed"]:
            break
        continue
    left, failed = step, ""

    def fails(event, argument):
        global left, failed
        if left == 0 and not failed:
            failed = f"{event} {argument}"
            raise OSError(number, os.strerror(number), argument)
        left -= 1

    def hook(event, arguments):
        where = str(arguments[0]) if arguments else ""
        if event in CHANGES or (event == "open" and where.startswith((str(outs), str(src)))):
            if where.startswith((str(outs), str(src))):
                fails(event, where)

    fsync = os.fsync
    os.fsync = lambda descriptor: (fails("os.fsync", None), fsync(descriptor))[1]
    sys.addaudithook(hook)
    error = ""
    try:
        build(out)
    except (GalaxyZooError, OSError) as caught:
        error = one_line(caught)
    left = -1
    partial = [str(path) for path in out.rglob("*.partial")]
    build(out)
    outcome = {"failed": failed, "error": error, "partial": partial, "bytes": content(out)}
    os.write(begin, json.dumps(outcome).encode())
    os._exit(0)
"""


def _content(contents: Contents, dataset: Dataset) -> str:
    digest = hashlib.sha256()
    for name, content in contents(dataset.folder).items():
        digest.update(name.encode() + b"\0" + content + b"\0")
    return digest.hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "way"), [(errno.ENOSPC, "plain"), (errno.EIO, "part")], ids=["ENOSPC", "EIO"])
def test_a_job_of_which_any_single_operation_fails_ends_with_one_line_and_resumes_to_the_same_bytes(
    number: int, way: str, survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path
) -> None:
    settings = build_settings(size=16, examples_per_shard=2, limit=3)
    expected = _content(contents, build_dataset(survey, tmp_path / "undisturbed", settings).dataset)
    (tmp_path / "outs").mkdir()
    arguments = [str(survey), str(tmp_path / "outs"), str(number), way, repr(settings)]
    done = subprocess.run(
        [sys.executable, "-c", INJECTOR, *arguments], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) > 40 and not outcomes[-1]["error"]
    for outcome in outcomes:
        assert outcome["bytes"] == expected, outcome
        assert not outcome["partial"], outcome
        assert "\n" not in outcome["error"] and "Traceback" not in outcome["error"], outcome
    kinds = Counter(outcome["failed"].partition(" ")[0] for outcome in outcomes)
    assert min(kinds[kind] for kind in ("open", "os.rename", "os.fsync", "os.mkdir")) > 0, kinds
    # Few may fail unnoticed: what only tidies up, and times that only save a comparison.
    unnoticed = [outcome["failed"] for outcome in outcomes[:-1] if not outcome["error"]]
    assert len(unnoticed) < len(outcomes) / 4, unnoticed
