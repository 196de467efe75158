"""The counts that Flower shows: lists, and what waits in rooms after it has left them."""

from pathlib import Path

from headgate.shared.broker.queues import lists_of
from headgate.shared.servers.servers import open_servers
from headgate.shared.settings import Settings
from headgate.workers.flower import Queues
from tests.support.rig import BULK, STANDARD, URGENT, Broker
from tests.support.servers import ValkeyServer
from tests.support.waiting_rooms import Rooms


async def test_a_queue_counts_its_list_and_its_rooms(valkey: ValkeyServer, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, redis_url=valkey.url, key_prefix="own:")
    servers = open_servers(settings, record=False)
    with servers.redis_client() as client:
        broker, hand = Broker(client, servers.keys), Rooms(client, servers.keys)
        broker.send("a", "b")
        for key in lists_of(servers.keys, STANDARD)[1:]:
            client.lpush(key, "of a lower priority")
        hand.wait("c", "d", "e")
        hand.wait("f", pool="openai/gpt-4o")
        hand.wait("g", queue=BULK)
        hand.wait("h", queue="their.queue")
        rows = await Queues(servers).queues([URGENT, STANDARD, BULK])
    counts = {row["name"]: row["messages"] for row in rows}
    assert counts == {
        URGENT: 0, STANDARD: 9, BULK: 1, "their.queue": 1, "headgate.dead": 0,
        "(held by workers)": 0, "(deferred)": 0,
    }  # fmt: skip
