"""A TCP proxy that can cut, stall, delay, swallow and refuse: network faults without root."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Coroutine
from typing import Any, Self

from tests.support.child import BUSY

CHUNK_BYTES = 65_536


class TcpProxy:
    """Passes bytes between `port` and a target on loopback, in a thread of its own; thread-safe."""

    def __init__(
        self, target_port: int, target_host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None
    ) -> None:
        """Prepare a proxy to the target; `start` opens it. With `tls` clients must speak TLS."""
        self._tls = tls
        self.target = (target_host, target_port)
        self.port = 0
        self.accepted = 0  # connections taken since the start
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._pairs: set[asyncio.Task[Any]] = set()
        self._flowing: asyncio.Event | None = None
        self._swallowing = False
        self._delay_s = 0.0
        self._reply_bytes: int | None = None  # that pass until a connection is cut

    @property
    def connections(self) -> int:
        """How many clients are connected now."""
        return len(self._pairs)

    def start(self) -> Self:
        """Clients can connect to 127.0.0.1:`port`."""
        self._thread.start()
        self._call(self._listen())
        return self

    def stop(self) -> None:
        """Everything is closed and the thread has ended."""
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10 * BUSY)
        self._loop.close()

    def cut(self) -> None:
        """All present connections are reset; new ones are let in."""
        self._call(self._cut())

    def stall(self) -> None:
        """Nothing passes in either direction, while connections stay open and are accepted."""
        self._call(self._set_flowing(False))

    def flow(self) -> None:
        """Bytes pass again at once, those held back first; what was swallowed is gone."""
        self._swallowing, self._delay_s, self._reply_bytes = False, 0.0, None
        self._call(self._set_flowing(True))

    def swallow(self) -> None:
        """All bytes vanish, while connections stay open: half-open lines."""
        self._swallowing = True

    def delay(self, seconds: float) -> None:
        """Each packet comes this much later, in either direction."""
        self._delay_s = seconds

    def cut_after(self, reply_bytes: int) -> None:
        """So many bytes of replies still arrive, then that connection is closed, once."""
        self._reply_bytes = reply_bytes

    def refuse(self) -> None:
        """Present connections are reset and new ones refused, as with a server that is down."""
        self._call(self._shut())

    def accept(self) -> None:
        """New connections are let in again, on the same port."""
        self._call(self._listen())

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10 * BUSY)

    async def _listen(self) -> None:
        if self._flowing is None:
            self._flowing = asyncio.Event()
            self._flowing.set()
        if self._server is None:
            self._server = await asyncio.start_server(
                self._pair, "127.0.0.1", self.port, ssl=self._tls
            )
            self.port = self._server.sockets[0].getsockname()[1]

    async def _set_flowing(self, flowing: bool) -> None:
        if self._flowing is not None:
            self._flowing.set() if flowing else self._flowing.clear()

    async def _cut(self) -> None:
        for writer in self._writers:
            sock: socket.socket | None = None
            with contextlib.suppress(AttributeError):  # a closed transport of TLS knows nothing
                sock = writer.get_extra_info("socket")
            if sock is not None:  # linger 0: close sends a reset instead of a farewell
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()
        pairs = list(self._pairs)
        for pair in pairs:
            pair.cancel()
        await asyncio.gather(*pairs, return_exceptions=True)

    async def _shut(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            for listening in server.sockets:
                self._loop.remove_reader(listening.fileno())
            # asyncio drops without closing what it has accepted and not begun when a server closes.
            await self._turns()
            server.close()
        await self._cut()

    @staticmethod
    async def _turns() -> None:
        """What the loop had begun has gone some steps further."""
        for _ in range(10):
            await asyncio.sleep(0)

    async def _end(self) -> None:
        await self._shut()
        await self._turns()  # a connection that was let in at the last moment has yet to begin
        await self._cut()
        await self._loop.shutdown_asyncgens()

    async def _pair(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        this = asyncio.current_task()
        if this is None:
            return
        self.accepted += 1
        self._pairs.add(this)
        self._writers.add(writer)
        far_writer: asyncio.StreamWriter | None = None
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.target)
            self._writers.add(far_writer)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, far_writer))
                both.create_task(self._pass(far_reader, writer, replies=True))
        except* (OSError, asyncio.CancelledError):
            pass  # the target is down, or one side was reset: the close below tells the other
        finally:
            self._pairs.discard(this)
            for end in (writer, far_writer):
                if end is not None:
                    self._writers.discard(end)
                    end.close()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool = False
    ) -> None:
        while self._flowing is not None:
            bytes_read = await reader.read(CHUNK_BYTES)
            await self._flowing.wait()
            await asyncio.sleep(self._delay_s)
            if self._swallowing and bytes_read:
                continue
            if not bytes_read:
                with contextlib.suppress(OSError):
                    writer.write_eof() if writer.can_write_eof() else writer.close()
                return
            left = self._reply_bytes if replies else None
            writer.write(bytes_read[:left])
            await writer.drain()
            if left is not None:
                self._reply_bytes = left - len(bytes_read)
                if self._reply_bytes <= 0:
                    self._reply_bytes = None
                    raise ConnectionAbortedError
