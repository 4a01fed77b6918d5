"""Free memory respects the limits of containers and of Slurm, in both versions of cgroups."""

from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.input.cache import _left_in_cgroups, available_memory

NO_LIMIT_OF_VERSION_1 = 2**63 - 4096


def _limit(folder: Path, limit: object, used: object) -> None:
    """Write the files of version 2."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")


def _limit_of_version_1(folder: Path, limit: object, used: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")


def test_a_limit_of_version_2_leaves_what_is_not_used(tmp_path: Path) -> None:
    _limit(tmp_path / "user.slice/job", 1000, 300)
    assert _left_in_cgroups("0::/user.slice/job\n", tmp_path) == [700]


def test_a_limit_of_version_1_leaves_what_is_not_used(tmp_path: Path) -> None:
    _limit_of_version_1(tmp_path / "memory/slurm/job_7", 1000, 300)
    own = "9:name=systemd:/slurm/job_7\n5:cpu,cpuacct:/slurm\n4:memory:/slurm/job_7\n0::/\n"
    assert _left_in_cgroups(own, tmp_path) == [700]


def test_the_memory_controller_is_found_among_others_of_its_line(tmp_path: Path) -> None:
    _limit_of_version_1(tmp_path / "memory/job", 50, 8)
    assert _left_in_cgroups("4:cpuset,memory,pids:/job\n", tmp_path) == [42]
    assert _left_in_cgroups("4:cpuset,memory_pressure,pids:/job\n", tmp_path) == []


@pytest.mark.parametrize("tightest", ["", "slurm", "slurm/job", "slurm/job/step"])
def test_a_limit_holds_for_all_folders_below(tmp_path: Path, tightest: str) -> None:
    for name in ("", "slurm", "slurm/job", "slurm/job/step"):
        _limit(tmp_path / name, 100 if name == tightest else 1000, 60)
    left = _left_in_cgroups("0::/slurm/job/step\n", tmp_path)
    assert sorted(left) == [40, 940, 940, 940]


def test_limits_of_other_groups_and_above_the_root_do_not_count(tmp_path: Path) -> None:
    _limit(tmp_path, 1, 1)
    _limit(tmp_path / "root/slurm/other", 2, 1)
    _limit(tmp_path / "root/slurm/job/step", 3, 1)
    _limit(tmp_path / "root/slurm/job", 1000, 1)
    assert _left_in_cgroups("0::/slurm/job\n", tmp_path / "root") == [999]


def test_no_limit_is_no_limit(tmp_path: Path) -> None:
    _limit(tmp_path, "max", 300)
    _limit(tmp_path / "job", "max", 300)
    assert _left_in_cgroups("0::/job\n", tmp_path) == []
    _limit_of_version_1(tmp_path / "memory/job", NO_LIMIT_OF_VERSION_1, 300)
    assert min(_left_in_cgroups("4:memory:/job\n", tmp_path)) > 2**62


def test_files_that_are_missing_or_say_nothing_are_no_limit(tmp_path: Path) -> None:
    assert _left_in_cgroups("", tmp_path) == []
    assert _left_in_cgroups("0::/job\n4:memory:/job\n", tmp_path / "absent") == []
    (tmp_path / "job").mkdir()
    (tmp_path / "job/memory.max").write_text("1000\n")  # without the file of what is used
    assert _left_in_cgroups("0::/job\n", tmp_path) == []
    (tmp_path / "job/memory.current").write_text("")
    assert _left_in_cgroups("0::/job\n", tmp_path) == []


def test_a_container_that_sees_its_own_group_as_the_root_finds_its_limit(tmp_path: Path) -> None:
    """Its path in /proc/self/cgroup is the host's, and no such folder is mounted."""
    _limit_of_version_1(tmp_path / "memory", 1000, 1)
    assert _left_in_cgroups("4:memory:/docker/0123abc\n", tmp_path) == [999]
    _limit(tmp_path, 500, 1)
    assert _left_in_cgroups("0::/\n", tmp_path) == [499]


def test_a_path_with_colons_is_read_whole(tmp_path: Path) -> None:
    _limit(tmp_path / "a:b", 10, 3)
    assert _left_in_cgroups("0::/a:b\n", tmp_path) == [7]


@given(limit=st.integers(0, 2**63), used=st.integers(0, 2**63))
def test_what_is_left_is_never_negative(tmp_path_factory: pytest.TempPathFactory, limit: int, used: int) -> None:
    folder = tmp_path_factory.mktemp("cgroup", numbered=True)
    _limit(folder, limit, used)
    assert _left_in_cgroups("0::/\n", folder) == [max(0, limit - used)]


def test_available_memory_is_some_of_the_machines() -> None:
    assert 0 < available_memory() <= psutil.virtual_memory().total


def test_files_that_were_read_and_give_way_count_as_left(tmp_path: Path) -> None:
    _limit(tmp_path / "job", 1000, 900)
    (tmp_path / "job/memory.stat").write_text("anon 100\nactive_file 300\ninactive_file 500\n")
    assert _left_in_cgroups("0::/job\n", tmp_path) == [600]
    _limit_of_version_1(tmp_path / "memory/job", 1000, 900)
    (tmp_path / "memory/job/memory.stat").write_text("inactive_file 1\ntotal_inactive_file 500\n")
    assert _left_in_cgroups("4:memory:/job\n", tmp_path) == [600]
