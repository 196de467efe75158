"""The embedded Valkey: one per home, there while a command uses it, and gone soon after."""

import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import kombu
import psutil
import pytest
import redis

from headgate.shared.servers.embedded import join, processes, running
from tests.support.homes import (
    GRACE_S,
    KEEPER,
    SERVER,
    all_gone,
    answers,
    client,
    enter,
    kill,
    members,
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


def test_twenty_simultaneous_first_starts_share_one_keeper_and_one_server(home: Path) -> None:
    with members(home, 20) as all_members:
        for member in all_members:
            member.go()
        urls = {member.joined() for member in all_members}
        assert len(urls) == 1
        url = urls.pop()
        assert len(processes_of(home, KEEPER)) == 1
        assert len(processes_of(home, SERVER)) == 1
        assert (home / "valkey/keeper.log").read_text().count("started") == 1
        before = pids(home)

        for member in all_members[:19]:  # one of them has started the keeper
            kill(member.process.pid)
        time.sleep(GRACE_S + 1)  # longer than the keeper would wait without members
        assert client(url).set("after", "the kill")
        assert pids(home) == before
        all_members[19].leave()
    until(lambda: all_gone(home), within_s=GRACE_S + 5)

    with enter(home) as again:
        assert again.url == url
        assert client(url).get("after") == "the kill"
        assert len(client(url).keys("member:*")) == 20


def test_a_home_too_long_for_a_socket_gets_a_port_with_a_password(base: Path) -> None:
    home = base / ("long" * 25)
    with enter(home) as membership:
        assert membership.url.startswith("redis://:")
        secret, _, place = membership.url.removeprefix("redis://:").partition("@")
        assert len(secret) == 48
        assert place.startswith("127.0.0.1:")
        with pytest.raises(redis.AuthenticationError):
            client(f"redis://{place}").ping()
        client(membership.url).set("kept", "yes")
        wait_for_sync(membership.url)
        keeper, server = pids(home)
        kill(server)
        until(lambda: answers(membership.url))
        until(lambda: running(home))
        kill(keeper)
        with enter(home) as second:
            assert second.url == membership.url
            assert client(second.url).get("kept") == "yes"
        assert secret not in "".join(p.read_text() for p in (home / "valkey").glob("*.log"))
        assert secret not in " ".join(processes_of(home, SERVER)[0].cmdline())


def test_a_home_with_blanks_quotes_and_signs_works_for_redis_and_kombu(base: Path) -> None:
    home = base / """it's "a" höme #1 50%"""
    with enter(home) as membership:
        assert membership.url.startswith("redis+socket:///")
        assert answers(membership.url)
        with kombu.Connection(f"{membership.url}?virtual_host=0") as connection:
            connection.connect()


def test_only_the_owner_can_read_the_home(home: Path) -> None:
    with enter(home) as membership:
        client(membership.url).set("a", "b")
        modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in [home, *home.rglob("*")]}
    assert len(modes) > 10
    for path, mode in modes.items():
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_a_stopped_process_is_still_a_member(home: Path) -> None:
    with members(home, 1) as (member,):
        member.go()
        url = member.joined()
        os.kill(member.process.pid, signal.SIGSTOP)
        end = time.monotonic() + GRACE_S + 2
        while time.monotonic() < end:
            assert running(home) == url
        kill(member.process.pid)
        until(lambda: all_gone(home))


@pytest.mark.parametrize("ends", [6, pytest.param(40, marks=pytest.mark.long)])
def test_a_command_that_joins_at_the_moment_of_the_end_gets_a_working_server(
    home: Path, ends: int
) -> None:
    keepers, joins = set[int](), 0
    end = time.monotonic() + 150
    while len(keepers) < ends:  # a member every few ms: the next one comes while the keeper ends
        assert time.monotonic() < end
        with join(home, grace_s=0) as membership:
            keepers.add(pids(home)[0])
            connection = client(membership.url)
            joins += 1
            assert connection.incr("joins") == joins
            time.sleep(0.001)
            assert connection.ping()
            connection.close()
        time.sleep(0.003)


def test_children_do_not_keep_the_server_up(home: Path) -> None:
    membership = enter(home)
    started = subprocess.Popen(["/bin/sleep", "600"], close_fds=False)
    forked = os.fork()
    if not forked:
        time.sleep(600)
        os._exit(0)
    try:
        membership.close()
        membership.close()
        until(lambda: all_gone(home))
    finally:
        started.kill()
        started.wait()
        os.kill(forked, signal.SIGKILL)
        os.waitpid(forked, 0)


def test_the_keeper_ignores_ctrl_c_and_a_closed_terminal_and_ends_on_sigterm(home: Path) -> None:
    with enter(home) as membership:
        keeper, server = pids(home)
        assert len({os.getsid(0), os.getsid(keeper), os.getsid(server)}) == 3
        assert psutil.Process(keeper).cwd() == "/"
        for sign in (signal.SIGINT, signal.SIGHUP):
            os.kill(keeper, sign)
        client(membership.url).set("kept", "yes")
        os.kill(keeper, signal.SIGTERM)
        until(lambda: all_gone(home))
        assert not (home / "valkey/valkey.pid").exists()
        assert not (home / "valkey/sock").exists()
        assert "ready to exit" in (home / "valkey/valkey.log").read_text()
        assert client(membership.ensure()).get("kept") == "yes"


def test_reading_the_state_starts_and_creates_nothing(home: Path) -> None:
    assert running(home) is None
    assert processes(home) is None
    assert not home.exists()
    with enter(home) as membership:
        assert running(home) == membership.url
    until(lambda: running(home) is None)
