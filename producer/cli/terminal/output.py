"""Prints results: Rich tables on a terminal, plain lines elsewhere, JSON with --json.

Answers, error messages and names come from outside and may hold commands to a terminal. Every
command prints through this file, which escapes control characters when the stream is a terminal.
A pipe or a file gets the exact bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import click

from headgate.producer.cli.terminal.cells import Cell

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """Give the command the option --json, as the parameter `as_json`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON: one document, or one per line."
    )(command)


def print_json(value: object) -> None:
    """Print the value as one line of JSON."""
    import orjson

    print_line(orjson.dumps(value, default=str).decode().translate(_JSON_ESCAPES))


_BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Characters that change the order in which a terminal shows the others."""

_HIGH_CONTROLS = (*range(0x7F, 0xA0), *_BIDI)
_CONTROLS = (*(code for code in range(0x20) if chr(code) not in "\n\t"), *_HIGH_CONTROLS)
_ESCAPES = {code: chr(code).encode("unicode_escape").decode() for code in _CONTROLS}
_JSON_ESCAPES = {code: f"\\u{code:04x}" for code in _HIGH_CONTROLS}
"""orjson escapes the control characters below U+0020 itself; U+009B starts a command too."""


def visible(text: str) -> str:
    """Return the text with all control characters escaped but newlines and tabs."""
    return text.translate(_ESCAPES)


def printable(text: str) -> str:
    """Return the text with control characters escaped, so that it cannot control a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_line(text: str) -> None:
    """Print the text and a newline; escape characters that the terminal's encoding lacks."""
    print_text(text + "\n")


def print_text(text: str) -> None:
    """Print the text at once, without a newline; escape control characters on a terminal."""
    if sys.stdout.isatty():
        text = visible(text)
    data = text.encode("utf-8", "backslashreplace")
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def print_note(text: str) -> None:
    """Print the text on standard error; do nothing if standard error is closed.

    Lines after the first are indented, so that a quoted text cannot look like a note of its own.
    """
    print_error_text("headgate: " + "\n  ".join(text.split("\n")) + "\n")


def print_error_text(text: str) -> None:
    """Print the text on standard error, in the way of print_text and print_note."""
    with suppress(OSError, ValueError):
        sys.stderr.write(visible(text) if sys.stderr.isatty() else text)
        sys.stderr.flush()


def print_table(
    columns: Sequence[str], found: Iterable[Sequence[object]], *, optional: Sequence[str] = ()
) -> None:
    """Print the rows: as a table on a terminal, elsewhere with tabs between the cells.

    `found`: texts, numbers, and cells (`cells.py`), which a terminal shows in the form for people.
    `optional`: columns to hide on a narrow terminal, the first one first.
    """
    rows = [[_cell(value) for value in row] for row in found]
    if not sys.stdout.isatty():
        print_line("\t".join(columns))
        for row in rows:
            print_line("\t".join(cell.exact for cell in row))
        return
    _print_rich(columns, rows, optional)


def _print_rich(
    columns: Sequence[str], rows: Sequence[Sequence[Cell]], optional: Sequence[str]
) -> None:
    """Print the rows as a table on a terminal, as wide as that is."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if console.no_color:  # NO_COLOR: no bold letters either
        console = Console(color_system=None)
    filled = list(zip(*rows, strict=True)) or [()] * len(columns)
    by_column = dict(zip(columns, filled, strict=True))
    widths = {name: max(map(cell_len, (name, *(cell.shown for cell in cells))))
              for name, cells in by_column.items()}  # fmt: skip
    hidden = []
    for name in optional:
        if sum(widths.values()) + 2 * (len(widths) - 1) > console.width:
            del widths[name]
            hidden.append(name)
    table = Table(box=None, pad_edge=False)
    for name in widths:
        # The first column names the row; a name that wraps cannot be copied.
        justify = "right" if _are_numbers(by_column[name]) else "left"
        no_wrap = name == columns[0]
        table.add_column(name, overflow="fold", no_wrap=no_wrap, justify=justify)  # type: ignore[arg-type]  # its own words
    for row in rows:
        shown = zip(columns, row, strict=True)
        table.add_row(*(Text(cell.shown, cell.style) for name, cell in shown if name in widths))
    console.print(table)
    if hidden:
        print_note(f"hidden columns: {', '.join(hidden)}; widen the terminal or use --json")


_NONE = Cell("-", "-")


def _cell(value: object) -> Cell:
    """Return the value as a cell, with control characters escaped."""
    if value is None or value == "":
        return _NONE
    if isinstance(value, Cell):
        if value.exact.isprintable() and value.shown.isprintable():
            return value
        return replace(value, exact=printable(value.exact), shown=printable(value.shown))
    if isinstance(value, int) and not isinstance(value, bool):
        return Cell(str(value), f"{value:,}", is_number=True)
    text = printable(str(value))
    return Cell(text, text, is_number=isinstance(value, float))


def _are_numbers(cells: Sequence[Cell]) -> bool:
    """Return whether all that stands in the column is numbers."""
    filled = [cell for cell in cells if cell is not _NONE]
    return bool(filled) and all(cell.is_number for cell in filled)


def print_pairs(values: Sequence[tuple[str, object]]) -> None:
    """Print each name with its value on a line of its own."""
    width = max(len(name) for name, _ in values)
    is_terminal = sys.stdout.isatty()
    for name, value in values:
        if isinstance(value, Cell):
            text = value.shown if is_terminal else value.exact
        else:
            text = str(value)
        print_line(f"{name:<{width}}  {printable(text)}")
