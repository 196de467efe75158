"""A request: what a caller may ask for, field by field."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from headgate.shared.errors import InvalidRequest
from headgate.shared.field_faults import closest, path_of, remedy_of
from headgate.shared.job.encoding import has_large_number
from headgate.shared.job.numbers import plain
from headgate.shared.job.request_checks import (
    INPUT_REMEDY,
    PARAMS,
    AnyForm,
    Form,
    check_input,
    check_messages,
    check_moderated,
    check_params,
    is_deeper,
    with_whole_numbers,
)
from headgate.shared.job.responses_checks import (
    OF_RESPONSES,
    WITHOUT_INPUT,
    check_items,
    with_responses_form,
)
from headgate.shared.webhook_target import checked_url

AUTO = "auto"
"""The model of a request that leaves the choice to routing."""

MAX_DEADLINE_S = 365 * 86_400
DEFAULT_DEADLINE_S = 86_400

MAX_METADATA_DEPTH = 100
"""How deep `metadata` may be nested. orjson writes 254 levels, and a result adds some around it."""

MAX_SAMPLES = 128
"""How many samples of a request there may be; as many as OpenAI's `n`."""

Priority = Literal["interactive", "standard", "bulk"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)

Kind = Literal[
    "chat", "reasoning", "code", "research", "creative", "analysis", "summary", "translation",
    "vision",
]  # fmt: skip
"""What a request is about, as routing sees it."""


def _without_nul(text: str) -> str:
    if "\x00" in text:  # PostgreSQL's text cannot hold it
        raise ValueError("leave out the NUL character")
    return text


LONGEST_NAME = 128
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME), AfterValidator(_without_nul)]
"""A name that a caller gives; the error of a bad one says what to do."""

NO_NUL = r"^[^\x00]*$"
ColumnText = Annotated[str, Field(min_length=1, max_length=128, pattern=NO_NUL)]
"""What a column of the tables holds; as a pattern, which pydantic checks without calling Python."""

MAX_KEY_CHARACTERS = 255
IdempotencyKey = Annotated[str, Field(min_length=1, max_length=MAX_KEY_CHARACTERS, pattern=NO_NUL)]

USD = re.compile(r"[0-9]{1,9}(\.[0-9]{1,12})?", re.ASCII)


def _decimal_text(value: object) -> object:
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return format(Decimal(str(value)), "f")
    return value


def _is_usd(text: str) -> str:
    if USD.fullmatch(text) is None:
        raise ValueError('give USD as a decimal text such as "0.25", at most 12 decimals')
    return text


Usd = Annotated[str, BeforeValidator(_decimal_text), AfterValidator(_is_usd)]
"""A caller's amount of money: a decimal text. A number is taken by its decimal digits."""


WebhookUrl = Annotated[str, AfterValidator(checked_url)]

KEY_ID = "hgk_"
KeyId = Annotated[str, Field(pattern=r"^hgk_[0-9a-f]{12}$")]
"""The id of a gateway key: KEY_ID and 12 hexadecimal digits."""


EmbeddingInput = str | list[str] | list[int] | list[list[int]]
"""What an embedding job embeds: a text, texts, a text as tokens, or several of them."""


MODERATION_MODEL = "omni-moderation-latest"
"""The model of a moderation that names none, as at OpenAI."""


CACHE_MODES = ("off", "exact")
CACHE_REMEDY = 'use "off" or "exact"; "semantic" is not supported yet'


Dialect = Form
"""Whose form a request has: OpenAI's chat completions or Responses, or Anthropic's messages."""

KEY_DIGITS = 16
"""The hexadecimal digits by which a key of a provider is known: the first of its SHA-256."""


class Pin(BaseModel):
    """The provider and the key that a job is bound to: the vendor's state behind it is theirs."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    provider: Name
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


AskedForm = AnyForm
"""The form of a request."""

AnswerKind = Literal["text", "embeddings", "moderation"]
"""What a request asks a model for. A model has one of them."""


class CacheWish(BaseModel):
    """How the caller wants the cache: `exact` or `off`, and how many seconds to keep the answer.

    Without a mode the cache policy (`shared/cache/ttl.py`) decides; `exact` overrides it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    mode: Literal["off", "exact"] | None = None
    ttl_s: Annotated[int, Field(ge=1, le=30 * 86_400)] | None = None


class Request(BaseModel):
    """What a caller wants: exactly one of `prompt`, `messages` and `input`.

    `messages` and `params` have the form of `dialect`. In the dialect `responses` the `input` is a
    text or a list of items, and `params` has the other fields of the body but model and stream.
    `events`: with `stream`, the vendor's events are made readable, too, and not the text alone.
    `pinned` binds the job to one key of one provider, without fallback.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    prompt: Annotated[str, Field(min_length=1)] | None = None
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = None
    input: str | list[str] | list[int] | list[list[int]] | list[dict[str, Any]] | None = None
    model: Name | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    dialect: AskedForm = "openai"
    priority: Priority = "standard"
    tenant: Name = "default"
    user: Name | None = None
    tier: Name | None = None
    key_id: KeyId | None = None
    pinned: Pin | None = None
    deadline_s: Annotated[float, Field(gt=0, le=MAX_DEADLINE_S)] = DEFAULT_DEADLINE_S
    cache: CacheWish = CacheWish()
    fallback: bool | list[Name] = True
    same_provider: bool = False
    share: bool = True
    stream: bool = False
    events: bool = False
    task: Kind | None = None
    prefer: Literal["speed", "quality", "cost"] = "cost"
    max_usd_per_million: Usd | None = None
    max_cost_usd: Usd | None = None
    template: Name | None = None
    variables: dict[str, str | int | float | bool] = Field(default_factory=dict)
    idempotency_key: IdempotencyKey | None = None
    on_limit: Literal["wait", "refuse"] = "wait"
    on_unknown: Literal["retry", "fail"] = "retry"
    webhook_url: WebhookUrl | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)

    @field_validator("deadline_s", mode="before")
    @classmethod
    def _take_whole_seconds(cls, value: object) -> object:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("cache", mode="before")
    @classmethod
    def _take_cache_mode(cls, wish: object) -> object:
        if isinstance(wish, str):
            if wish not in CACHE_MODES:
                raise InvalidRequest("cache", wish, CACHE_REMEDY)
            return CacheWish(mode=wish)  # type: ignore[arg-type]  # one of them
        return CacheWish(mode="off") if wish is False else wish

    @field_validator("metadata")
    @classmethod
    def _refuse_odd_metadata(cls, metadata: dict[str, Any]) -> dict[str, Any]:
        if metadata and is_deeper(metadata, MAX_METADATA_DEPTH):
            remedy = f"nest it at most {MAX_METADATA_DEPTH} levels deep"
            raise InvalidRequest("metadata", "nested too deep", remedy)
        if metadata and has_large_number(metadata):
            remedy = "it holds a whole number of more than 64 bits; give that as a text"
            raise InvalidRequest("metadata", "a large number", remedy)
        return metadata

    def model_post_init(self, _: object) -> None:
        """Check the fields together. A validator would run again for the request's envelope."""
        given = [n for n in ("prompt", "messages", "input") if getattr(self, n) is not None]
        # A template makes one of them when it is expanded (shared/catalog/templates.py).
        if len(given) != 1 and (given or self.template is None) and not self._goes_without(given):
            named = " and ".join(given) or "none"
            raise InvalidRequest("prompt", named, "give exactly one of prompt, messages and input")
        if self.dialect == "moderations":
            self._check_moderation()
            return
        if self.dialect != "openai":
            self._refuse_openais_form()
        if self.messages is not None:
            check_messages(self.messages, self.dialect)
        if self.dialect == "responses":
            if self.input is not None:
                self._check_responses_input(self.input)
        elif self.input is not None:
            check_input(self.input)
        if self.stream and self.embeds:
            raise InvalidRequest("stream", True, "an embedding has no text to stream; leave it out")
        if self.params:
            check_params(self.params, self.dialect)

    def _check_moderation(self) -> None:
        """Raise InvalidRequest for what is no moderation, or has fields of another form."""
        if self.input is None:
            remedy = "a moderation judges an input; give a text, texts or a list of parts"
            raise InvalidRequest("input", None, remedy)
        check_moderated(self.input)
        if self.stream:
            raise InvalidRequest("stream", True, "a moderation has no text to stream; leave it out")
        check_params(self.params)

    def _goes_without(self, given: list[str]) -> bool:
        """Return whether a param of Responses stands in the place of an input."""
        params = self.params
        return (
            not given
            and self.dialect == "responses"
            and any(params.get(name) is not None for name in WITHOUT_INPUT)
        )

    def _check_responses_input(self, items: str | list[Any]) -> None:
        """Raise InvalidRequest unless this is a text or a list of items, or others stand for it."""
        if not items and not self._goes_without([]):
            raise InvalidRequest("input", items, "give a text or a list of items")
        if isinstance(items, str):
            return
        for i, item in enumerate(items):
            if not isinstance(item, dict):
                raise InvalidRequest(f"input[{i}]", item, "give an item, such as a message")
        check_items(items)

    def _refuse_openais_form(self) -> None:
        """Raise InvalidRequest for fields of chat completions in a request of another form."""
        if self.template is not None:
            remedy = "templates have OpenAI's form; leave it out"
            raise InvalidRequest("dialect", self.dialect, remedy)
        if self.dialect == "anthropic" and self.input is not None:
            remedy = "Anthropic has no embeddings; leave it out"
            raise InvalidRequest("dialect", self.dialect, remedy)
        if self.dialect == "responses" and self.messages is not None:
            raise InvalidRequest("messages", "a list", "the dialect responses has `input` instead")

    @property
    def embeds(self) -> bool:
        """Whether this is an embedding job."""
        return self.answer_kind == "embeddings"

    @property
    def answer_kind(self) -> AnswerKind:
        """What the job asks its model for."""
        if self.dialect == "moderations":
            return "moderation"
        return "text" if self.input is None or self.dialect == "responses" else "embeddings"

    @property
    def inputs(self) -> list[Any]:
        """The inputs of an embedding job, as a list of texts or of token lists.

        Those of a moderation are texts, or one list of parts, which is judged as a whole.
        """
        given: Any = self.input
        if given is None or self.answer_kind == "text":
            return []
        if isinstance(given, str):
            return [given]
        return [given] if isinstance(given[0], int | dict) else given

    @property
    def asked_tokens(self) -> int | None:
        """The most output tokens that the caller asks for; None if the params do not say."""
        params = self.params
        if self.dialect == "responses":
            asked = params.get("max_output_tokens")
        else:
            asked = params.get("max_completion_tokens") or params.get("max_tokens")
        return asked if isinstance(asked, int) else None

    @property
    def version(self) -> int:
        """The version of an envelope that carries the request.

        Readers of version 1 refuse tokens as `input`, messages of the role `function`, and several
        answers (`params.n`). Readers of version 2 would read other forms as OpenAI's, and would
        call no webhook.
        """
        if self.dialect != "openai" or self.pinned is not None or self.webhook_url is not None:
            return 3
        if self.input is not None:
            return 1 if isinstance(self.inputs[0], str) else 2
        answers = self.params.get("n")
        if isinstance(answers, int) and answers > 1:
            return 2
        roles = (message.get("role") for message in self.messages or ())
        return 2 if "function" in roles else 1

    def model_or(self, default: str) -> str:
        """Return the model that is asked for; without one, `default`, or the one that moderates."""
        return self.model or (MODERATION_MODEL if self.dialect == "moderations" else default)

    def chat(self) -> list[dict[str, Any]]:
        """Return the messages in the form of `dialect`; a prompt is one message of the user."""
        if self.messages is not None:
            return self.messages
        return [{"role": "user", "content": self.prompt}]


REQUEST_FIELDS = frozenset(Request.model_fields)

_UNIONS = {
    "fallback": (1, "give true, false or a list of model names"),
    "input": (1, INPUT_REMEDY),
    "variables": (2, "give a text, a number, true or false"),
}
"""Fields of several types: the parts of the path that callers know, and the remedy."""

_INPUTS = {
    "responses": "give a text or a list of items",
    "moderations": "give a text, a list of texts or a list of parts",
}
"""The remedy for an `input` of another type in these dialects, which embed nothing."""


def request_from(fields: dict[str, Any]) -> Request:
    """Return a checked Request from a caller's fields.

    Raises InvalidRequest that names the first field at fault, its value and the remedy.
    """
    fields = with_responses_form(with_whole_numbers(plain(fields)))
    for name in fields:
        if name not in REQUEST_FIELDS:
            raise InvalidRequest(str(name), fields[name], _remedy_for_unknown(str(name)))
    wish = fields.get("cache")
    if isinstance(wish, dict) and wish.get("mode") == "semantic":
        raise InvalidRequest("cache.mode", "semantic", "not supported yet; use exact or off")
    try:
        return Request.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        loc, remedy = first["loc"], remedy_of(first)
        if loc and (union := _UNIONS.get(str(loc[0]))) and len(loc) > union[0]:
            loc, remedy = loc[: union[0]], union[1]
            if loc == ("input",):
                remedy = _INPUTS.get(str(fields.get("dialect")), remedy)
        raise InvalidRequest(path_of(loc), first.get("input"), remedy) from None


def _remedy_for_unknown(name: str) -> str:
    if name == "samples":
        return (
            "a job has one answer; use client.submit_many(requests, samples=N), "
            "`headgate batch run FILE --samples N`, or samples in a line of the file"
        )
    if name in PARAMS or name in OF_RESPONSES:
        return f"give it as params.{name}"
    return f"unknown field; {closest(name, REQUEST_FIELDS)}"
