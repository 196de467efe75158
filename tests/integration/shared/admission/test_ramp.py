"""A pool grows as vendors ask, by half in a quarter of an hour, where `ramp_from` asks for it."""

from itertools import count, pairwise

from tests.support.governor_model import Governor
from tests.support.servers import ValkeyServer
from tests.support.waiting_rooms import POOL

TOKENS = 100_000
STEP_S = 15
QUARTER = 15 * 60 // STEP_S


def granted(broker: Governor, names: "count[int]") -> int:
    """Tokens that are granted in the next quarter of a minute, with more work than they let."""
    broker.advance(STEP_S * 1000)
    tokens = 0
    while True:
        broker.ask(*(f"j{next(names)}" for _ in range(4)), input_tokens=TOKENS, output_tokens=0)
        jobs = broker.grants(8)
        if not jobs:
            return tokens
        tokens += TOKENS * len(jobs)
        broker.ack(*jobs)


def test_a_pool_with_ramp_from_grows_by_no_more_than_half_in_a_quarter_of_an_hour(
    valkey: ValkeyServer,
) -> None:
    with valkey.client(decode_responses=False) as client:
        broker, names = Governor(client), count()
        broker.settle_down()
        broker.limit(**{f"pool/{POOL}": "tpm=60000000 burst_s=60 ramp_from=1000000"})
        began_ms = broker.now_ms()
        steps = [granted(broker, names) for _ in range(3 * QUARTER)]
        late = 1 + (broker.now_ms() - began_ms) / 900_000  # what the test took grows a pool, too
    quarters = [sum(steps[n : n + QUARTER]) for n in range(0, len(steps), QUARTER)]
    assert sum(steps[:4]) <= late * 1_000_000 + 2 * TOKENS, "it begins with a million a minute"
    for before, after in pairwise(quarters):
        assert 1.15 * before < after <= 1.5 * late * before


def test_a_pool_without_ramp_from_has_its_whole_limit_at_once(valkey: ValkeyServer) -> None:
    with valkey.client(decode_responses=False) as client:
        broker, names = Governor(client), count()
        broker.settle_down()
        broker.limit(**{f"pool/{POOL}": "tpm=60000000 burst_s=60"})
        granted(broker, names)
        tokens = granted(broker, names)
    assert tokens >= 0.9 * 60_000_000 * STEP_S / 60


def test_growth_that_was_refused_is_halved_from_what_was_really_used(valkey: ValkeyServer) -> None:
    """A tenth of the limit was used: half of that is what goes through then, and it grows."""
    with valkey.client(decode_responses=False) as client:
        broker, names = Governor(client), count()
        broker.settle_down()
        broker.limit(**{f"pool/{POOL}": "tpm=60000000 burst_s=60"})
        for _ in range(30):
            broker.advance(1000)
            broker.ask(f"j{next(names)}", input_tokens=TOKENS, output_tokens=0)
            broker.ack(*broker.grants(8))
        broker.observe("slow")
        pace = float(broker.gate()["pace"])
        assert 0.04 <= pace <= 0.06
        broker.advance(900_000)
        assert sum(granted(broker, names) for _ in range(4)) <= 60_000_000 * 1.6 * pace + 4_000_000
