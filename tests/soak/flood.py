"""Producers of the soak, each a process of its own; every id that was promised is written down.

`python -m tests.soak.flood flood JOURNAL BACKLOG` submits without end, as long as the broker knows
fewer than BACKLOG jobs; `canary JOURNAL` submits one urgent job after the other and waits for it.
SIGTERM ends both after the call under way.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count

from redis.exceptions import RedisError

from headgate import Client
from headgate.producer.errors import JobTimeout, SubmitInterrupted
from headgate.shared.errors import Unreachable
from headgate.shared.job.request import PRIORITIES

BEGUN = "begun, and ends on SIGTERM"
"""What its log says then."""

SLICE = 200
"""Jobs of one submission: what a kill in the middle of it may leave without a word."""

CANARY_S = 0.5
LONGEST_S = 120.0

ended = threading.Event()


def prompts() -> Iterator[str]:
    """Prompts that no other start of this program makes, each of 20 characters: one price."""
    mark = secrets.token_hex(4)
    return (f"f{mark}-{n:010d}" for n in count())


def flood(journal: int, backlog: int) -> None:
    """The broker has been kept full until SIGTERM came."""
    texts = prompts()
    with Client() as client:
        while not ended.is_set():
            try:
                at = client.open()
                if int(at.redis.scard(at.keys.present())) >= backlog:
                    ended.wait(0.05)
                    continue
                priority = secrets.choice(PRIORITIES)
                ids = client.submit_many(
                    {"prompt": next(texts), "priority": priority, "params": {"max_tokens": 5}}
                    for _ in range(SLICE)
                )
            except SubmitInterrupted as error:
                ids = list(error.job_ids)
            except (Unreachable, RedisError):
                ended.wait(0.2)
                continue
            os.write(journal, "".join(f"{job_id}\n" for job_id in ids).encode())


def canary(journal: int) -> None:
    """One job after the other has been waited for, and every tenth one cancelled.

    Each line: id, then the ms to its result, or `cancelled`, or `lost`.
    """
    texts = prompts()
    with Client() as client:
        for n in count():
            if ended.wait(CANARY_S):
                return
            unwanted = n % 10 == 9
            began = time.monotonic()
            try:
                job = client.submit(next(texts), priority="interactive", params={"max_tokens": 5})
            except Unreachable:
                continue
            took = "lost"
            while time.monotonic() - began < LONGEST_S:
                try:
                    if unwanted:
                        client.cancel(job.id)
                    client.result(job.id, timeout_s=LONGEST_S)
                    took = f"{(time.monotonic() - began) * 1000:.0f}"
                    took = "cancelled" if unwanted else took
                    break
                except Unreachable:
                    time.sleep(0.2)
                except JobTimeout:
                    break
            os.write(journal, f"{job.id} {took}\n".encode())


def main(kind: str, path: str, backlog: str = "0") -> None:
    """One of the two has run."""
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    sys.stdout.write(f"{BEGUN}\n")
    sys.stdout.flush()
    journal = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    flood(journal, int(backlog)) if kind == "flood" else canary(journal)


if __name__ == "__main__":
    main(*sys.argv[1:])
