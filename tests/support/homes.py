"""Homes of embedded servers for tests: members as processes, and what is left running."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import redis

from headgate.shared.servers.embedded import Membership, join, processes
from tests import ROOT
from tests.support.child import BUSY, wait_until

GRACE_S = 0.3
KEEPER, SERVER = "keeper.py", "--dir"  # in the command line of each
MEMBER = """
import sys
from pathlib import Path
import redis
from headgate.shared.servers.embedded import join
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
        self.process.communicate(timeout=20 * BUSY)
        assert self.process.returncode == 0

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()


def client(url: str) -> Any:
    return redis.Redis.from_url(url.replace("redis+socket://", "unix://"), decode_responses=True)


def until(condition: Callable[[], object], within_s: float = 20.0) -> None:
    wait_until(condition, within_s)


def answers(url: str) -> bool:
    try:
        return bool(client(url).ping())
    except redis.RedisError:
        return False


def processes_of(home: Path, word: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(home) in line and word in line and not ended(process.pid):
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


def wait_for_sync(url: str) -> None:
    """What was written is in the file: the server survives kill -9 with it."""
    assert client(url).waitaof(1, 0, 5000 * BUSY)[0] == 1


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder with a short path; whatever was started below it has ended afterwards."""
    base = Path(tempfile.mkdtemp(prefix="hg-home-")).resolve()
    try:
        yield base
    finally:
        for word in (sys.executable, KEEPER, SERVER):  # keepers before their servers
            for process in processes_of(base, word):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        until(lambda: not processes_of(base, ""))
        shutil.rmtree(base)


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
