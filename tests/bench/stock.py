"""A stock Celery worker app that asks through the OpenAI SDK: what one would write without us."""

from __future__ import annotations

import time

import redis
from celery import Celery
from openai import OpenAI

from headgate.shared import settings

in_force = settings.load()
app = Celery("stock", broker=in_force.redis_url)
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=4)


@app.task(name="stock.ask")
def ask(prompt: str) -> str | None:
    """The answer; the client is made once per process."""
    global _client
    if _client is None:
        _client = OpenAI(base_url=f"{in_force.simulator_url}/v1", api_key="none", max_retries=0)
    reply = _client.chat.completions.create(
        model="gpt-4o-mini", max_tokens=50, messages=[{"role": "user", "content": prompt}]
    )
    return reply.choices[0].message.content


_client: OpenAI | None = None


@app.task(name="stock.timed")
def timed(prompt: str, began_s: float) -> None:
    """The seconds from `began_s` (Unix) to the end of the call are in the list `stock:took`."""
    ask(prompt)
    took_s = time.time() - began_s
    with redis.Redis.from_url(str(in_force.redis_url)) as client:
        client.rpush("stock:took", str(took_s))
