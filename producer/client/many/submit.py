"""Submit requests slice by slice, and wait in between while too many jobs have not ended."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack

from headgate.producer.client.many.ends import BlockingEnds, Ends
from headgate.producer.client.many.slices import Flow, Source, awaited
from headgate.producer.submit.fields import RequestForm, Requests


def submit_slices(
    requests: Requests,
    flow: Flow,
    submit: Callable[[list[RequestForm]], list[str]],
    new_ends: Callable[[], BlockingEnds],
) -> list[str]:
    """Submit all requests as the flow allows; return the ids of their jobs, in order.

    Raises what submitting the first slice raises, and SubmitStopped for any later error.
    """
    source = Source(requests)
    with ExitStack() as stack, flow.ids_in_errors():
        ends = stack.enter_context(new_ends()) if flow.is_bounded else None
        while True:
            wanted = flow.wanted(0 if ends is None else ends.open)
            if ends is not None and not wanted:
                flow.report_ended(ends.next())
                continue
            part = source.next(wanted)
            if not part:
                return flow.ids
            with flow.submitting():
                ids = submit(part)
            flow.report_submitted(len(part), ids)
            if ends is not None:
                ends.add(ids)
                flow.report_ended(ends.take())


async def submit_slices_async(
    requests: Requests | AsyncIterable[RequestForm],
    flow: Flow,
    submit: Callable[[list[RequestForm]], Awaitable[list[str]]],
    new_ends: Callable[[], Ends],
) -> list[str]:
    """Submit all requests as `submit_slices` does; wait for a callback that is a coroutine."""
    source = Source(requests)
    async with AsyncExitStack() as stack:
        with flow.ids_in_errors():
            ends = await stack.enter_async_context(new_ends()) if flow.is_bounded else None
            while True:
                wanted = flow.wanted(0 if ends is None else ends.open)
                if ends is not None and not wanted:
                    await awaited(flow.report_ended(await ends.next()))
                    continue
                part = await source.next_async(wanted)
                if not part:
                    return flow.ids
                with flow.submitting():
                    ids = await submit(part)
                await awaited(flow.report_submitted(len(part), ids))
                if ends is not None:
                    ends.add(ids)
                    await awaited(flow.report_ended(ends.take()))
