"""The score as a table, with an aim for each category."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.bench.table import Table

AIMS = {
    "chat": 99.0, "responses": 95.0, "embeddings": 98.0, "models": 98.0, "moderations": 95.0,
    "overall": 97.0,
}  # fmt: skip
"""The least percent of each category. A peer publishes 98.5 for chat and 88.9 for responses."""


@dataclass
class Score:
    """The properties of one category: how many there are, and which are missing, with a reason."""

    category: str
    total: int = 0
    missing: list[str] = field(default_factory=list)

    @property
    def percent(self) -> float:
        """The share of good properties."""
        return 100.0 * (self.total - len(self.missing)) / self.total if self.total else 0.0


def report(scores: Sequence[Score], *, names: bool) -> str:
    """Return the table; with `names` what is missing below it."""
    table = Table("score", ("category", "properties", "missing", "percent", "aim"))
    for one in [*scores, overall(scores)]:
        aim = AIMS[one.category]
        cells = one.total, len(one.missing), f"{one.percent:.1f}", f"{aim:.0f}"
        table.rows.append((one.category, *map(str, cells)))
    lines = [f"{one.category}: {name}" for one in scores for name in one.missing]
    return "\n".join([table.plain(), *(lines if names else [])])


def overall(scores: Sequence[Score]) -> Score:
    """Return the score of all categories together."""
    missing = [name for one in scores for name in one.missing]
    return Score("overall", sum(one.total for one in scores), missing)


def below_aim(scores: Sequence[Score], aims: Mapping[str, float] = AIMS) -> bool:
    """Return whether a category, or all together, are below their aim."""
    return any(one.percent < aims[one.category] for one in [*scores, overall(scores)])
