"""Remembers long beginnings of prompts, as a vendor's prompt cache does."""

import hashlib

from headgate.workers.simulator.request import CacheMark

# OpenAI caches from 1,024 tokens on, in steps of 128. Anthropic's shortest prefix has 512 to 4,096
# tokens, by model; 1,024 is the most common.
FIRST_TOKENS = 1024
STEP_TOKENS = 128
MOST_KEPT = 200_000


class PromptCache:
    """Remembers prefixes by model, and drops the oldest first."""

    def __init__(self) -> None:
        self._seen: dict[bytes, None] = {}

    def forget(self) -> None:
        """Forget all prefixes."""
        self._seen.clear()

    def automatic(self, model: str, text: str, chars_per_token: float) -> tuple[int, list[bytes]]:
        """Return how many tokens an earlier prompt of `model` began with, and what to remember."""
        end = int(FIRST_TOKENS * chars_per_token)
        if len(text) < end:
            return 0, []
        step = int(STEP_TOKENS * chars_per_token)
        running = hashlib.blake2b(f"{model}\0".encode(), digest_size=16)
        keys: list[bytes] = []
        start, known = 0, 0
        while end <= len(text):
            running.update(text[start:end].encode())
            keys.append(running.digest())
            if known == len(keys) - 1 and keys[-1] in self._seen:
                known = len(keys)
            start, end = end, end + step
        return (FIRST_TOKENS + (known - 1) * STEP_TOKENS if known else 0), keys

    def marked(
        self, model: str, marks: tuple[CacheMark, ...], chars_per_token: float
    ) -> tuple[int, int, int, list[bytes]]:
        """Return tokens read, written for 5 minutes, written for 1 hour, and what to remember."""
        read = written_5m = written_1h = reached = 0
        keys: list[bytes] = []
        for mark in marks:
            tokens = int(mark.chars / chars_per_token)
            if tokens < FIRST_TOKENS:
                continue
            keys.append(model.encode() + b"\0" + mark.digest)
            if keys[-1] in self._seen:
                read, written_5m, written_1h = tokens, 0, 0
            elif mark.ttl == "1h":
                written_1h += tokens - reached
            else:
                written_5m += tokens - reached
            reached = tokens
        return read, written_5m, written_1h, keys

    def remember(self, keys: list[bytes]) -> None:
        """Remember these prefixes, once the request is let through."""
        for key in keys:
            self._seen[key] = None
        while len(self._seen) > MOST_KEPT:
            del self._seen[next(iter(self._seen))]
