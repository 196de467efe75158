"""LiteLLM's Router with its counts in Redis, as one of several processes of one program.

`python -m tests.bench.governor.router URL REDIS_HOST REDIS_PORT RPM TPM MAX_TOKENS FIRST IN_FLIGHT`
asks until it is killed; prompts are numbered from FIRST. A prompt that is refused, by the router
or by the provider, is asked again when the refusal says so, else after a tenth of a second.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import sys
from typing import Any

from tests.bench.governor.prompts import requests

AGAIN_S = 0.1
PROMPTS = 20_000


async def _loop(words: list[str]) -> None:
    url, host, port, rpm, tpm, max_tokens, first, in_flight = words
    litellm: Any = importlib.import_module("litellm")
    litellm.suppress_debug_info = True
    deployed = {
        "model": "openai/gpt-4o-mini", "api_base": f"{url}/v1", "api_key": "none",
        "rpm": int(rpm), "tpm": int(tpm),
    }  # fmt: skip
    router = litellm.Router(
        model_list=[{"model_name": "one", "litellm_params": deployed}],
        redis_host=host,
        redis_port=int(port),
        routing_strategy="usage-based-routing-v2",
        num_retries=0,
        disable_cooldowns=True,
    )
    made = requests(PROMPTS, model="one", max_tokens=int(max_tokens))
    texts = (f"{first} {one['prompt'][len(first) + 1 :]}" for one in itertools.cycle(made))

    async def ask() -> None:
        for text in texts:
            while True:
                try:
                    await router.acompletion(
                        model="one",
                        max_tokens=int(max_tokens),
                        messages=[{"role": "user", "content": text}],
                    )
                    break
                except litellm.RateLimitError as refused:
                    told = getattr(refused, "retry_after", None)
                    await asyncio.sleep(float(told or AGAIN_S))

    await asyncio.gather(*(ask() for _ in range(int(in_flight))))


if __name__ == "__main__":
    asyncio.run(_loop(sys.argv[1:]))
