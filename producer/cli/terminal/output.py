"""How results are printed: Rich tables on a terminal, plain lines elsewhere, JSON where wanted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from headgate.producer.cli.terminal.exit_codes import say

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """The command takes --json, as `as_json`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON: one document, or one per line."
    )(command)


def document(value: object) -> None:
    """The value stands on standard output as one line of JSON."""
    import orjson

    line(orjson.dumps(value, default=str).decode().translate(_NO_CONTROLS))


_NO_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
"""JSON escapes the control characters below these by itself; U+009B would steer a terminal too."""


def printable(text: str) -> str:
    """The text without anything that could steer a terminal: such characters are spelled out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def line(text: str) -> None:
    """The text stands on standard output, also where the terminal cannot show all of it."""
    piece(text + "\n")


def piece(text: str) -> None:
    """The text stands on standard output at once, without an end of line."""
    data = text.encode("utf-8", "backslashreplace")
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def rows(
    columns: Sequence[str], found: Iterable[Sequence[object]], *, optional: Sequence[str] = ()
) -> None:
    """The rows stand on standard output: a table on a terminal, else tabs between the cells.

    `optional`: columns that a narrow terminal does without, the first to go first.
    """
    cells = [
        ["-" if cell is None or cell == "" else printable(str(cell)) for cell in row]
        for row in found
    ]
    if not sys.stdout.isatty():
        line("\t".join(columns))
        for row in cells:
            line("\t".join(row))
        return
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    widths = {name: max(map(cell_len, column))
              for name, *column in zip(columns, columns, *cells, strict=True)}  # fmt: skip
    left_out = []
    for name in optional:
        if sum(widths.values()) + 2 * (len(widths) - 1) > console.width:
            del widths[name]
            left_out.append(name)
    table = Table(box=None, pad_edge=False)
    for name in widths:
        # The first column is what a row is called by; a name in two pieces cannot be copied.
        table.add_column(name, overflow="fold", no_wrap=name == columns[0])
    for row in cells:
        shown = zip(columns, row, strict=True)
        table.add_row(*(Text(cell) for name, cell in shown if name in widths))
    console.print(table)
    if left_out:
        say(f"left out for want of room: {', '.join(left_out)}; --json has all")


def pairs(values: Sequence[tuple[str, object]]) -> None:
    """The named values stand on standard output, one on each line."""
    width = max(len(name) for name, _ in values)
    for name, value in values:
        line(f"{name:<{width}}  {value}")
