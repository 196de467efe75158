"""The HTTP server around the engine: reads a body, waits, writes what the engine decided."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson
from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from headgate.workers.simulator.admin import METHODS, admin
from headgate.workers.simulator.behaviour import Act
from headgate.workers.simulator.engine import MAX_BODY_BYTES, READERS, Engine
from headgate.workers.simulator.floods import send_flood

# The share of a stream's time before its first event, and the shortest pause between two events.
FIRST_EVENT_SHARE = 0.25
SHORTEST_PAUSE_S = 0.01


@dataclass(slots=True)
class _Call:
    """How far a call has come: what was decided, whether it is billed, whether it was sent."""

    act: Act | None = None
    billed: bool = False
    sent: bool = False


class SimulatorServer:
    """Answers HTTP requests for one engine."""

    def __init__(self, engine: Engine, json_log: bool = False) -> None:
        self.engine = engine
        self._json_log = json_log

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer any request; raises only if the connection is gone."""
        path = request.path
        if request.method == "POST" and path in READERS:
            return await self._model_call(request, path)
        anthropic_form = "anthropic-version" in request.headers or path.startswith("/v1/messages")
        wanted = METHODS.get(path)
        if wanted == request.method:
            raw = await request.read()
            status, reply = admin(self.engine, path, raw, anthropic_form)
            return web.Response(
                status=status, body=orjson.dumps(reply), content_type="application/json"
            )
        exists = wanted is not None or path in READERS
        act = self.engine.refuse_path(request.method, path, anthropic_form, exists)
        return web.Response(status=act.status, body=act.body, headers=act.headers)

    async def _model_call(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """Answer a call to a model, and keep count of it however it ends."""
        engine, call = self.engine, _Call()
        began_s = engine.clock_s()
        engine.stats.opened(path)
        try:
            return await self._respond(request, path, call)
        except (asyncio.CancelledError, ConnectionError):
            if call.act is None or call.act.end not in ("cut", "half-cut"):
                engine.stats.cancelled += 1
            raise
        finally:
            engine.stats.open_now -= 1
            bill = call.act.bill if call.act is not None else None
            if bill is not None and call.billed and not call.sent:
                engine.stats.lost(bill.usd)
            if self._json_log:
                _log(path, call, engine.clock_s() - began_s)

    async def _respond(
        self, request: web.BaseRequest, path: str, call: _Call
    ) -> web.StreamResponse:
        """Do what the engine decides, and write down in `call` how far it has come."""
        try:
            raw = await request.read()
        except web.HTTPRequestEntityTooLarge:
            act = call.act = self.engine.refuse_size(path)
            return web.Response(status=act.status, body=act.body, headers=act.headers)
        except web.RequestPayloadError:
            # Cut chunks or a wrong compression: treat it as a body that is no JSON.
            raw = b""
        act = call.act = self.engine.decide(path, _key(request), raw)
        if act.delay_s or act.events is not None:
            share = 1.0 if act.events is None else FIRST_EVENT_SHARE
            await asyncio.sleep(act.delay_s * share)
        self.engine.settle(act)
        call.billed = act.bill is not None
        if act.flood is not None:
            response = await send_flood(request, act, act.flood)
            call.sent = True
            return response
        if act.events is not None:
            response = await _stream(request, act)
            call.sent = act.end == "whole"
            return response
        if act.end != "whole":
            return await _half(request, act)
        call.sent = True
        return web.Response(status=act.status, body=act.body, headers=act.headers)


@asynccontextmanager
async def serving(
    simulator: SimulatorServer, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[str]:
    """Serve, and yield the URL once connections are accepted. Port 0 takes a free port."""
    server = web.Server(
        simulator.answer,
        request_factory=_request_factory,
        handler_cancellation=True,
        access_log=None,
        # Callers may keep a connection for as long as they like.
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
    """Return the caller's key, from either vendor's header."""
    found = request.headers.get("x-api-key")
    if found is None:
        found = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    return found


async def _half(request: web.BaseRequest, act: Act) -> web.StreamResponse:
    """Send the first half of a body, then close or stall; for `cut` send nothing at all."""
    response = web.StreamResponse(status=act.status, headers=act.headers)
    if act.end != "cut":
        response.content_length = len(act.body)
        await response.prepare(request)
        await response.write(act.body[: len(act.body) // 2])
    await _break(request, act)
    return response


async def _stream(request: web.BaseRequest, act: Act) -> web.StreamResponse:
    """Send the events, spread over the time of the answer; all at once if it takes no time."""
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
    """End the connection: at once, or for `half-silent` when the client gives up."""
    if act.end == "half-cut":
        # Let what was written be sent first: an abort would drop it.
        await asyncio.sleep(0.005)
    if act.end != "half-silent" and request.transport is not None:
        request.transport.abort()
    # The lost connection cancels this. Returning would let aiohttp finish the response.
    await asyncio.Event().wait()


def _log(path: str, call: _Call, took_s: float) -> None:
    act = call.act
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
        "sent": call.sent,
    }
    sys.stderr.write(orjson.dumps(line).decode() + "\n")
