"""What follows an attempt to call a webhook."""

from __future__ import annotations

import pytest

from headgate.workers.policy.webhook_retry import Verdict, WebhookReply, judge, wait_s

DAY_MS = 86_400_000


def judged(reply: WebhookReply, attempts: int = 1, now_ms: int = 0) -> Verdict:
    return judge(reply, attempts=attempts, now_ms=now_ms, until_ms=DAY_MS, chance=0.5)


@pytest.mark.parametrize(
    ("status", "state"),
    [(200, "delivered"), (204, "delivered"), (299, "delivered"), (301, "pending"),
     (307, "pending"), (400, "pending"), (401, "pending"), (410, "disabled"), (429, "pending"),
     (500, "pending"), (None, "pending")],
)  # fmt: skip
def test_only_2xx_is_success_and_410_is_the_end(status: int | None, state: str) -> None:
    assert judged(WebhookReply(status, "it broke" if status is None else "")).state == state


def test_the_reason_is_kept() -> None:
    assert judged(WebhookReply(302)).error == "HTTP 302: redirects are not followed"
    assert judged(WebhookReply(500)).error == "HTTP 500"
    assert judged(WebhookReply(None, "no answer within 30 s")).error == "no answer within 30 s"


def test_the_waits_grow_and_the_last_attempt_is_at_the_end_of_the_day() -> None:
    now_ms, times = 0, []
    for attempt in range(1, 100):
        verdict = judged(WebhookReply(500), attempt, now_ms)
        if verdict.due_at_ms is None:
            assert verdict.state == "failed"
            break
        now_ms = verdict.due_at_ms
        times.append(now_ms)
    assert times[:4] == [5_000, 25_000, 105_000, 425_000]
    assert times[-1] == DAY_MS
    assert len(times) == 12, "and the first one at once"


def test_waits_are_spread_and_never_overflow() -> None:
    assert wait_s(1, 0.0) == 3.75
    assert wait_s(1, 1.0) == 6.25
    assert wait_s(10**6, 0.5) == 4 * 3600


def test_the_receiver_says_how_long_to_wait_but_not_beyond_the_day() -> None:
    assert judged(WebhookReply(429, retry_after_ms=60_000)).due_at_ms == 60_000
    assert judged(WebhookReply(503, retry_after_ms=1)).due_at_ms == 5_000
    assert judged(WebhookReply(503, retry_after_ms=10 * DAY_MS)).due_at_ms == DAY_MS
