"""Prints results: Rich tables on a terminal, plain lines elsewhere, JSON with --json.

Answers, error messages and names come from outside and may hold commands to a terminal. Every
command prints through this file, which escapes control characters when the stream is a terminal.
A pipe or a file gets the exact bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import click

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
        print_line(f"{name:<{width}}  {printable(str(value))}")
