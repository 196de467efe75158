"""How full memory and disks are, and what is said of it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from headgate.producer.admin.space import Space, disks
from headgate.shared.broker.memory import MemoryUse, use_of

MB = 1024 * 1024
ROOMY = MemoryUse(MB, 64 * MB, True)


def figures(blocks: int, free: int, left: int) -> os.statvfs_result:
    return os.statvfs_result((4096, 4096, blocks, free, left, 0, 0, 0, 0, 255))


@pytest.mark.parametrize(("left", "is_full"), [(0, True), (49, True), (60, False)])
def test_a_disk_counts_as_full_from_95_percent_on(tmp_path: Path, left: int, is_full: bool) -> None:
    # 50 blocks are kept for root: what is used is 950 of 950 + left.
    [disk] = disks([("the home", tmp_path)], lambda _: figures(1000 + left, 50 + left, left))
    assert disk.is_full is is_full
    assert disk.free_bytes == left * 4096
    assert bool(Space(ROOMY, [disk]).faults) is is_full


def test_home_and_database_on_one_disk_are_told_once(tmp_path: Path) -> None:
    places = [("the home", tmp_path), ("the database", tmp_path), ("x", tmp_path / "not there")]
    [disk] = disks(places, lambda _: figures(100, 0, 0))
    [fault] = Space(ROOMY, [disk]).faults
    told = f"the disk of the home and the database ({tmp_path}) is 100 % full (0.0 GB left)"
    assert fault == f"{told}; free some space"


def test_this_machine_has_a_disk(tmp_path: Path) -> None:
    [disk] = disks([("the home", tmp_path)])
    assert 0 <= disk.share <= 1


def test_a_redis_at_90_percent_is_told_with_what_takes_the_room() -> None:
    assert Space(replace(ROOMY, used=57 * MB)).faults == []
    use = MemoryUse(58 * MB, 64 * MB, True, {"results": 40 * MB, "dead letters": 1024})
    [fault] = Space(use).faults
    assert fault.startswith(
        "Redis is nearly full, at 91 % of its maxmemory (58.0 of 64.0 MB): results 40.0 MB; raise"
    )


def test_without_a_maxmemory_the_memory_of_the_machine_counts() -> None:
    use = use_of({"used_memory": 95 * MB, "maxmemory": 0, "total_system_memory": 100 * MB})
    assert use.is_full
    assert "95 % of the machine's memory" in str(use)
    assert not use_of({"used_memory": 5}).is_full


def test_a_redis_that_cannot_write_its_file_is_told() -> None:
    [fault] = Space(ROOMY, unwritten="aof_last_write_status is err").faults
    assert "cannot write its file (aof_last_write_status is err)" in fault
