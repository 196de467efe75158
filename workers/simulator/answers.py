"""Makes answers, as a pure function of the request: same request, same answer, same counts."""

import array
import hashlib
import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist
from typing import Any, Literal

import orjson

from headgate.workers.simulator.json_example import example_of
from headgate.workers.simulator.request import SimulatedRequest, Tool, tokens_of

End = Literal["stop", "length", "tool", "filter"]

#: Half a megabyte of text. Longer draws are cut to this.
MOST_TOKENS = 128_000


@lru_cache(maxsize=8)
def lengths(median: float, sigma: float, steps: int = 4096) -> tuple[int, ...]:
    """Return `steps` lengths of answers in tokens, from short to long: a lognormal distribution."""
    normal = NormalDist()
    places = (normal.inv_cdf((step + 0.5) / steps) for step in range(steps))
    drawn = (round(median * math.exp(sigma * place)) for place in places)
    return tuple(min(MOST_TOKENS, max(1, tokens)) for tokens in drawn)


# The lengths by default: most are between 15 and 150.
LENGTHS = lengths(48, 0.6, 256)
SENTENCES = (
    "The short answer is yes, with two conditions that matter in practice.",
    "Start with the smallest case that can fail, and keep it as a test.",
    "Most of the time is spent waiting, so the order of the steps decides the total.",
    "A second look at the figures shows a slower trend than the headline suggests.",
    "There are three options, and the middle one is the easiest to undo later.",
    "This holds for small inputs; above a few thousand entries the picture changes.",
    "The cost grows with the length of the text rather than with the number of calls.",
    "One reason is history: the older form was kept so that nothing else had to move.",
    "Compare the two side by side before choosing, because both look alike at first.",
    "The customer asked for a refund and mentioned that the parcel arrived late.",
    "In plain words: measure first, change one thing, then measure again.",
    "Nothing in the text says when the change takes effect, so ask before relying on it.",
    "The tone is friendly overall, although the last paragraph sounds impatient.",
    "A good summary keeps the decision, the reason for it and what was left open.",
    "Two of the four sources agree; the others give no date at all.",
    "It helps to write down what must stay true, and check it after every step.",
    "The main risk is a silent failure that nobody notices for a week.",
    "As a rule, the simpler wording is also the more precise one.",
    "The numbers add up once the returned items are counted only once.",
    "Keep the first draft short and let the reader ask for detail.",
    "The rest follows from the definition and needs no further argument.",
    "If in doubt, prefer the version that can be explained in one sentence.",
)
CITED_WORDS = 6
CITED_CHARS = 60


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asks for; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class SimulatedAnswer:
    """What the model answers, and how many tokens that took. Output tokens include reasoning.

    `more_calls`: those besides `tool_call`. `thinking`: the reasoning, where it is shown.
    """

    text: str
    tool_call: ToolCall | None
    end: End
    stop_word: str | None
    output_tokens: int
    reasoning_tokens: int
    more_calls: tuple[ToolCall, ...] = ()
    thinking: str = ""

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """All calls that the model asks for."""
        return () if self.tool_call is None else (self.tool_call, *self.more_calls)


def compose(
    ask: SimulatedRequest, choice: int, chars_per_token: float, exact: tuple[int, ...] | None = None
) -> SimulatedAnswer:
    """Return the answer to `ask`. `choice` numbers the alternatives if several were asked for.

    Prose is some sentences long. With `exact` it has exactly one of these lengths in tokens.
    """
    digest = ask.digest
    if choice:
        digest = hashlib.blake2b(digest + choice.to_bytes(4, "big"), digest_size=16).digest()
    reasoning = _reasoning_tokens(ask, digest)
    tokens_left = None if ask.max_tokens is None else ask.max_tokens - reasoning
    chars = int(reasoning * chars_per_token)
    thinking = _prose(ask.last, digest, chars)[:chars] if ask.thinks else ""
    if ask.tool is not None:
        called = _call(ask.tool, digest, tokens_left, reasoning, chars_per_token)
        return replace(_with_more(called, ask, digest, chars_per_token), thinking=thinking)
    if ask.wants_json:
        text = _json_text(ask, digest)
    else:
        text = _sentences(ask, digest, chars_per_token, exact)
    most_chars = None if tokens_left is None else tokens_left * chars_per_token
    text, end, stop_word = _cut(text, ask.stop, most_chars)
    text_tokens = tokens_of(len(text), chars_per_token)
    tokens = text_tokens + reasoning
    return SimulatedAnswer(text, None, end, stop_word, tokens, reasoning, thinking=thinking)


def _reasoning_tokens(ask: SimulatedRequest, digest: bytes) -> int:
    if not (ask.reasons or ask.thinks):
        return 0
    reasoning = LENGTHS[digest[3]] * 2
    # Leave half of a small limit for the text, so that there is still an answer.
    return reasoning if ask.max_tokens is None else min(reasoning, ask.max_tokens // 2)


def _sentences(
    ask: SimulatedRequest, digest: bytes, chars_per_token: float, exact: tuple[int, ...] | None
) -> str:
    if exact is None:
        return _prose(ask.last, digest, int(LENGTHS[digest[2]] * chars_per_token))
    tokens = exact[int.from_bytes(digest[2:5], "big") * len(exact) >> 24]
    chars = int(tokens * chars_per_token)
    return _prose(ask.last, digest, chars)[: max(1, chars)]


def _cut(text: str, stop: Iterable[str], most_chars: float | None) -> tuple[str, End, str | None]:
    """End the text at a stop word or at its limit; return why it ends, and the stop word."""
    stop_word = None
    for word in stop:
        place = text.find(word)
        if place >= 0:
            text, stop_word = text[:place], word
    if most_chars is not None and len(text) > most_chars:
        return text[: int(most_chars)], "length", None
    return text, "stop", stop_word


def vector(text: str, dimensions: int) -> "array.array[float]":
    """Return a unit vector for `text`, made from the hashes of its words and word pairs.

    Texts that share words lie close to each other, so a semantic cache can be tried out.
    """
    found: dict[int, float] = {}
    before = ""
    for word in text.lower().split():
        for part, weight in ((word, 1.0), (f"{before} {word}", 0.5)):
            place = zlib.crc32(part.encode())
            sign = weight if place & 0x80000000 else -weight
            found[place % dimensions] = found.get(place % dimensions, 0.0) + sign
        before = word
    norm = math.sqrt(sum(weight * weight for weight in found.values()))
    places = array.array("f", bytes(4 * dimensions))
    if norm == 0.0:
        places[zlib.crc32(text.encode()) % dimensions] = 1.0
        return places
    for place, weight in found.items():
        places[place] = weight / norm
    return places


def pieces(text: str, chars: int = 16) -> list[str]:
    """Split `text` into the parts in which it is streamed, a few words each."""
    parts: list[str] = []
    start = 0
    while start < len(text):
        end = text.find(" ", start + chars)
        if end < 0:
            end = len(text)
        parts.append(text[start:end])
        start = end
    return parts


def _prose(last: str, digest: bytes, chars: int) -> str:
    cited = " ".join(last[:CITED_CHARS].split()[:CITED_WORDS])
    text = f'Note {digest[:4].hex()} on "{cited}":'
    # One step of a linear congruential generator per sentence is far cheaper than a Random.
    state = int.from_bytes(digest[:8], "big")
    while len(text) < chars:
        state = (state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        text += " " + SENTENCES[(state >> 33) % len(SENTENCES)]
    return text


def _json_text(ask: SimulatedRequest, digest: bytes) -> str:
    made: Any
    if ask.schema is not None:
        made = example_of(ask.schema, digest)
    else:
        made = {
            "answer": SENTENCES[digest[4] % len(SENTENCES)],
            "reference": digest[:4].hex(),
            "confidence": round(digest[5] / 255, 2),
        }
    return orjson.dumps(made).decode()


def _call(
    tool: Tool, digest: bytes, tokens_left: int | None, reasoning: int, chars_per_token: float
) -> SimulatedAnswer:
    """Return an answer that calls the tool; its arguments are cut after `tokens_left`."""
    arguments = orjson.dumps(example_of(tool.schema, digest)).decode()
    end: End = "tool"
    if tokens_left is not None and len(arguments) > tokens_left * chars_per_token:
        arguments, end = arguments[: int(tokens_left * chars_per_token)], "length"
    call_tokens = tokens_of(len(tool.name) + len(arguments), chars_per_token)
    if tokens_left is not None:
        call_tokens = min(call_tokens, tokens_left)
    call = ToolCall(digest.hex()[:24], tool.name, arguments)
    return SimulatedAnswer("", call, end, None, call_tokens + reasoning, reasoning)


def _with_more(
    called: SimulatedAnswer, ask: SimulatedRequest, digest: bytes, chars_per_token: float
) -> SimulatedAnswer:
    """Return the answer with a call of each further tool."""
    more: list[ToolCall] = []
    tokens = called.output_tokens
    for tool in ask.more_tools:
        own = hashlib.blake2b(digest + tool.name.encode(), digest_size=16).digest()
        one = _call(tool, own, None, 0, chars_per_token)
        more += one.calls
        tokens += one.output_tokens
    return replace(called, output_tokens=tokens, more_calls=tuple(more))
