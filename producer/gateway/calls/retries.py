"""Take up the first job when a caller's library asks again, so that nothing is bought twice.

A library that saw no answer asks again with the same body, and says that it is a retry
(`x-stainless-retry-count` in the SDKs of OpenAI and Anthropic). Redis holds for 10 minutes which
job a call became. An entry is the id of the job and the id of the last call that waits for it.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress

import redis.asyncio
from redis.exceptions import RedisError

from headgate.producer.callers.caller import Caller
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import text_of
from headgate.shared.job.encoding import json_bytes

AT_ONCE = 32
"""Entries that are read at once: each takes a connection, and the client opens 100 at most."""

REMEMBER_S = 600
"""How long a retry finds its job: as long as the libraries' own time limit."""

NOBODY = ""
"""In place of a call: the last one has gone away, and calls before it still wait."""

CANCELLED = "cancelled"
"""In place of a call: the job is being cancelled. If it has not ended, no call takes it up."""


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
    """Which jobs the calls of the last minutes became. Use it in one event loop."""

    def __init__(self, client: redis.asyncio.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._gathered: dict[str, str] = {}
        self._being_written: dict[str, str] = {}
        self._writing: asyncio.Task[None] | None = None
        self._reading = asyncio.Semaphore(AT_ONCE)

    async def job_of(self, digest: str) -> tuple[str, bool] | None:
        """Return the job that an equal call became, and whether it is being cancelled; or None."""
        found = await self._entry(digest)
        if found is None:
            return None
        job_id, _, last_request = found.partition(" ")
        return job_id, last_request == CANCELLED

    def note(self, digest: str, job_id: str, request_id: str) -> None:
        """Note that this call waits for the job.

        Calls of one moment are written together, and no call waits for that. If Redis does not
        answer, a retry is a job of its own.
        """
        self._gathered[digest] = f"{job_id} {request_id}"
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all(), name="recent calls")

    async def is_last(self, digest: str, job_id: str, request_id: str) -> bool:
        """Return whether no later call has taken up this job, which the call had."""
        last_job, _, last_request = (await self._entry(digest) or "").partition(" ")
        return last_job != job_id or last_request in (NOBODY, request_id)

    async def close(self) -> None:
        """Wait until all that was noted is written."""
        if self._writing is not None:
            await self._writing

    async def _entry(self, digest: str) -> str | None:
        noted = self._gathered.get(digest) or self._being_written.get(digest)
        if noted is not None:
            return noted
        async with self._reading:
            found = await self._client.get(self._keys.recent_call(digest))
        return None if found is None else text_of(found)

    async def _write_all(self) -> None:
        try:
            while self._gathered:
                self._being_written, self._gathered = self._gathered, {}
                pipeline = self._client.pipeline(transaction=False)
                for digest, entry in self._being_written.items():
                    pipeline.set(self._keys.recent_call(digest), entry, ex=REMEMBER_S)
                with suppress(RedisError):
                    await pipeline.execute()
        finally:
            self._being_written = {}
            self._writing = None
