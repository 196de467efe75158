"""The batcher: many commands in few round trips, each with its own reply, through a lost server."""

import asyncio
from collections.abc import Callable

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from headgate.shared.admission.ticket import Ticket
from headgate.shared.broker import jobs
from headgate.shared.broker.keys import Keys
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.stages import hold
from tests.support.child import BUSY
from tests.support.servers import ValkeyServer

TICKET = Ticket(
    pool="openai/m", model="m", priority="standard", tenant="t", user="", tier="", rule="o",
    input_tokens=1, output_tokens=1, arrival_ms=0, deadline_ms=10**13,
).encode()  # fmt: skip


async def test_each_asker_gets_the_reply_to_its_own_command(valkey: ValkeyServer) -> None:
    batcher = RedisBatcher(Redis.from_url(valkey.url))
    with valkey.client() as client:
        before = client.info("stats")["total_reads_processed"]
        replies = await asyncio.gather(*(batcher.send("ECHO", f"{n}") for n in range(3000)))
        assert replies == [b"%d" % n for n in range(3000)]
        reads = client.info("stats")["total_reads_processed"] - before
    assert reads < 300, "commands share round trips"
    await batcher.close()


async def test_a_refused_command_is_the_fault_of_its_asker_alone(valkey: ValkeyServer) -> None:
    batcher = RedisBatcher(Redis.from_url(valkey.url))
    replies = await asyncio.gather(
        batcher.send("SET", "k", "text"), batcher.send("INCR", "k"), batcher.send("GET", "k"),
        return_exceptions=True,
    )  # fmt: skip
    assert replies[0] == b"OK" or replies[0] is True
    assert isinstance(replies[1], ResponseError)
    assert replies[2] == b"text"
    await batcher.close()


async def test_an_asker_that_is_cancelled_leaves_the_others_their_replies(
    valkey: ValkeyServer,
) -> None:
    batcher = RedisBatcher(Redis.from_url(valkey.url))
    asked = [asyncio.ensure_future(batcher.send("ECHO", f"{n}")) for n in range(20)]
    await asyncio.sleep(0)
    asked[7].cancel()
    replies = await asyncio.gather(*asked, return_exceptions=True)
    assert [t for t in replies if isinstance(t, bytes)] == [b"%d" % n for n in range(20) if n != 7]
    await batcher.close()


async def test_a_forgotten_script_is_sent_again_with_its_text(valkey: ValkeyServer) -> None:
    batcher, keys = RedisBatcher(Redis.from_url(valkey.url)), Keys()
    for n in range(3):
        with valkey.client() as client:
            client.script_flush()
        granted = await batcher.run(hold.reserve(keys, job_id="j", attempt=f"{n}", ticket=TICKET))
        assert isinstance(granted, str)
    await batcher.close()


async def test_many_results_are_published_in_one_call(valkey: ValkeyServer) -> None:
    batcher, keys = RedisBatcher(Redis.from_url(valkey.url)), Keys()
    commands = [
        jobs.publish(keys, job_id=f"j{n}", record=b"record %d" % n, ttl_s=60) for n in range(30)
    ]
    with valkey.client() as client:
        client.script_flush()
        await asyncio.gather(*map(batcher.run, commands))
        client.config_resetstat()
        listener = client.pubsub()
        listener.subscribe(keys.result("j7"))
        assert listener.get_message(timeout=10) is not None
        waiting = await asyncio.gather(*map(batcher.run, commands))
        assert waiting == [int(n == 7) for n in range(30)]
        assert [client.get(keys.result(f"j{n}")) for n in (0, 29)] == ["record 0", "record 29"]
        assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 1
        listener.close()
    await batcher.close()


async def test_a_joined_call_that_fails_is_the_fault_of_one_alone(valkey: ValkeyServer) -> None:
    """The bucket of one pool is broken: the holds of another are settled."""
    batcher, keys = RedisBatcher(Redis.from_url(valkey.url)), Keys()
    grants = {}
    for pool in ("openai/m", "openai/n"):
        ticket = TICKET.replace("openai/m", pool)
        with valkey.client() as client:
            client.hset(keys.owners(), pool, "w")
        grant = await batcher.run(hold.reserve(keys, job_id=pool, attempt="1", ticket=ticket))
        assert isinstance(grant, str)
        grants[pool] = grant
    with valkey.client() as client:
        client.set(keys.bucket("pool/openai/m", "key0"), "no hash")
        settles = [
            hold.settle(keys, job_id=pool, grant=grant, used=(1, 1))
            for pool, grant in grants.items()
        ]
        await batcher.run(settles[1])
        client.hset(keys.holds(), "openai/n", grants["openai/n"])
        broken, settled = await asyncio.gather(*map(batcher.run, settles), return_exceptions=True)
        assert isinstance(broken, ResponseError)
        assert settled is True
        assert client.hkeys(keys.holds()) == ["openai/m"]
    await batcher.close()


async def test_a_killed_server_is_waited_for(valkey_factory: Callable[..., ValkeyServer]) -> None:
    server = valkey_factory(appendonly=True)
    batcher = RedisBatcher(Redis.from_url(server.url))
    await batcher.send("SET", "kept", "1")
    await asyncio.to_thread(server.kill)
    asked = [asyncio.ensure_future(batcher.send("GET", "kept")) for _ in range(50)]
    done, _ = await asyncio.wait(asked, timeout=0.3)
    assert not done
    await asyncio.to_thread(server.start)
    assert await asyncio.wait_for(asyncio.gather(*asked), 15 * BUSY) == [b"1"] * 50
    await batcher.close()


async def test_a_master_without_its_replicas_is_waited_for(
    valkey_factory: Callable[..., ValkeyServer],
) -> None:
    server = valkey_factory(extra=["--min-replicas-to-write", "1"])
    batcher = RedisBatcher(Redis.from_url(server.url))
    reserving = hold.reserve(Keys(), job_id="j", attempt="a", ticket=TICKET)
    taken = asyncio.ensure_future(batcher.run(reserving))
    asked = [batcher.send("SET", "k", "1"), taken]
    done, _ = await asyncio.wait(asked, timeout=0.5)
    assert not done
    with server.client() as client:
        client.config_set("min-replicas-to-write", 0)
    assert (await asyncio.wait_for(asyncio.gather(*asked), 10 * BUSY))[0] is True
    await batcher.close()


async def test_a_command_that_cannot_be_sent_leaves_nobody_hanging(valkey: ValkeyServer) -> None:
    batcher = RedisBatcher(Redis.from_url(valkey.url))
    with pytest.raises(UnicodeEncodeError):
        await asyncio.wait_for(batcher.send("ECHO", "\ud800"), 5 * BUSY)
    assert await asyncio.wait_for(batcher.send("ECHO", "on"), 5 * BUSY) == b"on"
    await batcher.close()


async def test_closing_does_not_wait_for_a_server_that_is_gone(
    valkey_factory: Callable[..., ValkeyServer],
) -> None:
    server = valkey_factory()
    batcher = RedisBatcher(Redis.from_url(server.url))
    await batcher.send("PING")
    await asyncio.to_thread(server.kill)
    asked = asyncio.ensure_future(batcher.send("PING"))
    await asyncio.sleep(0)
    await asyncio.wait_for(batcher.close(), 10 * BUSY)
    await asyncio.wait({asked}, timeout=5)
    assert asked.cancelled()  # its job goes back: a silent server is no fault of the job's
