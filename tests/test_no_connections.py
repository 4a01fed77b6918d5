"""No command, and no process that it starts, opens a connection or looks up an address, unless a flag asks for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer import small

# Imported by every Python that starts with this folder in its path, before anything of ours.
SITE = """
import os, sys

def forbid(event, arguments):
    if event == "socket.bind" and arguments[1][:2] == ("::1", 0):
        return  # urllib3, which TensorFlow imports, asks so whether this machine has IPv6
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        with open(os.environ["TRACE"], "a") as trace:
            trace.write(f"{event} {arguments[1:]} {sys.argv}\\n")
        raise OSError("sockets are forbidden")

sys.addaudithook(forbid)
"""
# In this order: each may use what those before it have left.
COMMANDS = f"""
preprocess demo --out demo --galaxies 60 --workers 2
preprocess --src demo --out data --size 32 --workers 2
preprocess --src demo --out parts --size 32 --workers 2 --part 1/1
preprocess verify --tfrecords data --src demo --workers 2
preprocess trees kaggle
trainer --tfrecords data --out run --weights none --backbone {small.SMALL} --epochs 1 --submission submission.csv
trainer evaluate --run run --tfrecords data --split validation
trainer predict --run run --tfrecords data --split unlabelled --out records.csv
trainer predict --run run --images demo/images_test_rev1 --out images.parquet
trainer embed --run run --tfrecords data --split unlabelled --out features.parquet
trainer similar --run run --tfrecords data --split unlabelled --to 900001 --out similar
trainer explore --tfrecords data --out page
trainer explore --tfrecords data --predictions records.csv --out predicted
trainer compare --run run --run other --tfrecords data --out compared
trainer export --run run --format savedmodel --out saved
trainer benchmark --tfrecords data --backbone {small.SMALL} --batch_size 8 --steps 1 --rounds 1
"""
RUN = """
import shlex, shutil, sys
from tests.test_documents import parse
from tests.trainer import small

small.register()
for line in sys.stdin.read().strip().splitlines():
    if "compare" in line:
        shutil.copytree("run", "other")
    if "--to" in line:
        import pandas
        line = line.replace("900001", str(pandas.read_csv("records.csv").GalaxyID[0]))
    print(line, file=sys.stderr)
    command, _, args = parse(shlex.split(line))
    command.run(args)
"""


def _started(tmp_path: Path, *command: str) -> tuple["subprocess.Popen[str]", Path]:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    trace = tmp_path / "trace"
    paths = os.pathsep.join([str(tmp_path / "site"), str(Path(__file__).parents[1])])
    environment = {**os.environ, "PYTHONPATH": paths, "TRACE": str(trace)}
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, *command], cwd=tmp_path, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )
    return process, trace


def test_a_connection_would_be_noticed(tmp_path: Path) -> None:
    process, trace = _started(tmp_path, "-c", "import socket; socket.create_connection(('127.0.0.1', 1))")
    process.communicate()
    assert process.returncode == 1 and "socket.getaddrinfo" in trace.read_text()


@pytest.mark.slow
def test_no_command_opens_a_connection(tmp_path: Path) -> None:
    process, trace = _started(tmp_path, "-c", RUN)
    _, stderr = process.communicate(COMMANDS, timeout=600)
    assert process.returncode == 0, stderr
    assert not trace.exists(), trace.read_text()
