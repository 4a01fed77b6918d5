"""A process uses all GPUs that it sees, several on a machine use equal parts, and GPUs left over are named."""

import re

import pytest

from tfrecords.errors import RunError
from trainer.backends.gpus import Sight, local_device_ids, unused_gpus, visible_gpus

FOUR = tuple(f"GPU-{number}{number}{number}{number}aaaa-rest" for number in range(4))


def _sights(*processes: tuple[str, tuple[str, ...]], present: tuple[str, ...] = FOUR, chosen: bool = False) -> list[Sight]:
    """One process each: its machine, and the GPUs visible to it."""
    return [Sight(f"id-{host}", host, present, visible, chosen) for host, visible in processes]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (None, FOUR),
        ("0,1,2,3", FOUR),
        ("2", FOUR[2:3]),
        ("3, 0", (FOUR[3], FOUR[0])),
        ("", ()),
        ("-1", ()),
        ("1,7,0", FOUR[1:2]),  # CUDA ignores the entries from the first wrong one on
        ("GPU-2222", FOUR[2:3]),
        ("GPU-", ()),  # ambiguous
        ("MIG-5f", ("MIG-5f",)),
    ],
)
def test_the_visible_gpus_are_those_of_cuda_visible_devices(named: str | None, expected: tuple[str, ...]) -> None:
    assert visible_gpus({} if named is None else {"CUDA_VISIBLE_DEVICES": named}, FOUR) == expected


def test_of_the_visible_gpus_jax_may_be_told_to_use_some() -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "1,2,3"}, FOUR, "0,2") == (FOUR[1], FOUR[3])
    assert visible_gpus({}, FOUR, "0,9") == FOUR[:1]


def test_one_process_on_a_node_uses_all_its_gpus() -> None:
    sights = _sights(("node1", FOUR), ("node2", FOUR))
    assert [local_device_ids(index, sights) for index in range(2)] == [None, None]
    assert unused_gpus(sights) == ""


@pytest.mark.parametrize(
    ("processes", "expected"), [(2, [(0, 1), (2, 3)]), (4, [(0,), (1,), (2,), (3,)]), (3, [(0,), (1,), (2,)])]
)
def test_processes_that_see_the_same_gpus_divide_them(processes: int, expected: list[tuple[int, ...]]) -> None:
    """On both nodes alike, whatever the order of the processes."""
    sights = [sight for _ in range(processes) for sight in _sights(("node1", FOUR), ("node2", FOUR))]
    for node in (0, 1):
        assert [local_device_ids(index, sights) for index in range(node, 2 * processes, 2)] == expected


def test_processes_that_see_gpus_of_their_own_use_all_of_them() -> None:
    """As with CUDA_VISIBLE_DEVICES set for each task, or Slurm's --gpus-per-task, with which each sees its own alone."""
    by_variable = _sights(("node1", FOUR[:2]), ("node1", FOUR[2:]))
    by_group = [Sight("id", "node1", own, own) for own in (FOUR[:2], FOUR[2:])]
    for sights in (by_variable, by_group):
        assert [local_device_ids(index, sights) for index in range(2)] == [None, None]
        assert unused_gpus(sights) == ""


def test_more_processes_than_gpus_are_an_error_that_says_what_to_do() -> None:
    sights = _sights(*[("node1", FOUR[:2])] * 3)
    with pytest.raises(RunError, match=r"^node1: 3 processes of this run share 2 GPUs: start one process per machine, or at"):
        local_device_ids(0, sights)


def test_processes_that_see_partly_the_same_gpus_are_an_error() -> None:
    sights = _sights(("node1", FOUR[:2]), ("node1", FOUR[1:]), ("node2", FOUR))
    with pytest.raises(RunError, match=r"^node1: 2 processes of this run see partly the same GPUs: give each its own"):
        local_device_ids(1, sights)
    assert local_device_ids(2, sights) is None
    same = _sights(("node1", FOUR[:1]), ("node1", FOUR[:1]), chosen=True)  # JAX_LOCAL_DEVICE_IDS=0 for both
    with pytest.raises(RunError, match="partly the same"):
        local_device_ids(0, same)


def test_where_no_gpus_can_be_listed_one_process_is_not_restricted_and_several_use_one_each() -> None:
    sights = _sights(("node1", ()), ("node2", ()), ("node1", ()), present=())
    assert [local_device_ids(index, sights) for index in range(3)] == [(0,), None, (1,)]
    assert unused_gpus(sights) == ""
    assert local_device_ids(0, _sights(("node1", ()), ("node1", ()), present=(), chosen=True)) is None


@pytest.mark.parametrize(
    ("sights", "named"),
    [
        (_sights(*[("node1", FOUR)] * 3), "GPU-3333aaaa of node1"),
        (_sights(("node1", FOUR[:1]), ("node2", FOUR[1:])), ", ".join(f"{name[:12]} of node1" for name in FOUR[1:])
         + f", {FOUR[0][:12]} of node2"),
        (_sights(("node1", FOUR), ("node2", FOUR[:3])), "GPU-3333aaaa of node2"),
    ],
)  # fmt: skip
def test_gpus_that_no_process_uses_are_named_in_one_line_with_what_to_do(sights: list[Sight], named: str) -> None:
    line = unused_gpus(sights)
    assert line.startswith(f"not used by this run: {named}: ") and "\n" not in line
    assert re.search(r"start one process on it.*CUDA_VISIBLE_DEVICES", line)


def test_parts_of_a_gpu_are_not_taken_for_unused_gpus() -> None:
    assert unused_gpus(_sights(("node1", ("MIG-5f",)))) == ""
