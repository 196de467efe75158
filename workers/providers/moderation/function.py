"""Moderation by an operator's own function, in the place of a provider."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import uuid4

from headgate.shared.errors import place_of
from headgate.shared.job.request import Request
from headgate.workers.errors import AttemptTimeout, ProviderFault
from headgate.workers.provider import Answer, AnswerSink, Room
from headgate.workers.providers.moderation.verdicts import moderation_reply, verdicts

MOST_AT_ONCE = 32
"""How many calls of a function that is not async run at once, each in a thread of its own."""


class FunctionModerator:
    """Calls a function with the list of inputs; it returns a verdict for each of them.

    An async function runs on the loop of the jobs. Another one has a thread for each call: one that
    hangs keeps its thread, and does not keep the process from ending.
    """

    def __init__(
        self, function: Callable[[list[Any]], Any], *, at_once: int = MOST_AT_ONCE
    ) -> None:
        self._function = function
        self._free = asyncio.Semaphore(at_once)

    async def ask(
        self,
        request: Request,
        *,
        model: str,
        max_output_tokens: int,
        timeout_s: float,
        idle_s: float | None = None,
        sink: AnswerSink | None = None,
        room: Room | None = None,
    ) -> Answer:
        """Return the verdicts as a moderation object; raises an AttemptError, or CancelledError."""
        inputs = request.inputs
        try:
            async with asyncio.timeout(timeout_s):
                returned = await self._returned(inputs)
        except TimeoutError:
            words = f"the function of HEADGATE_MODERATION took over {timeout_s:g} s"
            raise AttemptTimeout(words, billed=False) from None
        results = verdicts(returned, inputs)
        body = {"id": f"modr-{uuid4().hex}", "model": model, "results": results}
        return Answer(moderation_reply(body, request), {})

    async def _returned(self, inputs: list[Any]) -> Any:
        """Return what the function returns; its error quotes nothing of the inputs."""
        try:
            if inspect.iscoroutinefunction(self._function):
                called: Coroutine[Any, Any, Any] = self._function(inputs)
                return await called
            return await self._in_thread(inputs)
        except (TimeoutError, asyncio.CancelledError):
            raise
        except Exception as error:
            words = f"the function of HEADGATE_MODERATION raised {place_of(error)}"
            raise ProviderFault(words) from None

    async def _in_thread(self, inputs: list[Any]) -> Any:
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def end(returned: Any, error: Exception | None) -> None:
            self._free.release()
            if future.cancelled():
                return
            if error is None:
                future.set_result(returned)
            else:
                future.set_exception(error)

        def call() -> None:
            returned: Any = None
            failed: Exception | None = None
            try:
                returned = self._function(inputs)
            except Exception as error:
                failed = error
            if not loop.is_closed():
                loop.call_soon_threadsafe(end, returned, failed)

        threading.Thread(target=call, name="moderation", daemon=True).start()
        return await future

    async def close(self) -> None:
        """Close nothing: it has no connections."""
