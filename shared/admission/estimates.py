"""Estimates learned from answers: groups of answers, their counts, and the estimates they give.

Workers add counts (`add_counts`), and store the estimates where the scripts read them
(`store_estimates`).
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
"""How many answers a group needs before it gives an estimate."""

HALF_LIFE = 1000.0
"""After so many further answers an answer counts half. A share of 5 % is then known within 0.6 %,
and the estimate follows a jump in length within some hundred answers."""

MOST_GROUPS = 10_000
KEPT_MS = 30 * 86_400_000

LEAST_RATIO, MOST_RATIO = 0.25, 4.0
"""Bounds of the correction of input estimates; an estimate alone is never that far off."""

TRIMMED = 0.05
"""The share of tokens at either end that the ratio ignores: images, rare vocabularies."""


@dataclass(frozen=True, slots=True)
class EstimateGroup:
    """Answers of one model, to one tenant (None: all), for one template (empty: any)."""

    model: str
    tenant: str | None
    template: str = ""

    def encode(self) -> str:
        """Return the group as keys hold it: `model|tenant|template`, with `*` for all tenants."""
        # No tenant's quoted name is `*`.
        tenant = "*" if self.tenant is None else quoted(self.tenant)
        return f"{self.model}|{tenant}|{quoted(self.template)}"

    @classmethod
    def decode(cls, text: str) -> EstimateGroup:
        """Return the group from its text; raises ValueError."""
        model, tenant, template = text.split("|")
        return cls(model, None if tenant == "*" else unquoted(tenant), unquoted(template))

    def widened(self) -> list[EstimateGroup]:
        """Return this group and all groups that contain it, the closest first."""
        found = [
            self,
            EstimateGroup(self.model, None, self.template),
            EstimateGroup(self.model, self.tenant),
            EstimateGroup(self.model, None),
        ]
        return list(dict.fromkeys(found))


@dataclass(slots=True)
class EstimateCounts:
    """The counts of one group of answers.

    * `output`: the output tokens of the answers.
    * `ratio`: true over estimated input tokens, weighted by the estimated tokens.
    * `judged`: answers with an estimate beforehand; `under`: those of them that took more tokens.
    * `miss`: the share of `under` that the estimate promises.

    All but `answers` fade.
    """

    answers: int = 0
    output: Sketch = field(default_factory=Sketch)
    ratio: Sketch = field(default_factory=Sketch)
    judged: float = 0.0
    under: float = 0.0
    miss: float | None = None

    def merge(self, other: EstimateCounts) -> None:
        """Add the counts of `other`."""
        self.answers += other.answers
        self.output.merge(other.output)
        self.ratio.merge(other.ratio)
        self.judged += other.judged
        self.under += other.under

    def encode(self) -> bytes:
        """Return the counts as JSON, as `estimates_learn.lua` reads them."""
        counts = {
            "answers": self.answers, "judged": self.judged, "under": self.under,
            "o": self.output.weights, "r": self.ratio.weights,
        }  # fmt: skip
        return orjson.dumps(counts, option=orjson.OPT_NON_STR_KEYS)

    @classmethod
    def decode(cls, text: bytes | str) -> EstimateCounts:
        """Return the counts from the JSON that `estimates_learn.lua` keeps."""
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
        """Return the tokens that an answer exceeds with a probability of `miss`.

        None until there are `enough` answers.
        """
        if self.answers < enough or not self.output.weights:
            return None
        # The bound of a bucket is a power of 1.01; rounding may put it just below a whole number.
        return max(1, int(self.output.bound(miss) * (1 + 1e-9)))

    def input_ratio(self) -> float | None:
        """Return true over estimated input tokens, within the bounds; None until ENOUGH answers."""
        if self.answers < ENOUGH or not self.ratio.weights:
            return None
        return min(MOST_RATIO, max(LEAST_RATIO, self.ratio.mean(TRIMMED)))

    def seen(self) -> float | None:
        """Return the share of answers that took more tokens than estimated; None without any."""
        return self.under / self.judged if self.judged > 0 else None

    def input_error(self, ratio: float, share: float) -> float | None:
        """Return how far off the corrected estimates were, at most, for this share of the tokens.

        0.1 means 10 % too high or too low, within the 0.5 % of a bucket. None without answers.
        """
        errors = Sketch()
        for index, weight in self.ratio.weights.items():
            true = Sketch({index: 1.0}).mean()
            errors.add(abs(ratio / true - 1) if true > 0 else 1.0, weight)
        return errors.quantile(share) if errors.weights else None


def add_counts(
    keys: Keys,
    *,
    name: str,
    new: Sequence[tuple[EstimateGroup, EstimateCounts]],
    miss: float,
    half_life: float = HALF_LIFE,
    groups: int = MOST_GROUPS,
) -> Command[list[EstimateCounts | int | None]]:
    """Add these counts to those of all workers; the reply has one value for each group, in order.

    The value is the group's counts afterwards. For a group with few new answers it is the stored
    estimate of output tokens instead, None without one. `name` must differ in each call: the same
    command sent twice counts once. With more than `groups` groups, those without an answer for the
    longest time are removed.
    """

    def read(reply: list[bytes]) -> list[EstimateCounts | int | None]:
        return [_known(text_of(value)) for value in reply]

    names = [keys.sketches(), keys.learned(), keys.lesson(name)]
    args: list[Word] = [keys.sketch(""), half_life, KEPT_MS, groups, miss]
    for group, counts in new:
        names.append(keys.sketch(group.encode()))
        args += [group.encode(), counts.encode()]
    return compose("estimates_learn", names, args, read)


def _known(value: str) -> EstimateCounts | int | None:
    if value.startswith("{"):
        return EstimateCounts.decode(value)
    return int(value) if value else None


@dataclass(frozen=True, slots=True)
class LearnedEstimate:
    """What the counts of a group give: output tokens to hold, and the ratio of input tokens."""

    group: EstimateGroup
    output_tokens: int | None = None
    input_ratio: float | None = None

    def words(self) -> list[Word]:
        """Return group, name and value of each estimate, as `estimates_set.lua` reads them."""
        name, words = self.group.encode(), list[Word]()
        if self.output_tokens is not None:
            words += (name, f"out|{name}", self.output_tokens)
        if self.input_ratio is not None:
            words += (name, f"in|{self.group.model}", f"{self.input_ratio:.4f}")
        return words


def estimate_from(group: EstimateGroup, counts: EstimateCounts, miss: float) -> LearnedEstimate:
    """Return the estimates that these counts of a group give.

    `miss` is the promised share of answers that take more. A group needs enough answers to keep
    that promise: the next answer is the longest of n + 1 with a probability of 1 / (n + 1). The
    group of all answers of a model gives an estimate from ENOUGH answers on, because no wider group
    can stand in. Only that group corrects the input, because texts differ less than lengths.
    """
    is_widest = group == EstimateGroup(group.model, None)
    enough = ENOUGH if is_widest else max(ENOUGH, math.ceil(1 / miss) - 1)
    ratio = counts.input_ratio() if is_widest else None
    return LearnedEstimate(group, counts.output_bound(miss, enough), ratio)


def store_estimates(keys: Keys, estimates: Sequence[LearnedEstimate]) -> Command[int]:
    """Store the estimates where the scripts read them; the reply is how many were written."""
    args: list[Word] = [KEPT_MS]
    for one in estimates:
        args += one.words()
    return compose("estimates_set", (keys.sketches(), keys.learned()), args, int)
