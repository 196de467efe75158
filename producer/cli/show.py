"""How results are printed: Rich tables on a terminal, plain lines elsewhere, JSON where wanted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """The command takes --json, as `as_json`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON: one document, or one per line."
    )(command)


def document(value: object) -> None:
    """The value stands on standard output as one line of JSON."""
    import orjson

    line(orjson.dumps(value, default=str).decode())


def line(text: str) -> None:
    """The text stands on standard output, also where the terminal cannot show all of it."""
    data = (text + "\n").encode("utf-8", "backslashreplace")
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def rows(
    columns: Sequence[str], found: Iterable[Sequence[object]], *, title: str | None = None
) -> None:
    """The rows stand on standard output: a table on a terminal, else tabs between the cells."""
    cells = [["-" if cell is None or cell == "" else str(cell) for cell in row] for row in found]
    if not sys.stdout.isatty():
        line("\t".join(columns))
        for row in cells:
            line("\t".join(cell.translate(_ONE_LINE) for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


_ONE_LINE = str.maketrans({"\t": " ", "\n": " ", "\r": " "})


def pairs(values: Sequence[tuple[str, object]]) -> None:
    """The named values stand on standard output, one on each line."""
    width = max(len(name) for name, _ in values)
    for name, value in values:
        line(f"{name:<{width}}  {value}")
