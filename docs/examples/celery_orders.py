"""An existing Celery app: its tasks ask models, and get the answers as arguments.

    celery -A celery_orders worker --queues orders

Headgate's worker runs beside it, on the same Redis. The app needs no code of Headgate's.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, chain
from celery.result import AsyncResult

url = os.environ["HEADGATE_REDIS_URL"]
app = Celery("orders", broker=url, backend=url)
app.conf.task_default_queue = "orders"


@app.task
def order_text(number: int) -> str:
    """Return what the model is to summarise; the prompt of the next task."""
    return f"Order {number}: 3 lamps, 1 table, to be delivered on Friday."


@app.task
def store_summary(result: dict[str, Any], number: int) -> str:
    """Store the answer of the model, which comes first among the arguments."""
    return f"order {number}, for {result['cost_usd']} USD: {result['content']}"


def summarise(number: int) -> AsyncResult[str]:
    """Start the chain: a task of ours, a job of Headgate's, and a task of ours."""
    messages = [{"role": "system", "content": "Summarise this order in one sentence."}]
    ask = app.signature(
        "headgate.run",
        kwargs={"model": "gpt-4o-mini", "messages": messages, "metadata": {"order": number}},
        queue="headgate.standard.fast",
    )
    # Headgate's worker sends what follows its job, and does not know the default queue of this app.
    store = store_summary.s(number).set(queue="orders")
    return chain(order_text.s(number), ask, store).apply_async()
