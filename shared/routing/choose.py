"""Which model answers a request that names none: the cheapest that can do it. Pure.

How good a model must be (`quality` of the catalog, 1 to 10) follows from the kind of the request
and its complexity; of those that are good enough, that can do what the request needs, that cost no
more than the caller allows and whose provider has a key, `prefer` decides: `cost` takes the
cheapest for a typical answer, `speed` the fastest, `quality` the best. What is down is left out
while something else can do it. A rule of the catalog that fits goes before all this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from headgate.shared.catalog.routing_rules import RoutingRule
from headgate.shared.catalog.schema import Model
from headgate.shared.job.request import Kind
from headgate.shared.routing.capabilities import Needs, lacks
from headgate.shared.routing.classify import Judgement, Level
from headgate.shared.routing.features import WORD

Prefer = Literal["speed", "quality", "cost"]

#: The quality that a model must have at least, by complexity. With the catalog's figures: any model
#: for what is low, a good small one for medium, one of the large ones for high.
WANTED: Mapping[Level, int] = {"low": 2, "medium": 4, "high": 7}

#: More or less of it where mistakes of small models are dear, or rare.
HARDER: Mapping[Kind, int] = {
    "chat": -1, "summary": -1, "translation": -1, "reasoning": 1, "code": 1,
}  # fmt: skip

#: Tokens of a typical answer: rounded means of the day that the bench of answers replays.
ANSWER_TOKENS: Mapping[Kind, int] = {
    "chat": 100, "reasoning": 1_100, "code": 700, "research": 800, "creative": 700,
    "analysis": 500, "summary": 180, "translation": 150, "vision": 200,
}  # fmt: skip
BY_LEVEL: Mapping[Level, float] = {"low": 0.6, "medium": 1.0, "high": 1.7}

THINKING = 1.5
"""A model that thinks before it answers is billed for that, too: so much more, at a guess."""

SHOWN = 5
"""Runners-up that are told of."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may be chosen. `steps`: for prompts of more tokens than the first, pico-USD of
    a token in and out; empty where nobody knows its price."""

    model: Model
    steps: tuple[tuple[int, int, int], ...] = ()

    @property
    def name(self) -> str:
        """As health names it: provider/model."""
        return f"{self.model.provider}/{self.model.name}"

    def rate(self, input_tokens: int) -> tuple[int, int] | None:
        """Pico-USD of a token in and out, at their dearest, for a prompt of this length."""
        if len(self.steps) == 1:
            return self.steps[0][1:]
        found = [step for step in self.steps if input_tokens > step[0]]
        if not found:
            return None
        return max(step[1] for step in found), max(step[2] for step in found)


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """What is known of the models now: `provider/model` that are down, providers without a key."""

    down: frozenset[str] = frozenset()
    keyless: frozenset[str] = frozenset()


def without_key(keyed: Mapping[str, int]) -> frozenset[str]:
    """The providers that are not to be chosen: those without a key, if any has one."""
    if not any(keyed.values()):
        return frozenset()
    return frozenset(name for name, n in keyed.items() if n == 0)


@dataclass(frozen=True, slots=True)
class RoutePreference:
    """What the request says of its model. `max_pico`: most for a token in or out, in pico-USD."""

    needs: Needs
    prefer: Prefer = "cost"
    max_pico: int | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Option:
    """A model that could answer; `pico_usd`: of a typical request, None if its price is unknown."""

    model: Model
    pico_usd: int | None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """The model, what it would cost, why it, and who came next; `excluded`: why the others not."""

    model: Model | None
    pico_usd: int | None
    reasons: tuple[str, ...]
    others: tuple[Option, ...]
    excluded: tuple[Option, ...]


def wanted_quality(kind: Kind, level: Level) -> int:
    """The least quality that such a request asks for."""
    return max(1, min(9, WANTED[level] + HARDER.get(kind, 0)))


def answer_tokens(judged: Judgement, needs: Needs) -> int:
    """The tokens of a typical answer: what was asked for at most, or what such answers take."""
    typical = int(ANSWER_TOKENS[judged.kind] * BY_LEVEL[judged.level])
    if judged.kind == "translation":
        typical = max(typical, needs.input_tokens)
    return min(typical, needs.output_tokens) if needs.output_tokens else typical


def choose(
    judged: Judgement,
    wish: RoutePreference,
    candidates: Sequence[Candidate],
    rules: Sequence[RoutingRule],
    standing: ModelStatus,
) -> Choice:
    """The model for this request; `model` is None where none can do it, and `excluded` says why."""
    output = answer_tokens(judged, wish.needs)
    able: list[tuple[Candidate, int | None]] = []
    excluded: list[Option] = []
    for one in candidates:
        rate = one.rate(wish.needs.input_tokens)
        cost = None if rate is None else _cost(one.model, rate, wish.needs.input_tokens, output)
        why_not = _why_not(one, rate, wish, standing)
        if why_not:
            excluded.append(Option(one.model, cost, why_not))
        else:
            able.append((one, cost))
    ruled = _ruled(judged, wish, able, rules)
    by_choice = [pair for pair in able if pair[0].model.quality is not None]
    up = [pair for pair in by_choice if pair[0].name not in standing.down]
    reasons: list[str] = []
    if up or not by_choice:
        excluded += [
            Option(one.model, cost, "down") for one, cost in by_choice if one.name in standing.down
        ]
        by_choice = up
    else:
        reasons.append("all that could do it are down: it waits for this one")
    if ruled is not None:
        (one, cost), words = ruled
        others = _ranked(by_choice, judged, wish.prefer)[0]
        return _chosen(one, cost, [*judged.reasons, words], others, excluded)
    if not by_choice:
        return Choice(None, None, judged.reasons, (), tuple(excluded))
    ranked, why = _ranked(by_choice, judged, wish.prefer)
    one, cost = ranked[0]
    return _chosen(one, cost, [*judged.reasons, *reasons, why], ranked, excluded)


def _chosen(
    one: Candidate,
    cost: int | None,
    reasons: Sequence[str],
    ranked: Sequence[tuple[Candidate, int | None]],
    excluded: Sequence[Option],
) -> Choice:
    others = [Option(other.model, its) for other, its in ranked if other.model is not one.model]
    return Choice(one.model, cost, tuple(reasons), tuple(others[:SHOWN]), tuple(excluded))


def _cost(model: Model, rate: tuple[int, int], input_tokens: int, output: int) -> int:
    thinking = THINKING if "reasoning" in model.capabilities else 1.0
    return rate[0] * input_tokens + int(rate[1] * output * thinking)


def _why_not(
    one: Candidate, rate: tuple[int, int] | None, wish: RoutePreference, standing: ModelStatus
) -> str:
    if one.model.embeds:
        return "gives vectors"
    missing = lacks(one.model, wish.needs)
    if missing is not None:
        return f"lacks {missing}"
    if one.model.provider in standing.keyless:
        return f"no worker has a key of {one.model.provider}"
    if wish.max_pico is not None:
        if rate is None:
            return "its price is not known"
        if max(rate) > wish.max_pico:
            return "too dear"
    return ""


def _ranked(
    able: Sequence[tuple[Candidate, int | None]], judged: Judgement, prefer: Prefer
) -> tuple[list[tuple[Candidate, int | None]], str]:
    """The models by wish, the best first, those that are not good enough last; and why."""
    wanted = wanted_quality(judged.kind, judged.level)

    def order(pair: tuple[Candidate, int | None]) -> tuple[float, ...]:
        model, cost = pair[0].model, pair[1]
        quality, speed = model.quality or 0, model.tokens_per_s or 0.0
        price = float("inf") if cost is None else float(cost)
        short = max(0, wanted - quality)
        if prefer == "speed":
            return (short, -speed, price, -quality)
        if prefer == "quality":
            return (-quality, price, -speed)
        return (short, price, -quality, -speed)

    ranked = sorted(able, key=order)
    best = ranked[0][0].model if ranked else None
    if best is None:
        return ranked, ""
    words = {
        "speed": "the fastest of those that are good enough",
        "quality": "the best of those that can do it",
        "cost": "the cheapest of those that are good enough",
    }[prefer]
    asked = f"a {judged.level} {judged.kind} asks for quality {wanted}"
    if (best.quality or 0) < wanted and prefer != "quality":
        return ranked, f"{asked}: none that may be asked has it, and this one comes nearest"
    return ranked, f"{asked}: {best.name} ({best.quality}) is {words}"


def _ruled(
    judged: Judgement,
    wish: RoutePreference,
    able: Sequence[tuple[Candidate, int | None]],
    rules: Sequence[RoutingRule],
) -> tuple[tuple[Candidate, int | None], str] | None:
    """The model of the first rule that fits and whose model can do it."""
    if not rules:
        return None
    spoken = f" {' '.join(WORD.findall(wish.text.lower()))} "
    for n, rule in enumerate(rules):
        if rule.kinds and judged.kind not in rule.kinds:
            continue
        said = next((words for words in rule.words if f" {_plain(words)} " in spoken), None)
        if rule.words and said is None:
            continue
        for pair in able:
            if pair[0].model.name == rule.model:
                why = f"says {said!r}" if said is not None else f"is of kind {judged.kind}"
                return pair, f"rule {n + 1} of the catalog: the prompt {why}"
    return None


def _plain(words: str) -> str:
    return " ".join(WORD.findall(words.lower()))
