"""What was learned from answers: the groups they are counted in, their counts, and what they tell.

Workers add counts (`learn`) and write what follows from them where scripts read it (`teach`);
whoever wants to know what was promised and what was seen reads `standings`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from headgate.shared.admission.scopes import quoted, unquoted
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import Command, Word, compose, text_of
from headgate.shared.stats.sketch import Sketch

ENOUGH = 20
"""Answers before anything is learned of a group."""

HALF_LIFE = 1000.0
"""Answers after which what was seen counts half: the seen share of 5 % is then known within 0.6 %,
and a jump in length is followed within some hundred answers."""

MOST_GROUPS = 10_000
KEPT_MS = 30 * 86_400_000

LEAST_RATIO, MOST_RATIO = 0.25, 4.0
"""Bounds of the correction of input estimates: an estimate is never that far off by itself."""

TRIMMED = 0.05
"""Share of the tokens at either end that does not count in the ratio: images, odd vocabularies."""


@dataclass(frozen=True, slots=True)
class EstimateGroup:
    """Answers of one model to one tenant (None: to all) for one template (empty: for any)."""

    model: str
    tenant: str | None
    template: str = ""

    def encode(self) -> str:
        """As it stands in keys: `model|tenant|template`; no quoted name is `*`."""
        tenant = "*" if self.tenant is None else quoted(self.tenant)
        return f"{self.model}|{tenant}|{quoted(self.template)}"

    @classmethod
    def decode(cls, text: str) -> EstimateGroup:
        """The group again; raises ValueError."""
        model, tenant, template = text.split("|")
        return cls(model, None if tenant == "*" else unquoted(tenant), unquoted(template))

    def widened(self) -> list[EstimateGroup]:
        """This group and all that it is a part of, the closest first."""
        found = [
            self,
            EstimateGroup(self.model, None, self.template),
            EstimateGroup(self.model, self.tenant),
            EstimateGroup(self.model, None),
        ]
        return list(dict.fromkeys(found))


@dataclass(slots=True)
class EstimateCounts:
    """The counts of one group.

    `output`: output tokens of its answers. `ratio`: true over estimated input tokens, each weighing
    the tokens that were estimated. `judged`: answers for which an amount was promised, `under`:
    those of them that took more. All but `answers` fade. `miss`: the promised share of `under`.
    """

    answers: int = 0
    output: Sketch = field(default_factory=Sketch)
    ratio: Sketch = field(default_factory=Sketch)
    judged: float = 0.0
    under: float = 0.0
    miss: float | None = None

    def merge(self, other: EstimateCounts) -> None:
        """What the other has counted is counted here too."""
        self.answers += other.answers
        self.output.merge(other.output)
        self.ratio.merge(other.ratio)
        self.judged += other.judged
        self.under += other.under

    def encode(self) -> bytes:
        """What is new, as `estimates_learn.lua` reads it."""
        counts = {
            "answers": self.answers, "judged": self.judged, "under": self.under,
            "o": self.output.weights, "r": self.ratio.weights,
        }  # fmt: skip
        return orjson.dumps(counts, option=orjson.OPT_NON_STR_KEYS)

    @classmethod
    def decode(cls, text: bytes | str) -> EstimateCounts:
        """From the JSON of all counts."""
        counts = orjson.loads(text)
        by = 1 / counts["scale"]

        def sketch(part: str) -> Sketch:
            return Sketch({int(index): weight * by for index, weight in counts[part].items()})

        return cls(
            answers=int(counts["answers"]),
            output=sketch("o"),
            ratio=sketch("r"),
            judged=counts["judged"] * by,
            under=counts["under"] * by,
            miss=counts["miss"],
        )

    def output_bound(self, miss: float, enough: int = ENOUGH) -> int | None:
        """Tokens that an answer exceeds with a chance of `miss`; None while too little is known."""
        if self.answers < enough or not self.output.weights:
            return None
        # The bound of a bucket is a power of 1.01: a whole number may miss it by a rounding.
        return max(1, int(self.output.bound(miss) * (1 + 1e-9)))

    def input_ratio(self) -> float | None:
        """True over estimated input tokens, in bounds; None while too little is known."""
        if self.answers < ENOUGH or not self.ratio.weights:
            return None
        return min(MOST_RATIO, max(LEAST_RATIO, self.ratio.mean(TRIMMED)))

    def seen(self) -> float | None:
        """The share of answers that took more than was promised; None where none was judged."""
        return self.under / self.judged if self.judged > 0 else None

    def input_error(self, ratio: float, share: float) -> float | None:
        """How far off the corrected estimates of this share of the tokens were at most.

        0.1: an estimate 10 % over or under the truth. Read with the 0.5 % of a bucket.
        """
        errors = Sketch()
        for index, weight in self.ratio.weights.items():
            true = Sketch({index: 1.0}).mean()
            errors.add(abs(ratio / true - 1) if true > 0 else 1.0, weight)
        return errors.quantile(share) if errors.weights else None


def learn(
    keys: Keys,
    *,
    name: str,
    new: Sequence[tuple[EstimateGroup, EstimateCounts]],
    miss: float,
    half_life: float = HALF_LIFE,
    groups: int = MOST_GROUPS,
) -> Command[list[EstimateCounts | int | None]]:
    """Adds these counts to those of all workers; the counts as they are then, in the same order.

    Of a group in which little is new: the output that was learned of it before, None where none
    was. `name` must be another one in each call. Of more than `groups`, those go that had no answer
    for the longest time.
    """

    def read(reply: list[bytes]) -> list[EstimateCounts | int | None]:
        return [_known(text_of(told)) for told in reply]

    names = [keys.sketches(), keys.learned(), keys.lesson(name)]
    args: list[Word] = [keys.sketch(""), half_life, KEPT_MS, groups, miss]
    for group, tally in new:
        names.append(keys.sketch(group.encode()))
        args += [group.encode(), tally.encode()]
    return compose("estimates_learn", names, args, read)


def _known(told: str) -> EstimateCounts | int | None:
    if told.startswith("{"):
        return EstimateCounts.decode(told)
    return int(told) if told else None


@dataclass(frozen=True, slots=True)
class LearnedEstimate:
    """What follows from the counts of a group: tokens to hold, or the ratio of input tokens."""

    group: EstimateGroup
    output_tokens: int | None = None
    input_ratio: float | None = None

    def words(self) -> list[Word]:
        """EstimateGroup, name and value in turn, as `estimates_set.lua` reads them."""
        name, words = self.group.encode(), list[Word]()
        if self.output_tokens is not None:
            words += (name, f"out|{name}", self.output_tokens)
        if self.input_ratio is not None:
            words += (name, f"in|{self.group.model}", f"{self.input_ratio:.4f}")
        return words


def lesson(group: EstimateGroup, tally: EstimateCounts, miss: float) -> LearnedEstimate:
    """What these counts tell. Input is corrected by model alone: texts differ less than lengths.

    A group speaks for itself once it can keep the promise: the next answer is the longest of n + 1
    with a chance of 1 / (n + 1). All answers of a model speak before that, since nobody else would.
    """
    whole = group == EstimateGroup(group.model, None)
    enough = ENOUGH if whole else max(ENOUGH, math.ceil(1 / miss) - 1)
    ratio = tally.input_ratio() if whole else None
    return LearnedEstimate(group, tally.output_bound(miss, enough), ratio)


def teach(keys: Keys, lessons: Sequence[LearnedEstimate]) -> Command[int]:
    """Writes what was learned where the scripts read it; how many values were written."""
    args: list[Word] = [KEPT_MS]
    for one in lessons:
        args += one.words()
    return compose("estimates_set", (keys.sketches(), keys.learned()), args, int)
