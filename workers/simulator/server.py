"""The HTTP around the engine: reads a body, waits, writes what was decided."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from headgate.workers.simulator.admin import METHODS, admin
from headgate.workers.simulator.behaviour import Act
from headgate.workers.simulator.engine import MAX_BODY_BYTES, READERS, Engine

# Of the time a stream takes, the part before its first event; and the shortest pause between two.
FIRST_EVENT_SHARE = 0.25
SHORTEST_PAUSE_S = 0.01


class SimulatorServer:
    """Answers HTTP requests for one engine."""

    def __init__(self, engine: Engine, json_log: bool = False) -> None:
        self.engine = engine
        self._json_log = json_log

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The response to any request; never raises but when the connection is gone."""
        path = request.path
        if request.method == "POST" and path in READERS:
            return await self._model_call(request, path)
        anthropic_form = "anthropic-version" in request.headers or path.startswith("/v1/messages")
        wanted = METHODS.get(path)
        if wanted == request.method:
            raw = await request.read()
            status, told = admin(self.engine, path, raw, anthropic_form)
            return web.Response(
                status=status, body=orjson.dumps(told), content_type="application/json"
            )
        exists = wanted is not None or path in READERS
        act = self.engine.refuse_path(request.method, path, anthropic_form, exists)
        return web.Response(status=act.status, body=act.body, headers=act.headers)

    async def _model_call(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        engine = self.engine
        began_s = engine.clock_s()
        engine.tally.opened(path)
        act: Act | None = None
        billed = sent = False
        try:
            try:
                raw = await request.read()
            except web.HTTPRequestEntityTooLarge:
                act = engine.refuse_size(path)
                return web.Response(status=act.status, body=act.body, headers=act.headers)
            except web.RequestPayloadError:
                # Cut chunks or a wrong compression: what is left of it is no JSON.
                raw = b""
            act = engine.decide(path, _key(request), raw)
            if act.events is None:
                if act.delay_s:
                    await asyncio.sleep(act.delay_s)
                engine.settle(act)
                billed = act.bill is not None
                if act.end == "whole":
                    sent = True
                    return web.Response(status=act.status, body=act.body, headers=act.headers)
                return await _half(request, act)
            await asyncio.sleep(act.delay_s * FIRST_EVENT_SHARE)
            engine.settle(act)
            billed = act.bill is not None
            response = await _stream(request, act)
            sent = act.end == "whole"
            return response
        except (asyncio.CancelledError, ConnectionError):
            if act is None or act.end not in ("cut", "half-cut"):
                engine.tally.cancelled += 1
            raise
        finally:
            engine.tally.open_now -= 1
            if billed and not sent and act is not None and act.bill is not None:
                engine.tally.lost(act.bill.usd)
            if self._json_log:
                _log(path, act, engine.clock_s() - began_s, sent)


@asynccontextmanager
async def serving(
    door: SimulatorServer, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[str]:
    """Yields the URL once connections are taken; afterwards all are closed. Port 0: a free one."""
    server = web.Server(
        door.answer,
        request_factory=_request_factory,
        handler_cancellation=True,
        access_log=None,
        # A caller may keep a connection for as long as it likes.
        keepalive_timeout=3600.0,
        lingering_time=1.0,
    )
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=4096).start()
        bound = runner.addresses[0]
        shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        yield f"http://{shown}:{bound[1]}"
    finally:
        await runner.cleanup()


def _request_factory(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(
        message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY_BYTES
    )


def _key(request: web.BaseRequest) -> str:
    """The key of the caller, in either vendor's header."""
    found = request.headers.get("x-api-key")
    if found is None:
        found = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    return found


async def _half(request: web.BaseRequest, act: Act) -> web.StreamResponse:
    """The first half of a body, then a closed connection or silence; for `cut` nothing at all."""
    response = web.StreamResponse(status=act.status, headers=act.headers)
    if act.end != "cut":
        response.content_length = len(act.body)
        await response.prepare(request)
        await response.write(act.body[: len(act.body) // 2])
    await _break(request, act)
    return response


async def _stream(request: web.BaseRequest, act: Act) -> web.StreamResponse:
    """The events, spread over the time the answer takes; all in one piece when it takes none."""
    events = act.events or []
    response = web.StreamResponse(status=act.status, headers=act.headers)
    if act.end == "cut":
        await _break(request, act)
        return response
    if act.end != "whole":
        events = events[: len(events) // 2]
    await response.prepare(request)
    rest_s = act.delay_s * (1 - FIRST_EVENT_SHARE)
    pauses = min(len(events) - 1, int(rest_s / SHORTEST_PAUSE_S))
    size = -(-len(events) // (pauses + 1))
    for start in range(0, len(events), size):
        if start:
            await asyncio.sleep(rest_s / pauses)
        await response.write(b"".join(events[start : start + size]))
    if act.end != "whole":
        await _break(request, act)
    await response.write_eof()
    return response


async def _break(request: web.BaseRequest, act: Act) -> None:
    """Ends the connection, at once or, for a silent one, when the client gives up on it."""
    if act.end == "half-cut":
        # Lets what was written leave first; an abort would throw it away.
        await asyncio.sleep(0.005)
    if act.end != "half-silent" and request.transport is not None:
        request.transport.abort()
    # The lost connection cancels this; returning would let aiohttp finish the response.
    await asyncio.Event().wait()


def _log(path: str, act: Act | None, took_s: float, sent: bool) -> None:
    usage = act.bill.usage if act is not None and act.bill is not None else None
    line = {
        "time": time.time(),
        "path": path,
        "model": act.model if act else None,
        "status": act.status if act else None,
        "refusal": act.refusal if act else None,
        "fault": act.fault if act else None,
        "input_tokens": usage.input_tokens if usage else None,
        "output_tokens": usage.output_tokens if usage else None,
        "ms": round(took_s * 1000, 1),
        "sent": sent,
    }
    sys.stderr.write(orjson.dumps(line).decode() + "\n")
