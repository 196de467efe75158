"""A played worker that ends all queued jobs by itself, without asking a provider."""

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import orjson
import redis
from sqlalchemy import Connection, bindparam, insert, select, update

from headgate.shared.broker.keys import Keys
from headgate.shared.broker.results import celery_record
from headgate.shared.database.engine import open_engine
from headgate.shared.database.rows import audit_row
from headgate.shared.database.tables import attempts, audit, jobs
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import now_ms, rfc3339
from headgate.shared.job.result import ErrorReport, Result, Usage

PICO_PER_JOB = 2_500_000


class PlayedWorker:
    """Ends every queued job while it is open: with an echo of its prompt, or failed by `fails`.

    `fault` is the message of the failed ones.

    It pauses for `pause_s` between rounds of `at_once` jobs, and shows on Redis that it lives, as
    workers do.
    """

    def __init__(
        self,
        database_url: str,
        redis_url: str,
        *,
        fails: Callable[[Envelope], bool] = lambda _: False,
        at_once: int = 50,
        pause_s: float = 0.01,
        fault: str = "played fault",
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._engine = open_engine(database_url)
        self._redis = redis.Redis.from_url(redis_url)
        self._fails, self._at_once, self._pause_s = fails, at_once, pause_s
        self._clock_ms = clock_ms
        self._fault = fault
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.ended: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        self._redis.delete(Keys().worker("played"))
        self._redis.close()
        self._engine.dispose()

    def _work(self) -> None:
        while not self._over.wait(self._pause_s):
            self._redis.set(Keys().worker("played"), "1", ex=5)
            query = select(jobs.c.envelope).where(jobs.c.status == "queued")
            with self._engine.begin() as connection:
                written = connection.scalars(query.limit(self._at_once)).all()
                envelopes = [Envelope.decode(orjson.loads(one)) for one in written]
                if envelopes:
                    self._end(connection, envelopes)

    def _end(self, connection: Connection, envelopes: Sequence[Envelope]) -> None:
        """End these jobs: one statement for each table, one round trip to Redis."""
        at_ms = self._clock_ms()
        ended = [(envelope, self._result(envelope)) for envelope in envelopes]
        lines = [
            audit_row(envelope, result, cost_pico_usd=PICO_PER_JOB, finished_at_ms=at_ms)
            for envelope, result in ended
        ]
        connection.execute(insert(audit), lines)
        connection.execute(insert(attempts), [_attempt(one, at_ms) for one in envelopes])
        connection.execute(_ENDED, [_row(result, at_ms) for _, result in ended])
        with self._redis.pipeline(transaction=False) as pipe:
            for envelope, result in ended:
                record, key = celery_record(result), Keys().result(envelope.id)
                pipe.set(key, record, ex=60)
                pipe.publish(key, record)
            pipe.execute()
        self.ended += [envelope.id for envelope in envelopes]

    def _result(self, envelope: Envelope) -> Result:
        failed = self._fails(envelope)
        at = rfc3339(now_ms())
        return Result(
            id=envelope.id,
            status="failed" if failed else "succeeded",
            model=envelope.model,
            content=None if failed else f"echo: {envelope.request.chat()[-1]['content']}",
            model_used=envelope.model,
            finish_reason=None if failed else "stop",
            usage=Usage(3, 0, 0, 4, 0),
            cost_usd="0.0000025",
            attempts=1,
            batch_id=envelope.batch_id,
            finished_at=at,
            latency_ms=20,
            error=ErrorReport("provider_error", self._fault, True) if failed else None,
        )


_ENDED = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"))
    .values(
        status=bindparam("became"), finished_at_ms=bindparam("at"), result=bindparam("answer")
    )
)  # fmt: skip


def _row(result: Result, at_ms: int) -> dict[str, Any]:
    answer = orjson.dumps(result.as_json()).decode()
    return {"job": result.id, "became": result.status, "at": at_ms, "answer": answer}


def _attempt(envelope: Envelope, at_ms: int) -> dict[str, Any]:
    return {
        "job_id": envelope.id, "fence": 1, "n": 1, "model": envelope.model, "provider": "openai",
        "state": "answered", "started_at_ms": at_ms, "waited_ms": 0, "input_tokens": 3,
        "output_tokens": 4, "cost_pico_usd": PICO_PER_JOB,
    }  # fmt: skip
