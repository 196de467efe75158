"""Chooses the model of a request that names none. Pure.

A routing rule of the catalog that fits decides first. Otherwise a model is eligible if it has what
the request needs, costs at most what the caller allows, and its provider has a key. Models that are
down are left out unless all are down. The kind and complexity of the request say which quality
(catalog, 1 to 10) it needs. Of the eligible models that are good enough, `prefer` decides: `cost`
takes the cheapest for a typical answer, `speed` the fastest, `quality` the best.
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

TOO_EXPENSIVE = "too expensive"
"""Why a model is excluded that costs more than the caller allows."""

#: The least quality that a request needs, by complexity, set by hand. With the catalog's figures
#: any model will do for low, a good small one for medium, and one of the large ones for high.
WANTED: Mapping[Level, int] = {"low": 2, "medium": 4, "high": 7}

#: What is added for kinds in which small models make costly mistakes, or hardly any; set by hand.
HARDER: Mapping[Kind, int] = {
    "chat": -1, "summary": -1, "translation": -1, "reasoning": 1, "code": 1,
}  # fmt: skip

#: Tokens of a typical answer: rounded means of the day that `tests/bench/answers` replays.
ANSWER_TOKENS: Mapping[Kind, int] = {
    "chat": 100, "reasoning": 1_100, "code": 700, "research": 800, "creative": 700,
    "analysis": 500, "summary": 180, "translation": 150, "vision": 200,
}  # fmt: skip
BY_LEVEL: Mapping[Level, float] = {"low": 0.6, "medium": 1.0, "high": 1.7}

THINKING = 1.5
"""How much more a model is billed that thinks before it answers: a guess."""

RUNNERS_UP = 5
"""How many of the next best models are reported."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may be chosen.

    Each of `steps` holds for prompts of more tokens than its first number, and has the pico-USD of
    an input and an output token. It is empty if the price is unknown.
    """

    model: Model
    steps: tuple[tuple[int, int, int], ...] = ()

    @property
    def name(self) -> str:
        """Its name in a ModelStatus: provider/model."""
        return f"{self.model.provider}/{self.model.name}"

    def rate(self, input_tokens: int) -> tuple[int, int] | None:
        """Return the highest pico-USD of an input and an output token at this length of prompt."""
        if len(self.steps) == 1:
            return self.steps[0][1:]
        found = [step for step in self.steps if input_tokens > step[0]]
        if not found:
            return None
        return max(step[1] for step in found), max(step[2] for step in found)


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """The models (`provider/model`) that are down now, and the providers without a key."""

    down: frozenset[str] = frozenset()
    keyless: frozenset[str] = frozenset()


def without_key(keyed: Mapping[str, int]) -> frozenset[str]:
    """Return the providers without a key; none if no provider has one, so that routing goes on.

    `keyed` has the number of keys of each provider.
    """
    if not any(keyed.values()):
        return frozenset()
    return frozenset(name for name, n in keyed.items() if n == 0)


@dataclass(frozen=True, slots=True)
class RoutePreference:
    """What the request says about its model; `max_pico` is the most pico-USD of a single token."""

    needs: Needs
    prefer: Prefer = "cost"
    max_pico: int | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Option:
    """A model that was not chosen; `pico_usd` is the price of a typical request, None if unknown.

    `why_not` says why it is excluded, or is empty.
    """

    model: Model
    pico_usd: int | None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen model, its typical price, the reasons, the runners-up and the excluded models.

    `model` is None if every model is excluded.
    """

    model: Model | None
    pico_usd: int | None
    reasons: tuple[str, ...]
    others: tuple[Option, ...]
    excluded: tuple[Option, ...]


def wanted_quality(kind: Kind, level: Level) -> int:
    """Return the least quality that a request of this kind and complexity needs."""
    return max(1, min(9, WANTED[level] + HARDER.get(kind, 0)))


def answer_tokens(judged: Judgement, needs: Needs) -> int:
    """Return the tokens of a typical answer, at most what the request asks for."""
    typical = int(ANSWER_TOKENS[judged.kind] * BY_LEVEL[judged.level])
    if judged.kind == "translation":
        typical = max(typical, needs.input_tokens)
    return min(typical, needs.output_tokens) if needs.output_tokens else typical


Priced = tuple[Candidate, int | None]
"""A candidate and the pico-USD of a typical request, None if its price is unknown."""


def choose(
    judged: Judgement,
    preference: RoutePreference,
    candidates: Sequence[Candidate],
    rules: Sequence[RoutingRule],
    status: ModelStatus,
) -> Choice:
    """Choose the model for this request; the choice has no model if every one is excluded."""
    eligible, excluded = _eligible(judged, preference, candidates, status)
    # A model without a quality is chosen by a rule only.
    graded = [pair for pair in eligible if pair[0].model.quality is not None]
    up = [pair for pair in graded if pair[0].name not in status.down]
    reasons = [*judged.reasons]
    ruled = _by_rule(judged, preference, eligible, rules)
    if up or not graded:
        down = [pair for pair in graded if pair[0].name in status.down]
        excluded += [Option(one.model, cost, "down") for one, cost in down]
        graded = up
    elif ruled is None:
        reasons.append("all models that can answer are down: the job waits for this one")
    ranked, why = _ranked(graded, judged, preference.prefer)
    if ruled is not None:
        (one, cost), why = ruled
    elif ranked:
        one, cost = ranked[0]
    else:
        return Choice(None, None, judged.reasons, (), tuple(excluded))
    others = [Option(other.model, its) for other, its in ranked if other.model is not one.model]
    runners_up = tuple(others[:RUNNERS_UP])
    return Choice(one.model, cost, (*reasons, why), runners_up, tuple(excluded))


def _eligible(
    judged: Judgement,
    preference: RoutePreference,
    candidates: Sequence[Candidate],
    status: ModelStatus,
) -> tuple[list[Priced], list[Option]]:
    """Return the candidates that can answer, and the excluded ones with the reason."""
    eligible: list[Priced] = []
    excluded: list[Option] = []
    input_tokens = preference.needs.input_tokens
    output_tokens = answer_tokens(judged, preference.needs)
    for one in candidates:
        rate = one.rate(input_tokens)
        cost = None if rate is None else _cost(one.model, rate, input_tokens, output_tokens)
        why_not = _why_not(one, rate, preference, status)
        if why_not:
            excluded.append(Option(one.model, cost, why_not))
        else:
            eligible.append((one, cost))
    return eligible, excluded


def _cost(model: Model, rate: tuple[int, int], input_tokens: int, output_tokens: int) -> int:
    thinking = THINKING if "reasoning" in model.capabilities else 1.0
    return rate[0] * input_tokens + int(rate[1] * output_tokens * thinking)


def _why_not(
    one: Candidate,
    rate: tuple[int, int] | None,
    preference: RoutePreference,
    status: ModelStatus,
) -> str:
    if one.model.answer_kind != "text":
        return f"returns {one.model.answer_kind}, not text"
    missing = lacks(one.model, preference.needs)
    if missing is not None:
        return f"lacks {missing}"
    if one.model.provider in status.keyless:
        return f"no worker has a key of {one.model.provider}"
    if preference.max_pico is not None:
        if rate is None:
            return "its price is unknown"
        if max(rate) > preference.max_pico:
            return TOO_EXPENSIVE
    return ""


def _ranked(
    eligible: Sequence[Priced], judged: Judgement, prefer: Prefer
) -> tuple[list[Priced], str]:
    """Return the models, the best first, and why the first one is the best.

    Models below the wanted quality come last, except with `prefer` = `quality`.
    """
    wanted = wanted_quality(judged.kind, judged.level)

    def order(pair: Priced) -> tuple[float, ...]:
        model, cost = pair[0].model, pair[1]
        quality, speed = model.quality or 0, model.tokens_per_s or 0.0
        price = float("inf") if cost is None else float(cost)
        below = max(0, wanted - quality)
        if prefer == "speed":
            return (below, -speed, price, -quality)
        if prefer == "quality":
            return (-quality, price, -speed)
        return (below, price, -quality, -speed)

    ranked = sorted(eligible, key=order)
    if not ranked:
        return ranked, ""
    best = ranked[0][0].model
    superlative = {
        "speed": "the fastest of the models that are good enough",
        "quality": "the best of the models that can answer",
        "cost": "the cheapest of the models that are good enough",
    }[prefer]
    need = f"a {judged.kind} of {judged.level} complexity needs quality {wanted}"
    if (best.quality or 0) < wanted and prefer != "quality":
        return ranked, f"{need}: no eligible model has it, and {best.name} comes nearest"
    return ranked, f"{need}: {best.name} ({best.quality}) is {superlative}"


def _by_rule(
    judged: Judgement,
    preference: RoutePreference,
    eligible: Sequence[Priced],
    rules: Sequence[RoutingRule],
) -> tuple[Priced, str] | None:
    """Return the model of the first rule that fits and whose model is eligible, and why."""
    if not rules:
        return None
    prompt = f" {' '.join(WORD.findall(preference.text.lower()))} "
    for n, rule in enumerate(rules):
        if rule.kinds and judged.kind not in rule.kinds:
            continue
        said = next((words for words in rule.words if f" {_plain(words)} " in prompt), None)
        if rule.words and said is None:
            continue
        for pair in eligible:
            if pair[0].model.name == rule.model:
                why = f"says {said!r}" if said is not None else f"is of kind {judged.kind}"
                return pair, f"rule {n + 1} of the catalog: the prompt {why}"
    return None


def _plain(words: str) -> str:
    return " ".join(WORD.findall(words.lower()))
