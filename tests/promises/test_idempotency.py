"""A caller with a key of its own may submit until it hears an id: nothing is done or paid twice."""

from __future__ import annotations

from pathlib import Path

from tests.support.child import wait_until
from tests.support.crash_installation import open_line
from tests.support.servers import ValkeyServer

KEYED = 12


def test_the_same_key_gives_the_same_job_whoever_dies_in_between(
    tmp_path: Path, valkey: ValkeyServer, postgres_url: str
) -> None:
    with open_line(tmp_path, valkey, postgres_url) as line:
        told: set[str] = set()
        for step in ("recording", "sending"):
            line.order(f"{step} 1 kill", "producer")
            line.dies(line.producer(KEYED, "order"))
            told |= set(line.ids())
        assert len(told) == KEYED
        line.order("called 4 kill")
        line.dies(line.worker())
        line.order("", "producer")
        again = line.producer(KEYED, "order")
        wait_until(lambda: not again.running, 30, "the producer to end")
        assert again.exit_code() == 0, again.log_end()
        assert set(line.ids()) == told
        line.order("")
        line.lapse()
        line.worker()
        line.wait_until_ended(sorted(told))
        line.each_ended_once(sorted(told))
        line.the_books_agree()
