"""A worker is killed around the callbacks of its jobs: none is lost, and a repeat has the same id.

The jobs are those of a stock Celery app: each has a link, and all together are a chord.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from celery import Celery, chord

from tests.support.canvas import ask, mine, sent_to, user_app
from tests.support.crash_installation import Line, open_line
from tests.support.servers import ValkeyServer, short_folder

JOBS = 6


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    folder = tmp_path_factory.mktemp("callbacks")
    with ExitStack() as stack:
        server = ValkeyServer(stack.enter_context(short_folder()), lasting=True)
        stack.callback(server.kill)
        url = f"sqlite:///{folder / 'headgate.db'}"
        yield stack.enter_context(open_line(folder, server.start(), url))


@pytest.fixture
def app(line: Line) -> Iterator[Celery]:
    with user_app(line.settings.redis_url or "") as app:
        yield app


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "count"),
    [
        ("concluded", 3),  # the end is on record, and nothing is sent
        ("concluded", JOBS),  # the same of the last part of the chord
        ("called_back", 3),  # the callbacks are sent, and the record does not know it
        ("called_back", JOBS),
        ("called_back_on_record", 3),  # the record knows it, and the job is not acknowledged
        ("acknowledging", 1),
    ],
)
def test_no_callback_is_lost_and_a_repeat_has_the_same_id(
    line: Line, app: Celery, step: str, count: int
) -> None:
    running = [worker for worker in line.workers if worker.running]
    worker = running[0] if running else line.worker()
    line.client.delete("mine")
    parts = [
        ask(app, f"{step} {count}: prompt {n}", model="gpt-4o-mini").set(
            link=[mine(app, "after", n)]
        )
        for n in range(JOBS)
    ]
    line.order(f"{step} {count} kill")
    body: Any = chord(parts)(mine(app, "merge"))
    ids = [part.id for part in body.parent.results]
    line.dies(worker)
    line.order("")
    line.lapse()
    line.worker()
    line.wait_until_ended(ids, 120)

    line.each_ended_once(ids)
    after = [one for one in sent_to(line.client) if one.task == "mine.after"]
    assert len({one.id for one in after}) == JOBS
    assert len({(one.id, str(one.args)) for one in after}) == JOBS  # a repeat is the same task
    assert len(after) <= 2 * JOBS
    merges = [one for one in sent_to(line.client) if one.task == "mine.merge"]
    assert {one.id for one in merges} == {body.id}
    for merge in merges:
        assert [one["id"] for one in merge.args[0]] == ids
