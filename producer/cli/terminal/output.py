"""Prints results: Rich tables on a terminal, plain lines elsewhere, JSON with --json."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from headgate.producer.cli.terminal.exit_codes import print_note

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """Give the command the option --json, as the parameter `as_json`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON: one document, or one per line."
    )(command)


def print_json(value: object) -> None:
    """Print the value as one line of JSON."""
    import orjson

    print_line(orjson.dumps(value, default=str).decode().translate(_NO_CONTROLS))


_NO_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
"""JSON escapes the control characters below these; U+009B starts a terminal command too."""


def printable(text: str) -> str:
    """Return the text with control characters escaped, so that it cannot control a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_line(text: str) -> None:
    """Print the text and a newline; escape characters that the terminal's encoding lacks."""
    print_text(text + "\n")


def print_text(text: str) -> None:
    """Print the text at once, without a newline."""
    data = text.encode("utf-8", "backslashreplace")
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def print_table(
    columns: Sequence[str], found: Iterable[Sequence[object]], *, optional: Sequence[str] = ()
) -> None:
    """Print the rows: as a table on a terminal, elsewhere with tabs between the cells.

    `optional`: columns to hide on a narrow terminal, the first one first.
    """
    cells = [
        ["-" if cell is None or cell == "" else printable(str(cell)) for cell in row]
        for row in found
    ]
    if not sys.stdout.isatty():
        print_line("\t".join(columns))
        for row in cells:
            print_line("\t".join(row))
        return
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    widths = {name: max(map(cell_len, column))
              for name, *column in zip(columns, columns, *cells, strict=True)}  # fmt: skip
    hidden = []
    for name in optional:
        if sum(widths.values()) + 2 * (len(widths) - 1) > console.width:
            del widths[name]
            hidden.append(name)
    table = Table(box=None, pad_edge=False)
    for name in widths:
        # The first column names the row; a name that wraps cannot be copied.
        table.add_column(name, overflow="fold", no_wrap=name == columns[0])
    for row in cells:
        shown = zip(columns, row, strict=True)
        table.add_row(*(Text(cell) for name, cell in shown if name in widths))
    console.print(table)
    if hidden:
        print_note(f"hidden columns: {', '.join(hidden)}; widen the terminal or use --json")


def print_pairs(values: Sequence[tuple[str, object]]) -> None:
    """Print each name with its value on a line of its own."""
    width = max(len(name) for name, _ in values)
    for name, value in values:
        print_line(f"{name:<{width}}  {value}")
