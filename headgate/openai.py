"""OpenAI's own clients through the queue, without a gateway between them.

    from headgate.openai import OpenAI

    with OpenAI(tenant="acme") as client:
        answer = client.chat.completions.create(model="gpt-4o-mini", messages=[...])

Each call is a job: limits, budgets, cache, fallback and the record are those of all jobs. Errors
are OpenAI's, such as `openai.RateLimitError`.
"""

from __future__ import annotations

from headgate.producer.sdk.openai import AsyncOpenAI, OpenAI

__all__ = ["AsyncOpenAI", "OpenAI"]
