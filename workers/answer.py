"""What a provider hands back for one attempt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shared.envelope import Reply


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's reply with the headers that speak of limits and of the request's id.

    `headers` has lower-case names. `counted` is False where the vendor sent no usable usage: the
    zeros in `reply.usage` then mean unknown, and the ledger has to go by its estimate.
    """

    reply: Reply
    headers: Mapping[str, str]
    counted: bool = True
