"""The lists in which kombu keeps messages of one queue that were sent with a `priority`.

On Redis a queue of kombu is several lists: `queue` for the first step, and `queue` + separator +
step for each further one. 0 is the most urgent priority, 9 the least. Producers and workers must
agree on both options, `sep` and `priority_steps`: the server does not tell them.
"""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass
from typing import Self

SEP = "\x06\x16"
STEPS = (0, 3, 6, 9)
"""What kombu uses where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class SubLists:
    """The separator and the steps that producers use. The first step is 0."""

    sep: str = SEP
    steps: tuple[int, ...] = STEPS

    @classmethod
    def read(cls, sep: str, steps: str) -> Self:
        """Return them from the texts of the settings, which are checked already."""
        return cls(sep.encode().decode("unicode_escape"), tuple(map(int, steps.split(","))))

    @property
    def endings(self) -> tuple[str, ...]:
        """What stands behind the queue's name in each further list, the most urgent first."""
        return tuple(f"{self.sep}{step}" for step in self.steps[1:])

    def step_of(self, priority: object) -> int:
        """Return the step in whose list kombu puts a message of this priority; 0 for none."""
        if isinstance(priority, bool) or not isinstance(priority, int):
            return 0
        return self.steps[max(0, bisect(self.steps, min(9, priority)) - 1)]
