"""How many streams each key has open in this process."""

from __future__ import annotations

from collections import Counter

from headgate.producer.gateway.calls.faults import CallRefused


class OpenStreams:
    """Counts the open streams of each key, at most `most` of one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    def begin(self, key_id: str) -> None:
        """Count a stream that begins; raise CallRefused if the key has too many."""
        if self._open[key_id] >= self._most:
            words = f"this key has {self._most} open streams already (HEADGATE_GATEWAY_STREAMS)"
            raise CallRefused("key_limit", words, retry_after_s=1)
        self._open[key_id] += 1

    def end(self, key_id: str) -> None:
        """Count a stream that has ended."""
        self._open[key_id] -= 1
        if not self._open[key_id]:
            del self._open[key_id]
