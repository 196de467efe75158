"""The command line with closed and full streams and with unusable homes."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest

from headgate.shared.errors import shown
from tests.support.child import BUSY
from tests.support.command import PROGRAM, headgate, program
from tests.support.servers import ValkeyServer


def under_sh(arguments: str, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run `headgate` with these arguments in a shell."""
    return subprocess.run(
        ["/bin/sh", "-c", f'"$@" {arguments}', "sh", *PROGRAM],
        env={**os.environ, **env}, capture_output=True, text=True, timeout=60 * BUSY,
        check=False,
    )  # fmt: skip


def on_a_terminal(arguments: list[str], env: dict[str, str], columns: int) -> list[str]:
    """Return the lines that `headgate` shows on a terminal of that width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    wide = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    wide |= {**env, "TERM": "xterm"}
    command = subprocess.Popen([*PROGRAM, *arguments], env=wide, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # Linux says EIO where others say end of file
        while piece := os.read(ours, 65_536):
            shown += piece
    os.close(ours)
    assert command.wait(30 * BUSY) == 0, shown
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Return the settings of a new installation."""
    return {"HEADGATE_HOME": str(tmp_path / "home")}


@pytest.mark.parametrize(
    ("arguments", "code", "fault"),
    [
        ("submit <&-", 2, "prompt"),
        ("models >&-", 0, ""),
        ("settings >&- <&- 2>&-", 0, ""),
        ("nonsense 2>/dev/full", 2, ""),
        ("models >/dev/full", 1, "standard output cannot be written: No space left"),
        ("models --json >/dev/full", 1, "standard output cannot be written: No space left"),
        ("batch --help >/dev/full", 1, "standard output cannot be written: No space left"),
    ],
)
def test_closed_and_full_streams_are_no_internal_fault(
    env: dict[str, str], arguments: str, code: int, fault: str
) -> None:
    ended = under_sh(arguments, env)
    assert ended.returncode == code, ended
    assert fault in ended.stderr
    for unwanted in ("Traceback", "internal fault", "Exception ignored"):
        assert unwanted not in ended.stderr


@pytest.mark.parametrize("command", [["submit", "x"], ["up"], ["db", "upgrade"], ["worker"]])
def test_a_home_that_is_none_is_wrong_use_and_names_its_setting(
    tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "file").touch()
    for home in (str(tmp_path / "file"), "/proc/x", str(tmp_path / "file" / "below")):
        ended = headgate(command, {"HEADGATE_HOME": home})
        assert ended.code == 2, ended
        assert f"HEADGATE_HOME: {shown(home)}" in ended.err
        assert "set HEADGATE_HOME to a folder" in ended.err


def test_a_second_up_in_one_home_names_the_first(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    with (tmp_path / "home" / "up.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        first.write("4711\n")
        first.flush()
        ended = headgate(["up", "--simulate"], env)
    assert ended.code == 2
    assert "pid 4711" in ended.err
    assert "stop it" in ended.err


def test_a_downgrade_to_an_unknown_revision_is_refused_before_the_question(
    env: dict[str, str],
) -> None:
    assert headgate(["db", "upgrade"], env).code == 0
    for flags in (["--yes"], []):
        ended = headgate(["db", "downgrade", "zzz", *flags], env)
        assert ended.code == 2
        assert "REVISION: 'zzz'" in ended.err
        assert "base, 0001" in ended.err
        assert "Rows may be lost" not in ended.err


def test_an_unconfirmed_downgrade_names_the_option_that_confirms_it(env: dict[str, str]) -> None:
    assert headgate(["db", "upgrade"], env).code == 0
    unasked = headgate(["db", "downgrade", "base"], env)
    assert unasked.code == 2
    assert "--yes" in unasked.err
    assert headgate(["db", "downgrade", "base"], env, stdin=b"n\n").code == 130
    assert headgate(["db", "check"], env).code == 0
    assert headgate(["db", "downgrade", "base"], env, stdin=b"y\n").code == 0
    assert headgate(["db", "downgrade", "0001", "--yes"], env).code == 2


def test_a_narrow_table_hides_columns_and_wraps_no_name(env: dict[str, str]) -> None:
    piped = headgate(["models"], env).out.splitlines()[1:]
    names = [row.split("\t")[0] for row in piped]
    for columns in (40, 80, 200):
        header, *shown = on_a_terminal(["models"], env, columns)
        left_out = [shown.pop()] if columns < 200 else []
        assert [row.split()[0] for row in shown] == names
        assert header.split()[0] == "model"
        assert all("limits" in output and "--json" in output for output in left_out)
        assert ("limits" in header) is (columns == 200)


CELERY = [sys.executable, "-m", "celery", "-A", "headgate.workers.app", "worker"]


@pytest.mark.parametrize("argv", [[*PROGRAM, "worker"], [*PROGRAM, "up"], CELERY])
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("OPENAI_API_KEY", "sk-swordfish\u200b1", "U+200B (ZERO WIDTH SPACE) in it"),
        ("ALL_PROXY", "socks5://me:swordfish@127.0.0.1:9", "add api.openai.com to NO_PROXY"),
    ],
)
def test_a_key_or_proxy_that_cannot_be_used_stops_a_worker_at_its_start(
    valkey: ValkeyServer, env: dict[str, str], argv: list[str], name: str, value: str, words: str
) -> None:
    env |= {"HEADGATE_REDIS_URL": valkey.url, "OPENAI_API_KEY": "sk-1", name: value}
    ended = program(argv, env)
    assert ended.code == 2, ended
    assert name in ended.err
    assert words in ended.err
    assert "swordfish" not in ended.err
    assert "Traceback" not in ended.err
