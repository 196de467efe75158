"""Routing as a whole: a request for `auto` gets a model of the catalog in force, and the reasons.

The tables are read once per process, when the first request asks for it.
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

from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model
from headgate.shared.cost import price, rates
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.request import AUTO, Kind, Request
from headgate.shared.routing.capabilities import FIELDS, needs_of, sees
from headgate.shared.routing.choose import (
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
    """The words by which a prompt is judged."""
    return Lexicon(tomllib.loads(WORDS.read_text(encoding="utf-8")))


@cache
def weights() -> Weights:
    """How much each feature speaks for each kind, and for complexity."""
    tables = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    return Weights(tables["kinds"], tables["score"])


@dataclass(frozen=True, slots=True)
class RouteOption:
    """A model that was not chosen; `usd`: a typical request of this kind; `why_not` if excluded."""

    model: str
    provider: str
    usd: str | None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """Which model a request gets, and why.

    `score` and `level`: how complex it is, 0 to 12. `usd`: what a typical request of this kind
    costs there, as a decimal text; None where no price is known. `runners_up`: the next best first.
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
        """All of it, as JSON may hold it."""
        return asdict(self)


def nothing_known() -> ModelStatus:
    """Every model is up, and every provider has a key."""
    return ModelStatus()


class Router:
    """Chooses models of one catalog; `standing` tells which are down or have no key."""

    def __init__(
        self, catalog: Catalog, standing: Callable[[], ModelStatus] = nothing_known
    ) -> None:
        self._catalog = catalog
        self._standing = standing
        self._known: tuple[Candidate, ...] | None = None

    def model(self, request: Request, field: str = "model") -> Model:
        """The model for a request that leaves it open; InvalidRequest where none can do it."""
        judged, choice = self._choice(request, field)
        return choice.model or _refuse(field, request, choice, judged)

    def route(self, request: Request, field: str = "model") -> Route:
        """The same with its reasons, and what the others would cost."""
        judged, choice = self._choice(request, field)
        model = choice.model or _refuse(field, request, choice, judged)
        return Route(
            model.name, model.provider, judged.kind, judged.score, judged.level,
            _usd(choice.pico_usd), choice.reasons, _told(choice.others), _told(choice.excluded),
        )  # fmt: skip

    def _choice(self, request: Request, field: str) -> tuple[Judgement, Choice]:
        if request.embeds:
            remedy = "vectors of different models cannot be compared; name one that embeds, such as"
            raise InvalidRequest(field, AUTO, f"{remedy} {self._embedding()}")
        text, instruction = words_of(request)
        judged = judge(
            text, lexicon(), weights(),
            image=sees(request), kind=request.task, instruction=instruction,
        )  # fmt: skip
        dearest = request.max_usd_per_million
        wish = RoutePreference(
            needs_of(request),
            request.prefer,
            None if dearest is None else int(Decimal(dearest) * PICO_IN_ONE / 10**6),
            text,
        )
        if self._known is None:
            self._known = tuple(candidates(self._catalog))
        rules = self._catalog.routing.rules
        return judged, choose(judged, wish, self._known, rules, self._standing())

    def _embedding(self) -> str:
        found = (model.name for model in self._catalog.models.values() if model.embeds)
        return next(found, "one that your catalog adds")


def candidates(catalog: Catalog) -> Iterator[Candidate]:
    """Every model that answers, with its dearest prices from now on."""
    now = datetime.now(UTC)
    for model in catalog.models.values():
        if model.embeds:
            continue
        sheets = rates.sheets_of(model, catalog)
        found = {
            (
                rate.above_tokens,
                int(rate.input * PICO_IN_ONE),
                int(max(rate.output, rate.reasoning) * PICO_IN_ONE),
            )
            for sheet in rates.from_now_on(sheets, now)
            for rate in sheet.rates
        }
        yield Candidate(model, tuple(sorted(found)))


def words_of(request: Request) -> tuple[str, str]:
    """What the user last said, and what the system said before: their ends, where they are long."""
    if request.prompt is not None:
        return request.prompt, ""
    asked, instruction = "", ""
    for message in reversed(request.messages or []):
        role = message["role"]
        if role == "user" and not asked:
            asked = _text_of(message.get("content"))
        elif role in ("system", "developer"):
            instruction = _text_of(message.get("content"))
    return asked, instruction


def _text_of(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [text for part in content if isinstance(text := part.get("text"), str)]
    if sum(map(len, texts)) > HEAD + TAIL:
        texts = [text if len(text) <= HEAD else f"{text[:HEAD]}\n{text[-TAIL:]}" for text in texts]
        return "\n".join([*texts[:20], *texts[20:][-5:]])
    return "\n".join(texts)


def _usd(pico: int | None) -> str | None:
    return None if pico is None else price.text(price.from_pico(pico))


def _told(options: tuple[Option, ...]) -> tuple[RouteOption, ...]:
    return tuple(
        RouteOption(one.model.name, one.model.provider, _usd(one.pico_usd), one.why_not)
        for one in options
    )


def _refuse(field: str, request: Request, choice: Choice, judged: Judgement) -> Model:
    """Raises InvalidRequest, which says for each reason how many models it left out."""
    by_reason: dict[str, list[str]] = {}
    for one in choice.excluded:
        by_reason.setdefault(one.why_not, []).append(one.model.name)
    words = "; ".join(
        f"{why}: {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
        for why, names in by_reason.items()
    )
    remedy = "name a model that the catalog has"
    if "too dear" in by_reason:
        field, shown = "max_usd_per_million", request.max_usd_per_million or ""
        remedy = "raise it"
    else:
        shown = AUTO
        missing = next((why for why in by_reason if why.startswith("lacks ")), "")
        name = missing.removeprefix("lacks ")
        if name:
            remedy = f"the request needs {name} ({FIELDS.get(name, 'its length')}); " + remedy
    raise InvalidRequest(
        field, shown, f"no model can answer this {judged.kind} ({words or 'none'}); {remedy}"
    )
