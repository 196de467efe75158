"""Call: one request to one provider, with its time limit and one of its keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model
from headgate.shared.catalog.schema import ProviderConfig as Entry
from headgate.shared.job.request import Request
from headgate.workers.errors import Unauthorized
from headgate.workers.provider import Answer, OnPiece, Provider


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider with one of its keys; `key` names the key in buckets, and is not the key."""

    provider: Provider
    key: str


class Call:
    """Asks providers. They are made at first use: an SDK costs half a second and 40 MB."""

    def __init__(
        self, catalog: Catalog, make: Callable[[Entry], list[Upstream]], *, timeout_s: float
    ) -> None:
        self._catalog = catalog
        self._make = make
        self._timeout_s = timeout_s
        self._lines: dict[str, list[Upstream]] = {}
        self._left: list[Upstream] = []
        self._turn = count()
        self._making = asyncio.Lock()

    async def line(self, model: Model, key: str = "") -> Upstream | None:
        """The provider of this model with that key, or the one whose turn it is; None without any."""
        lines = self._lines.get(model.provider)
        if lines is None:
            async with self._making:
                lines = self._lines.get(model.provider)
                if lines is None:
                    # In a thread: the import of an SDK would stop every other job meanwhile.
                    entry = self._catalog.provider(model)
                    lines = await asyncio.to_thread(self._make, entry)
                    self._lines[model.provider] = lines
        if not lines:
            return None
        named = [line for line in lines if line.key == key]
        return (named or lines)[0 if named else next(self._turn) % len(lines)]

    def follow(self, catalog: Catalog) -> None:
        """Providers that this catalog describes otherwise are opened anew; calls under way go on."""
        for name in list(self._lines):
            if catalog.providers.get(name) != self._catalog.providers.get(name):
                self._left += self._lines.pop(name)
        self._catalog = catalog

    def no_key(self, model: Model) -> Unauthorized:
        """The error of an attempt at a model whose provider has no key."""
        names = " or ".join(self._catalog.provider(model).api_key_env)
        return Unauthorized(f"no key for {model.provider}: set {names}")

    def patience_s(self, model: Model) -> float:
        """How long an answer of this model is waited for, if the job has the time."""
        return min(self._timeout_s, model.timeout_s)

    async def ask(
        self,
        line: Upstream,
        request: Request,
        model: Model,
        *,
        left_ms: int,
        on_piece: OnPiece | None = None,
    ) -> Answer:
        """The model's answer within its time limit and `left_ms`; raises an AttemptError."""
        timeout_s = min(self.patience_s(model), left_ms / 1000)
        return await line.provider.ask(
            request,
            model=model.provider_name,
            max_output_tokens=model.max_output_tokens,
            timeout_s=timeout_s,
            on_piece=on_piece,
        )

    async def close(self) -> None:
        """All providers are closed."""
        for lines in (*self._lines.values(), self._left):
            for line in lines:
                await line.provider.close()
