"""Call: one request to one provider, with its time limit and one of its keys."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from headgate.shared.catalog import access
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model
from headgate.shared.catalog.schema import ProviderConfig as Entry
from headgate.shared.errors import WrongUse
from headgate.shared.job.request import Request
from headgate.workers.errors import AttemptError, Unauthorized
from headgate.workers.policy import long_answer
from headgate.workers.provider import Answer, AnswerSink, Provider, Room, Unread

log = logging.getLogger("headgate.call")

PLAIN_FOR_S = 3600.0
"""How long a model is asked for whole answers once its provider has refused to stream."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider with one of its keys.

    `key` is the key's name in buckets, and `digest` the one by which jobs are pinned to it.
    """

    provider: Provider
    key: str
    digest: str = ""


class Call:
    """Calls providers. Each is made at its first use: an SDK costs half a second and 40 MB.

    `timeout_s`: the time limit of a call to a model that has none in the catalog. `keys_of` returns
    the keys of a provider as they are now. `moderator` answers all moderations, if it is given.
    """

    def __init__(
        self,
        catalog: Catalog,
        make: Callable[[Entry], list[Upstream]],
        *,
        timeout_s: float,
        keys_of: Callable[[Entry], list[str]] = lambda _: [],
        moderator: Upstream | None = None,
    ) -> None:
        self._keys_of = keys_of
        self._moderator = moderator
        self._keys: dict[str, list[str]] = {}
        self._has_any_key = True
        self._catalog = catalog
        self._make = make
        self._timeout_s = timeout_s
        self._upstreams: dict[str, list[Upstream]] = {}
        self._unusable: dict[str, str] = {}
        self._plain_until: dict[str, float] = {}
        self._replaced: list[Upstream] = []
        self._turn = count()
        self._making = asyncio.Lock()

    async def upstream(self, model: Model, key: str = "") -> Upstream | None:
        """Return the model's provider with that key, or else with the key whose turn it is.

        None if this worker has no key of the provider, or none that can be used: see `no_key`.
        """
        if self._moderator is not None and model.answer_kind == "moderation":
            return self._moderator
        upstreams = await self._opened(model)
        if not upstreams:
            return None
        named = [upstream for upstream in upstreams if upstream.key == key]
        return (named or upstreams)[0 if named else next(self._turn) % len(upstreams)]

    async def pinned(self, model: Model, digest: str) -> Upstream | None:
        """Return the model's provider with the key of this digest; None if it is not set here."""
        upstreams = await self._opened(model)
        return next((one for one in upstreams if one.digest == digest), None)

    def pinned_key(self, model: Model, digest: str) -> str:
        """Return the name of the key of this digest in buckets; empty if it is not known (yet)."""
        upstreams = self._upstreams.get(model.provider, ())
        return next((one.key for one in upstreams if one.digest == digest), "")

    async def _opened(self, model: Model) -> list[Upstream]:
        """Return the model's provider, once for each of its keys."""
        upstreams = self._upstreams.get(model.provider)
        if upstreams is None:
            async with self._making:
                upstreams = self._upstreams.get(model.provider)
                if upstreams is None:
                    # In a thread: the import of an SDK would stop every other job meanwhile.
                    entry = self._catalog.provider(model)
                    upstreams = await asyncio.to_thread(self._open, entry)
                    self._upstreams[model.provider] = upstreams
        return upstreams

    def _open(self, entry: Entry) -> list[Upstream]:
        """Return the provider once for each of its keys; none if it cannot be called."""
        self._keys[entry.name] = self._read_keys(entry)
        try:
            upstreams = self._make(entry)
        except WrongUse as error:  # by a new catalog; at start it is checked
            self._unusable[entry.name] = str(error)
            return []
        if not upstreams:
            needing = (one for one in self._catalog.providers.values() if not one.api_key_optional)
            self._has_any_key = any(map(self._read_keys, needing))
        return upstreams

    def _read_keys(self, entry: Entry) -> list[str]:
        try:
            return self._keys_of(entry)
        except WrongUse as error:
            return [str(error)]

    def follow(self, catalog: Catalog) -> None:
        """Make providers anew whose keys or entries have changed; running calls go on."""
        for name in list(self._upstreams):
            entry = catalog.providers.get(name)
            same_keys = entry is not None and self._read_keys(entry) == self._keys.get(name)
            if entry != self._catalog.providers.get(name) or not same_keys:
                self._replaced += self._upstreams.pop(name)
                self._unusable.pop(name, None)
                self._plain_until.clear()
        self._catalog = catalog

    def no_key(self, model: Model, *, is_chosen: bool = False) -> Unauthorized:
        """Return the error of an attempt at a model whose provider cannot be called.

        `is_chosen`: nobody asked for this model, so any other provider's key will do.
        """
        if model.provider in self._unusable:
            return Unauthorized(self._unusable[model.provider])
        names = self._catalog.provider(model).api_key_env
        if not self._has_any_key:
            return Unauthorized(access.no_keys(self._catalog, () if is_chosen else names))
        return Unauthorized(f"no key for {model.provider}: set {' or '.join(names)}")

    def no_pinned_key(self, model: Model) -> Unauthorized:
        """Return the error of a job that is pinned to a key which is not set here."""
        return Unauthorized(
            f"the key of {model.provider} that has this conversation on record is not set: "
            "set it again, or send the whole conversation"
        )

    def timeout_s(self, model: Model) -> float:
        """Return how long a call of this model may take, if the job has the time."""
        return model.timeout_s or self._timeout_s

    async def ask(
        self,
        upstream: Upstream,
        request: Request,
        model: Model,
        *,
        left_ms: int,
        sink: AnswerSink | None = None,
        room: Room | None = None,
    ) -> Answer:
        """Return the model's answer within its time limit and `left_ms`; raise an AttemptError.

        A long answer is asked for as a stream, where the provider is known to send it whole. Its
        time limit holds between two bytes, see `policy/long_answer.py`.
        """
        limit_s, left_s = self.timeout_s(model), left_ms / 1000
        is_long = long_answer.may_be_long(request, model, limit_s)
        if sink is None and is_long and self._may_stream(request, model):
            ends_at = time.monotonic() + left_s
            answer = await self._ask_unread(upstream, request, model, left_s, room)
            if answer is not None:
                return answer
            left_s = max(0.001, ends_at - time.monotonic())
        if sink is not None and is_long:
            return await self._ask_long(upstream, request, model, left_s, sink, room)
        limit_s = min(limit_s, left_s)
        return await self._ask(upstream, request, model, limit_s, None, sink, room)

    def _may_stream(self, request: Request, model: Model) -> bool:
        """Return whether a stream is known to bring all of the answer."""
        return (
            self._catalog.provider(model).streams_whole
            and self._plain_until.get(model.name, 0) <= time.monotonic()
            and long_answer.fits_a_stream(request)
        )

    async def _ask_unread(
        self, upstream: Upstream, request: Request, model: Model, left_s: float,
        room: Room | None,
    ) -> Answer | None:  # fmt: skip
        """Return the answer from a stream that nobody reads; None if the provider refuses it."""
        try:
            answer = await self._ask_long(upstream, request, model, left_s, Unread(), room)
        except AttemptError as error:
            if not long_answer.refuses_streams(error):
                raise
            self._ask_plainly(model, error.message)
            return None
        if not answer.counted:
            self._ask_plainly(model, "it sent no usage")
        return answer

    def _ask_plainly(self, model: Model, why: str) -> None:
        """Ask this model for whole answers from now on; look again later."""
        self._plain_until[model.name] = time.monotonic() + PLAIN_FOR_S
        log.warning(
            "%s does not stream %s as needed; for an hour it is asked for whole answers: %s",
            model.provider, model.name, why,
        )  # fmt: skip

    async def _ask_long(
        self, upstream: Upstream, request: Request, model: Model, left_s: float,
        sink: AnswerSink, room: Room | None,
    ) -> Answer:  # fmt: skip
        idle_s = self.timeout_s(model)
        whole_s = long_answer.whole_s(request, model, idle_s)
        limit_s = min(whole_s, left_s)
        return await self._ask(upstream, request, model, limit_s, idle_s, sink, room)

    async def _ask(
        self, upstream: Upstream, request: Request, model: Model, timeout_s: float,
        idle_s: float | None, sink: AnswerSink | None, room: Room | None,
    ) -> Answer:  # fmt: skip
        return await upstream.provider.ask(
            request,
            model=model.provider_name,
            max_output_tokens=model.max_output_tokens,
            timeout_s=timeout_s,
            idle_s=idle_s,
            sink=sink,
            room=room,
        )

    async def close(self) -> None:
        """Close all providers."""
        for upstreams in (*self._upstreams.values(), self._replaced):
            for upstream in upstreams:
                await upstream.provider.close()
