"""A Celery app under `rate_limit`: what one would write without us. The limit is set from outside.

A job that the provider refuses is retried by Celery, with its backoff.
"""

from __future__ import annotations

from celery import Celery
from openai import OpenAI, RateLimitError

from headgate.shared import settings

in_force = settings.load()
app = Celery("stock", broker=in_force.redis_url)
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=4)
_clients: list[OpenAI] = []


@app.task(
    name="stock.limited", autoretry_for=(RateLimitError,), max_retries=None, retry_backoff=True
)
def limited(prompt: str, max_tokens: int) -> str | None:
    """The answer; the client is made once per process."""
    if not _clients:
        url = f"{in_force.simulator_url}/v1"
        _clients.append(OpenAI(base_url=url, api_key="none", max_retries=0))
    reply = _clients[0].chat.completions.create(
        model="gpt-4o-mini",
        max_tokens=max_tokens,
        messages=[{"role": "user", "content": prompt}],
    )
    return reply.choices[0].message.content
