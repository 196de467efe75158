"""Statements are prepared on a PostgreSQL server's own sessions, never on those of a pooler."""

import asyncio

from sqlalchemy import text

from headgate.shared.database.engine import PREPARE_AFTER, open_engine
from tests.support.proxy import CHUNK_BYTES, TcpProxy
from tests.support.servers import PostgresServer

KEY = b"K\x00\x00\x00\x0c"  # BackendKeyData: the number of the server's process, and a secret


class Pooler(TcpProxy):
    """Tells a process number of its own at connecting, as PgBouncer and its like do."""

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool = False
    ) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            at = chunk.find(KEY) if replies else -1
            if at >= 0:
                at += len(KEY)
                chunk = chunk[:at] + b"\x00\x00\x00\x01" + chunk[at + 4 :]
            writer.write(chunk)
            await writer.drain()


def prepared(url: str) -> int:
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            for _ in range(PREPARE_AFTER + 2):
                connection.execute(text("SELECT 1"))
            count = "SELECT count(*) FROM pg_prepared_statements"
            return int(connection.execute(text(count)).scalar_one())
    finally:
        engine.dispose()


def test_statements_that_come_again_are_prepared(postgres: PostgresServer) -> None:
    with postgres.database() as url:
        assert prepared(url) > 0


def test_nothing_is_prepared_behind_a_pooler(postgres: PostgresServer) -> None:
    pooler = Pooler(postgres.port).start()
    try:
        with postgres.database() as url:
            assert prepared(url.replace(f":{postgres.port}/", f":{pooler.port}/")) == 0
    finally:
        pooler.stop()
