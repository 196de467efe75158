"""Which answers may take long, and how long a call of such an answer may take. Pure.

Networks and proxies cut connections on which nothing moves, and one time limit for the whole of a
long answer throws away answers that are paid for. So long answers come as a stream, where the
vendor can send all of an answer in one, and the time limit holds between two bytes.
"""

from __future__ import annotations

import math
import re

from headgate.shared.catalog.schema import Model
from headgate.shared.cost.tokens import output_ceiling
from headgate.shared.job.request import Request
from headgate.workers.errors import AttemptError

TOKENS_PER_S = 128_000 / 3600
"""The slowest answer, as the `anthropic` SDK estimates (`_calculate_nonstreaming_timeout`)."""

PLAIN_S = 120.0
"""A model with more time than this may answer long, unless `max_tokens` fit into this time."""

PLAIN_AT_MOST_S = 600.0
"""Above this the `anthropic` SDK refuses to ask without a stream: over 21,333 tokens."""


def output_s(request: Request, model: Model) -> float:
    """Return how many seconds the longest answer to this request may take; inf if not known."""
    most = output_ceiling(request.asked_tokens, model)
    return most / TOKENS_PER_S if most > 0 else math.inf


def may_be_long(request: Request, model: Model, timeout_s: float) -> bool:
    """Return whether the answer may take long. `timeout_s` is the time limit of the model."""
    if request.answer_kind != "text":
        return False
    longest_s = output_s(request, model)
    if longest_s == math.inf:
        return timeout_s > PLAIN_S
    return longest_s > (PLAIN_S if timeout_s > PLAIN_S else PLAIN_AT_MOST_S)


def whole_s(request: Request, model: Model, timeout_s: float) -> float:
    """Return the time limit of a long answer as a whole: an endless stream ends, too."""
    return timeout_s + min(output_s(request, model), 3600.0)


def fits_a_stream(request: Request) -> bool:
    """Return False for what a stream cannot bring whole: its audio has other formats."""
    params = request.params
    modalities = params.get("modalities")
    return not params.get("audio") and not (
        isinstance(modalities, list) and any(kind != "text" for kind in modalities)
    )


def refuses_streams(error: AttemptError) -> bool:
    """Return whether the refusal may be about the stream and not about the request.

    OpenAI lets only verified organizations stream some models. Other servers stream none.
    """
    refused = error.billed is False and not error.retryable
    return refused and re.search(r"\bstream", error.message, re.I) is not None
