"""What a bench gives: a table, shown in aligned columns or as Markdown."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field


@dataclass(slots=True)
class Table:
    """Figures under `columns`; the first column says of what."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    note: str = ""

    def add(self, *cells: str) -> None:
        """One row more; it is told on standard error at once, since others take a while."""
        self.rows.append(cells)
        sys.stderr.write("  " + "   ".join(cells) + "\n")

    def plain(self) -> str:
        """Columns of equal width, figures to the right."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[place]) for line in lines) for place in range(len(self.columns))]
        shown = []
        for line in lines:
            name = line[0].ljust(widths[0])
            rest = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
            shown.append("   ".join([name, *rest]))
        return "\n".join(filter(None, [f"== {self.title}", *shown, self.note]))

    def markdown(self) -> str:
        """A Markdown table with its title in the head."""
        head = f"| {' | '.join((self.title, *self.columns[1:]))} |"
        rule = "|" + "---|" * len(self.columns)
        rows = [f"| {' | '.join(row)} |" for row in self.rows]
        return "\n".join([head, rule, *rows, *(("", self.note) if self.note else ())])
