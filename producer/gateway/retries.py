"""Take up the first job when a caller's library asks again, so that nothing is bought twice.

A library that saw no answer asks again with the same body, and says that it is a retry
(`x-stainless-retry-count` in the SDKs of OpenAI and Anthropic). Redis holds for 10 minutes which
job a call became. An entry is the id of the job and the id of the last call that waits for it.
"""

from __future__ import annotations

import hashlib

import redis.asyncio

from headgate.producer.callers.caller import Caller
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import text_of
from headgate.shared.job.encoding import json_bytes

REMEMBER_S = 600
"""How long a retry finds its job: as long as the libraries' own time limit."""


def digest_of(
    caller: Caller, path: str, body: bytes, key: str | None, *, tenant: object, user: object
) -> str:
    """Return what is equal in a call and its retries: who asks, for what, and the key.

    `tenant` and `user` are those of the call, which may name others than its key has.
    """
    who = (caller.key_id, str(tenant), str(user or ""), path, key or "")
    said = hashlib.sha256(json_bytes(who))
    said.update(body)
    return said.hexdigest()


class RecentCalls:
    """Which jobs the calls of the last minutes became."""

    def __init__(self, client: redis.asyncio.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def job_of(self, digest: str) -> str | None:
        """Return the job that an equal call became; None if there was none."""
        found = await self._client.get(self._keys.recent_call(digest))
        return None if found is None else text_of(found).partition(" ")[0]

    async def note(self, digest: str, job_id: str, request_id: str) -> None:
        """Note that this call waits for the job."""
        value = f"{job_id} {request_id}"
        await self._client.set(self._keys.recent_call(digest), value, ex=REMEMBER_S)

    async def is_last(self, digest: str, request_id: str) -> bool:
        """Return whether no later call has taken up the job."""
        found = await self._client.get(self._keys.recent_call(digest))
        return found is None or text_of(found).partition(" ")[2] == request_id
