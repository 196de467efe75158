"""What comes from outside cannot control the terminal that shows it, and reaches a pipe exactly."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.child import BUSY
from tests.support.command import PROGRAM, headgate
from tests.support.played_worker import PlayedWorker
from tests.support.servers import ValkeyServer

HOSTILE = (
    "plain\ttab é 漢 🙂 \x1b]0;title\x07 \x1b[2J \x9b2J \x7f \x08 \x0d "
    "\u202etxt.exe\u202c \u2066x\u2069"
)
SHOWN = (
    "plain\ttab é 漢 🙂 \\x1b]0;title\\x07 \\x1b[2J \\x9b2J \\x7f \\x08 \\r "
    "\\u202etxt.exe\\u202c \\u2066x\\u2069"
)
FORGED = "bad request\nheadgate: all jobs have succeeded"


@pytest.fixture
def env(valkey: ValkeyServer, tmp_path: Path) -> dict[str, str]:
    home = tmp_path / "home"
    home.mkdir()
    found = {
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_HOME": str(home),
        "HEADGATE_DATABASE_URL": f"sqlite:///{home / 'headgate.db'}",
    }
    assert headgate(["db", "upgrade"], found).code == 0
    return found


def on_terminals(argv: Sequence[str], env: dict[str, str]) -> tuple[int, str, str]:
    """The exit code, and what two terminals get as standard output and as standard error."""
    pairs = [pty.openpty(), pty.openpty()]
    (_, out), (_, err) = pairs
    command = subprocess.Popen(
        argv, env={**os.environ, **env, "TERM": "xterm"}, stdout=out, stderr=err
    )
    got = [bytearray(), bytearray()]

    def read(place: int) -> None:
        with suppress(OSError):  # Linux says EIO where others say end of file
            while piece := os.read(pairs[place][0], 65_536):
                got[place].extend(piece)

    readers = [threading.Thread(target=read, args=(place,)) for place in (0, 1)]
    for place, reader in enumerate(readers):
        os.close(pairs[place][1])
        reader.start()
    code = command.wait(60 * BUSY)
    for place, reader in enumerate(readers):
        reader.join(60 * BUSY)
        os.close(pairs[place][0])
    # The terminal itself turns a newline into CR and LF.
    out_text, err_text = (bytes(one).decode().replace("\r\n", "\n") for one in got)
    return code, out_text, err_text


def test_an_answer_is_escaped_on_a_terminal_and_exact_in_a_pipe(env: dict[str, str]) -> None:
    asked = f"one\n{HOSTILE}"
    with PlayedWorker(env["HEADGATE_DATABASE_URL"], env["HEADGATE_REDIS_URL"]):
        piped = headgate(["submit", "-", "--wait"], env, stdin=asked.encode())
        assert piped.out == f"echo: one\n{HOSTILE}\n"
        code, out, _ = on_terminals([*PROGRAM, "submit", asked, "--wait"], env)
        assert (code, out) == (0, f"echo: one\n{SHOWN}\n")
        code, out, _ = on_terminals([*PROGRAM, "submit", asked, "--wait", "--json"], env)
        assert json.loads(out)["content"] == f"echo: one\n{HOSTILE}"
        assert out.rstrip("\n").isprintable()


def test_an_error_text_is_escaped_on_a_terminal_and_forges_no_line(env: dict[str, str]) -> None:
    servers = env["HEADGATE_DATABASE_URL"], env["HEADGATE_REDIS_URL"]
    with PlayedWorker(*servers, fails=lambda _: True, fault=f"{HOSTILE} {FORGED}"):
        submit = ["submit", "x", "--wait"]
        piped = headgate(submit, env)
        code, out, err = on_terminals([*PROGRAM, *submit], env)
    for ended, text, shown in ((piped.code, piped.err, HOSTILE), (code, err, SHOWN)):
        assert ended == 1
        lines = text.split("\n")
        assert lines[-3].startswith("headgate: job ")
        assert lines[-3].endswith(f" failed: provider_error: {shown} bad request")
        assert lines[-2:] == ["  headgate: all jobs have succeeded", ""]
    assert out == ""


def test_a_table_shows_names_escaped_on_a_terminal_and_in_a_pipe(env: dict[str, str]) -> None:
    tenant = "a\x1b[2J\u202eb"
    assert headgate(["submit", "x", "--tenant", tenant], env).code in (0, 2)
    piped = headgate(["jobs"], env)
    _, out, _ = on_terminals([*PROGRAM, "jobs"], {**env, "COLUMNS": "200"})
    for text in (piped.out, out):
        assert "\u202e" not in text
        assert "\x1b[2J" not in text


def test_pieces_notes_and_pairs_go_through_the_same_escapes() -> None:
    """A streamed answer is printed by print_text, piece by piece."""
    program = (
        "from headgate.producer.cli.terminal.output import *\n"
        f"for piece in {list(HOSTILE)!r}: print_text(piece)\n"
        "print_line('')\n"
        f"print_pairs([('name', {HOSTILE + chr(10) + 'x'!r})])\n"
        f"print_note({FORGED + HOSTILE!r})\n"
    )
    code, out, err = on_terminals([sys.executable, "-c", program], {})
    assert code == 0, err
    pair = SHOWN.replace("\t", "\\t")
    assert out == f"{SHOWN}\nname  {pair}\\nx\n"
    assert err == f"headgate: bad request\n  headgate: all jobs have succeeded{SHOWN}\n"
    plain = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert plain.stdout.decode().startswith(f"{HOSTILE}\n")
    assert plain.stderr.decode().endswith(f"succeeded{HOSTILE}\n")


def test_wrong_use_is_escaped_too(env: dict[str, str]) -> None:
    code, _, err = on_terminals([*PROGRAM, "submit", "x", "--nonsense\x1b[2J\u202e"], env)
    assert code == 2
    assert "\x1b" not in err
    assert "\u202e" not in err
