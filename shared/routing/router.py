"""Routing: a request for `auto` gets a model of the catalog in force, and the reasons for it.

The tables are read once in a process, when the first request needs them.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from headgate.shared.catalog import access
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model
from headgate.shared.cost import rates
from headgate.shared.cost.price import usd_text
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.request import AUTO, AnswerKind, Kind, Request
from headgate.shared.responses.chat_form import readable
from headgate.shared.routing.capabilities import field_of, has_images, needs_of
from headgate.shared.routing.choose import (
    TOO_EXPENSIVE,
    Candidate,
    Choice,
    ModelStatus,
    Option,
    RoutePreference,
    choose,
)
from headgate.shared.routing.classify import Judgement, Level, Weights, judge
from headgate.shared.routing.features import HEAD, TAIL, Lexicon

WORDS = Path(__file__).with_name("words.toml")
WEIGHTS = Path(__file__).with_name("weights.json")
PICO_IN_ONE = 10**12


@cache
def lexicon() -> Lexicon:
    """Return the words by which a prompt is judged."""
    return Lexicon(tomllib.loads(WORDS.read_text(encoding="utf-8")))


@cache
def weights() -> Weights:
    """Return the weights of each feature for each kind, and for complexity."""
    tables = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    return Weights(tables["kinds"], tables["score"])


@dataclass(frozen=True, slots=True)
class RouteOption:
    """A model that was not chosen; `why_not` is empty if it could have been.

    `usd` is the price of a typical request of this kind, as a decimal text; None if unknown.
    """

    model: str
    provider: str
    usd: str | None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """The model that a request gets, and why.

    `score` (0 to 12) and `level` say how complex the request is. `usd` is the price of a typical
    request of this kind, as a decimal text; None if unknown. `runners_up` has the best one first.
    """

    model: str
    provider: str
    kind: Kind
    score: int
    level: Level
    usd: str | None
    reasons: tuple[str, ...]
    runners_up: tuple[RouteOption, ...]
    excluded: tuple[RouteOption, ...]

    def as_json(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return asdict(self)


def nothing_known() -> ModelStatus:
    """Return the status in which every model is up and every provider has a key."""
    return ModelStatus()


class Router:
    """Chooses models of one catalog; `status` returns which are down or have no key."""

    def __init__(self, catalog: Catalog, status: Callable[[], ModelStatus] = nothing_known) -> None:
        self._catalog = catalog
        self._status = status
        self._candidates: tuple[Candidate, ...] | None = None

    def model(self, request: Request, field: str = "model") -> Model:
        """Return the model for a request that names none.

        Raises InvalidRequest, with `field` as the field at fault, if no model can answer it.
        """
        judged, choice = self._choice(request, field)
        return choice.model or self._refuse(field, request, choice, judged)

    def route(self, request: Request, field: str = "model") -> Route:
        """Return the model as `model` does, with the reasons and the other models."""
        judged, choice = self._choice(request, field)
        model = choice.model or self._refuse(field, request, choice, judged)
        return Route(
            model.name, model.provider, judged.kind, judged.score, judged.level,
            usd_text(choice.pico_usd), choice.reasons,
            _options(choice.others), _options(choice.excluded),
        )  # fmt: skip

    def _choice(self, request: Request, field: str) -> tuple[Judgement, Choice]:
        if (kind := request.answer_kind) != "text":
            what = "vectors" if kind == "embeddings" else "scores"
            remedy = f"{what} of different models cannot be compared; name a model of {kind}, "
            raise InvalidRequest(field, AUTO, f"{remedy}such as {self._a_model_of(kind)}")
        text, instruction = texts_of(request)
        judged = judge(
            text, lexicon(), weights(),
            image=has_images(request), kind=request.task, instruction=instruction,
        )  # fmt: skip
        per_million = request.max_usd_per_million
        preference = RoutePreference(
            needs_of(request),
            request.prefer,
            None if per_million is None else int(Decimal(per_million) * PICO_IN_ONE / 10**6),
            text,
        )
        if self._candidates is None:
            self._candidates = tuple(candidates(self._catalog))
        rules = self._catalog.routing.rules
        return judged, choose(judged, preference, self._candidates, rules, self._status())

    def _refuse(self, field: str, request: Request, choice: Choice, judged: Judgement) -> Model:
        """Raise InvalidRequest that says why no model can answer."""
        needing = (one for one in self._catalog.providers.values() if not one.api_key_optional)
        if {one.name for one in needing} <= self._status().keyless:
            raise InvalidRequest(field, AUTO, access.no_keys(self._catalog))
        return _refuse(field, request, choice, judged)

    def _a_model_of(self, kind: AnswerKind) -> str:
        models = self._catalog.models.values()
        found = (model.name for model in models if model.answer_kind == kind)
        return next(found, "one that your catalog adds")


def candidates(catalog: Catalog) -> Iterator[Candidate]:
    """Yield every model that answers with text, and its highest prices from now on."""
    now = datetime.now(UTC)
    for model in catalog.models.values():
        if model.answer_kind != "text":
            continue
        lists = rates.price_lists_of(model, catalog)
        found = {
            (
                rate.above_tokens,
                int(rate.input * PICO_IN_ONE),
                int(max(rate.output, rate.reasoning) * PICO_IN_ONE),
            )
            for prices in rates.from_now_on(lists, now)
            for rate in prices.rates
        }
        yield Candidate(model, tuple(sorted(found)))


def texts_of(request: Request) -> tuple[str, str]:
    """Return the text of the user's last message, and the system's first instruction."""
    request = readable(request)
    asked, instruction = "", ""
    if request.prompt is not None:
        asked = request.prompt
    for message in reversed(request.messages or []):
        role = message["role"]
        if role == "user" and not asked:
            asked = _text_of(message.get("content"))
        elif role in ("system", "developer"):
            instruction = _text_of(message.get("content"))
    if request.params and request.dialect == "anthropic":
        instruction = _text_of(request.params.get("system")) or instruction
    return asked, instruction


def _text_of(content: object) -> str:
    """Return the text of a message's content; of many long parts only beginnings and ends."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (part for part in content if isinstance(part, dict))
    texts = [text for part in parts if isinstance(text := part.get("text"), str)]
    if sum(map(len, texts)) > HEAD + TAIL:
        texts = [text if len(text) <= HEAD else f"{text[:HEAD]}\n{text[-TAIL:]}" for text in texts]
        return "\n".join([*texts[:20], *texts[20:][-5:]])
    return "\n".join(texts)


def _options(options: tuple[Option, ...]) -> tuple[RouteOption, ...]:
    return tuple(
        RouteOption(one.model.name, one.model.provider, usd_text(one.pico_usd), one.why_not)
        for one in options
    )


def _refuse(field: str, request: Request, choice: Choice, judged: Judgement) -> Model:
    """Raise InvalidRequest that names the reasons, and the models that each of them excluded."""
    by_reason: dict[str, list[str]] = {}
    for one in choice.excluded:
        by_reason.setdefault(one.why_not, []).append(one.model.name)
    words = "; ".join(
        f"{why}: {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
        for why, names in by_reason.items()
    )
    remedy = "name a model of the catalog"
    if TOO_EXPENSIVE in by_reason:
        field, shown = "max_usd_per_million", request.max_usd_per_million or ""
        remedy = "raise it"
    else:
        shown = AUTO
        missing = next((why for why in by_reason if why.startswith("lacks ")), "")
        name = missing.removeprefix("lacks ")
        if name:
            remedy = (
                f"the request needs {name} ({field_of(name, request) or 'its length'}); " + remedy
            )
    raise InvalidRequest(
        field, shown, f"no model can answer this {judged.kind} ({words or 'none'}); {remedy}"
    )
