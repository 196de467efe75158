"""What was learned from answers: the groups they are counted in, their counts, and what they tell.

Workers add counts (`learn`) and write what follows from them where scripts read it (`teach`);
whoever wants to know what was promised and what was seen reads `standings`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from shared.keys import Keys
from shared.policy.sketch import Sketch
from shared.scripts import Command, Word, compose, text_of
from shared.ticket import quoted, unquoted

ENOUGH = 20
"""Answers before a group speaks for itself; of fewer, 1 in 20 is not known to be exceeded."""

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
class Group:
    """Answers of one model to one tenant (None: to all) for one template (empty: for any)."""

    model: str
    tenant: str | None
    template: str = ""

    def encode(self) -> str:
        """As it stands in keys: `model|tenant|template`; no quoted name is `*`."""
        tenant = "*" if self.tenant is None else quoted(self.tenant)
        return f"{self.model}|{tenant}|{quoted(self.template)}"

    @classmethod
    def decode(cls, text: str) -> Group:
        """The group again; raises ValueError."""
        model, tenant, template = text.split("|")
        return cls(model, None if tenant == "*" else unquoted(tenant), unquoted(template))

    def widened(self) -> list[Group]:
        """This group and all that it is a part of, the closest first."""
        found = [
            self,
            Group(self.model, None, self.template),
            Group(self.model, self.tenant),
            Group(self.model, None),
        ]
        return list(dict.fromkeys(found))


@dataclass(slots=True)
class Tally:
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

    def merge(self, other: Tally) -> None:
        """What the other has counted is counted here too."""
        self.answers += other.answers
        self.output.merge(other.output)
        self.ratio.merge(other.ratio)
        self.judged += other.judged
        self.under += other.under

    def words(self) -> list[Word]:
        """Names and amounts in turn, as `learn.lua` reads them."""
        words: list[Word] = []
        for letter, sketch in (("o", self.output), ("r", self.ratio)):
            for index, weight in sketch.weights.items():
                words += (f"{letter}{index}", weight)
        for name, amount in (("judged", self.judged), ("under", self.under)):
            if amount:
                words += (name, amount)
        return words

    @classmethod
    def read(cls, counts: Mapping[bytes | str, Any]) -> Tally:
        """From a HASH: its fields and their amounts."""
        found: dict[str, float] = {}
        sketches: dict[str, dict[int, float]] = {"o": {}, "r": {}}
        plain = {text_of(name): float(amount) for name, amount in counts.items()}
        scale = plain.pop("scale", 1.0) or 1.0
        for name, amount in plain.items():
            if name[0] in sketches and name[1:].lstrip("-").isdecimal():
                sketches[name[0]][int(name[1:])] = amount / scale
            else:
                found[name] = amount
        return cls(
            answers=int(found.get("answers", 0)),
            output=Sketch(sketches["o"]),
            ratio=Sketch(sketches["r"]),
            judged=found.get("judged", 0.0) / scale,
            under=found.get("under", 0.0) / scale,
            miss=found.get("miss"),
        )

    def output_bound(self, miss: float) -> int | None:
        """Tokens that an answer exceeds with a chance of `miss`; None while too little is known."""
        if self.answers < ENOUGH or not self.output.weights:
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
    new: Sequence[tuple[Group, Tally]],
    miss: float,
    half_life: float = HALF_LIFE,
    groups: int = MOST_GROUPS,
) -> Command[list[Tally]]:
    """Adds these counts to those of all workers; the counts as they are then, in the same order.

    `name` must be another one in each call. Of more than `groups`, those go that had no answer for
    the longest time.
    """

    def read(reply: list[list[bytes]]) -> list[Tally]:
        return [Tally.read(dict(zip(r[::2], r[1::2], strict=True))) for r in reply]

    names = [keys.sketches(), keys.learned(), keys.lesson(name)]
    args: list[Word] = [keys.sketch(""), half_life, KEPT_MS, groups, miss]
    for group, tally in new:
        words = tally.words()
        names.append(keys.sketch(group.encode()))
        args += [group.encode(), tally.answers, len(words) // 2, *words]
    return compose("learn", names, args, read)


@dataclass(frozen=True, slots=True)
class Lesson:
    """What follows from the counts of a group: tokens to hold, or the ratio of input tokens."""

    group: Group
    output_tokens: int | None = None
    input_ratio: float | None = None

    def words(self) -> list[Word]:
        """Group, name and value in turn, as `teach.lua` reads them."""
        name, words = self.group.encode(), list[Word]()
        if self.output_tokens is not None:
            words += (name, f"out|{name}", self.output_tokens)
        if self.input_ratio is not None:
            words += (name, f"in|{self.group.model}", f"{self.input_ratio:.4f}")
        return words


def lesson(group: Group, tally: Tally, miss: float) -> Lesson:
    """What these counts tell. Input is corrected by model alone: texts differ less than lengths."""
    whole = group == Group(group.model, None)
    return Lesson(group, tally.output_bound(miss), tally.input_ratio() if whole else None)


def teach(keys: Keys, lessons: Sequence[Lesson]) -> Command[int]:
    """Writes what was learned where the scripts read it; how many values were written."""
    args: list[Word] = [KEPT_MS]
    for one in lessons:
        args += one.words()
    return compose("teach", (keys.sketches(), keys.learned()), args, int)


@dataclass(frozen=True, slots=True)
class Standing:
    """What is promised of a group, and what was seen.

    `promised` and `seen`: share of answers that take more than was held. `held_output`: tokens that
    are held now, None while a wider group speaks for this one. Errors are shares of the true input,
    of half and of 95 % of the tokens.
    """

    group: Group
    answers: int
    promised: float | None
    seen: float | None
    held_output: int | None
    mean_output: float | None
    input_ratio: float | None
    input_error_p50: float | None
    input_error_p95: float | None
    last_answer_ms: int


ALIKE = 200
"""Groups that are read in one round trip."""


def standings(
    client: redis.Redis, keys: Keys, wanted: Callable[[Group], bool] = lambda _: True
) -> Iterator[Standing]:
    """The groups of which there are counts, that of the last answer first."""
    found: Any = client.zrange(keys.sketches(), 0, -1, desc=True, withscores=True)
    named = [(Group.decode(text_of(name)), int(ms)) for name, ms in found]
    named = [(group, ms) for group, ms in named if wanted(group)]
    for start in range(0, len(named), ALIKE):
        some = named[start : start + ALIKE]
        pipe = client.pipeline(transaction=False)
        for group, _ in some:
            pipe.hgetall(keys.sketch(group.encode()))
        asked = [f"out|{group.encode()}" for group, _ in some]
        asked += [f"in|{group.model}" for group, _ in some]
        pipe.hmget(keys.learned(), asked)
        *counts, values = pipe.execute()
        told = [None if value is None else float(value) for value in values]
        for (group, ms), raw, held, ratio in zip(
            some, counts, told[: len(some)], told[len(some) :], strict=True
        ):
            if raw:
                yield _standing(group, ms, Tally.read(raw), held, ratio)


def _standing(
    group: Group, ms: int, tally: Tally, held: float | None, ratio: float | None
) -> Standing:
    by = 1.0 if ratio is None else ratio
    return Standing(
        group,
        tally.answers,
        promised=tally.miss,
        seen=tally.seen(),
        held_output=None if held is None else int(held),
        mean_output=tally.output.mean() if tally.output.weights else None,
        input_ratio=ratio,
        input_error_p50=tally.input_error(by, 0.5),
        input_error_p95=tally.input_error(by, 0.95),
        last_answer_ms=ms,
    )
