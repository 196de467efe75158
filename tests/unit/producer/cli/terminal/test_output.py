"""Tables: aligned and coloured on a terminal, exact and plain in a pipe."""

from __future__ import annotations

import io
import sys

import pytest

from headgate.producer.cli.terminal import cells
from headgate.producer.cli.terminal.output import print_pairs, print_table

ROWS = (
    ("a", cells.state("failed"), 12345, cells.usd("0.0000222")),
    ("b", cells.state("succeeded"), 7, cells.usd("1.5")),
    ("c", None, None, None),
)
COLUMNS = ("id", "status", "tokens", "cost")


class Stream(io.TextIOWrapper):
    """A standard output that is, or is not, a terminal."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode()  # type: ignore[attr-defined,no-any-return]


def terminal_of(monkeypatch: pytest.MonkeyPatch, **env: str) -> Stream:
    """Make standard output a terminal with colours; call it in the test, not in a fixture."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"TERM": "xterm-256color", "COLUMNS": "80"} | env).items():
        monkeypatch.setenv(name, value)
    stream = Stream(True)
    monkeypatch.setattr(sys, "stdout", stream)
    return stream


def test_a_pipe_gets_exact_values_with_tabs(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(False)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_table(COLUMNS, ROWS)
    assert stream.text().splitlines() == [
        "id\tstatus\ttokens\tcost",
        "a\tfailed\t12345\t0.0000222",
        "b\tsucceeded\t7\t1.5",
        "c\t-\t-\t-",
    ]


def test_a_terminal_gets_numbers_at_the_right_with_thousands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = terminal_of(monkeypatch, NO_COLOR="1")
    print_table(COLUMNS, ROWS)
    lines = terminal.text().splitlines()
    assert "\x1b" not in terminal.text()
    assert lines[1].split() == ["a", "failed", "12,345", "<0.0001"]
    ends = [lines[0].index("tokens") + 6, lines[1].index("12,345") + 6, lines[2].index("7") + 1]
    assert len(set(ends)) == 1, lines


def test_states_have_colours_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    print_table(COLUMNS, ROWS)
    assert "\x1b[31mfailed" in terminal.text()
    assert "\x1b[32msucceeded" in terminal.text()


def test_a_narrow_terminal_keeps_the_wanted_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = terminal_of(monkeypatch, COLUMNS="27", NO_COLOR="1")
    print_table(COLUMNS, ROWS, optional=("tokens", "cost"))
    assert terminal.text().split("\n")[0].split() == ["id", "status", "cost"]
    assert "hidden columns: tokens;" in capsys.readouterr().err


def test_pairs_show_money_to_four_digits_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    print_pairs([("cost", cells.usd("0.123456"))])
    assert terminal.text() == "cost  0.1235\n"
