"""Checks, once at the start of each process, that Headgate can work with the Redis.

It raises Unreachable for a server that does not answer; workers wait for it. It raises Unfit for a
server that no waiting makes usable: a cluster, a replica, a wrong password or certificate.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

import redis
from redis.sentinel import MasterNotFoundError

from headgate.shared.broker.keys import Keys
from headgate.shared.errors import Unfit, Unreachable
from headgate.shared.redis_url import Address, masked
from headgate.shared.servers import redis_client

log = logging.getLogger("headgate.redis")

OLDEST = (6, 2)
"""The oldest version with `LPOP key count` and `SMISMEMBER`."""

REMEDY = "check HEADGATE_REDIS_URL"
FULL_REMEDY = (
    "see what takes the room with `headgate health`; then raise its maxmemory, or lower "
    "HEADGATE_RESULTS_MB"
)
ACL_REMEDY = "give the user the rights in deploy/redis.acl"

USED = (
    "SET # 1 PX 1000", "GET #", "EXISTS #", "PEXPIRE # 1000", "HGET # f", "HMGET # f", "HSET # f 1",
    "HSETNX # f 1", "HDEL # f", "HINCRBY # f 1", "HLEN #", "HEXISTS # f", "HGETALL #", "HKEYS #",
    "ZRANK # 1", "INCRBY # 1", "ZRANDMEMBER #", "HRANDFIELD #", "LLEN #", "LPUSH # 1", "RPUSH # 1",
    "RPOP #", "LTRIM # 0 0",
    "LREM # 0 1", "LRANGE # 0 0", "TYPE #", "SCARD #", "SSCAN # 0", "SISMEMBER # 1", "ZCARD #",
    "ZMSCORE # 1", "BLPOP # 1", "BRPOP # 1", "SADD # 1", "SREM # 1", "SMEMBERS #", "SMISMEMBER # 1",
    "ZADD # 1 1", "ZREM # 1", "ZSCORE # 1", "ZRANGE # 0 0", "ZRANGEBYSCORE # 0 0",
    "XADD # 1-1 d 1", "XRANGE # - + COUNT 1",
    "ZINTERSTORE # 1 #", "ZUNIONSTORE # 1 #", "ZPOPMIN #",
    "ZREMRANGEBYSCORE # 0 0", "PUBLISH # 1", "TIME", "DEL #", "SCAN 0 MATCH #",
    "MULTI", "EXEC", "EVAL return{} 0", f"EVALSHA {'0' * 40} 0",
)  # fmt: skip
"""The commands of a worker and its scripts. The key holds a string, so nearly all of them fail and
change nothing; Redis checks the rights of the user first."""


WISHED = {
    "PUBSUB NUMSUB #": "a result may be evicted though a program waits for it",
    "MEMORY USAGE #": "what takes the memory is not told",
    "DBSIZE": "what takes the memory is not told",
}
"""Commands that workers can do without, and what is worse then. Users made for the release before
lack them."""


def require(client: redis.Redis, address: Address, url: str) -> None:
    """Check that this Redis answers and can be used; raise Unfit or Unreachable.

    Log a warning if it evicts keys when it is full.
    """
    if address.master_name is not None:
        _ask_sentinels(address, url)
    try:
        facts: Any = client.info()
    except redis.RedisError as error:
        raise fault(error, address, url) from error
    if found := unfit(facts):
        raise Unfit(f"Redis at {masked(url)}", *found)
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        log.warning(
            "Redis at %s has maxmemory-policy %s and evicts jobs when it is full; "
            "set maxmemory-policy to noeviction", masked(url), policy,
        )  # fmt: skip


def require_commands(client: redis.Redis, address: Address, keys: Keys, url: str) -> None:
    """Check that this user may send all commands of a worker; raise Unfit with a missing one.

    Log a warning for one that workers can do without.
    """
    pipe = client.pipeline(transaction=False)
    add: Callable[..., Any] = pipe.execute_command
    for line in (*USED, *WISHED):
        add(*line.replace("#", keys.probe()).split())
    execute: Callable[..., list[Any]] = pipe.execute
    try:
        replies = execute(raise_on_error=False)
    except redis.RedisError as error:
        raise fault(error, address, url) from error
    refused = redis.exceptions.NoPermissionError
    for reply in replies[: len(USED)]:
        if isinstance(reply, refused):
            raise fault(reply, address, url) from reply
    for reply, lack in zip(replies[len(USED) :], WISHED.values(), strict=True):
        if isinstance(reply, refused):
            log.warning("Redis refuses a command (%s): %s; %s", reply, lack, ACL_REMEDY)


_REFUSALS = re.compile(r"(?:^|: -)(?:OOM|MISCONF|READONLY|NOREPLICAS|BUSY) ")
"""Refusals without a class in redis-py. Redis 6.2 quotes a script's error at the end of a line."""

_FULL = re.compile(r"(?:^|: -)OOM |^command not allowed when used memory")


def is_full(error: BaseException) -> bool:
    """Return whether Redis refused since it has used all of its `maxmemory`."""
    return isinstance(error, redis.exceptions.OutOfMemoryError) or (
        isinstance(error, redis.exceptions.ResponseError) and bool(_FULL.search(str(error)))
    )


def refuses_for_now(reply: Any) -> bool:
    """Return whether Redis refused because it is full, read-only or loading: nothing was done."""
    states = (
        redis.exceptions.OutOfMemoryError,
        redis.exceptions.ReadOnlyError,
        redis.exceptions.BusyLoadingError,
        redis.exceptions.MasterDownError,
        redis.exceptions.TryAgainError,
    )
    return isinstance(reply, states) or (
        isinstance(reply, redis.exceptions.ResponseError) and bool(_REFUSALS.search(str(reply)))
    )


def unfit(facts: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return why the server of this INFO cannot be used, and the remedy; None if it can."""
    version = str(facts.get("redis_version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if int(facts.get("cluster_enabled", 0)):
        return (
            "it is a node of a Redis Cluster, for which Celery has no transport",
            "use a single Redis, or one behind sentinels",
        )
    if numbers and numbers < OLDEST:
        return f"it is version {version}", "use Redis 6.2 or newer, or Valkey"
    if facts.get("role") in ("slave", "replica"):
        master = f"{facts.get('master_host')}:{facts.get('master_port')}"
        return f"it is a read-only replica of {master}", "use that one, or the sentinels"
    return None


def fault(error: redis.RedisError, address: Address, url: str) -> Unreachable:
    """Return the error of redis-py as one of ours, with a remedy and without passwords."""
    server = f"Redis at {masked(url)}"
    message = reason(error, address)
    match error:
        case redis.AuthenticationError():
            return Unfit(server, message, "check the name and the password in HEADGATE_REDIS_URL")
        case redis.exceptions.NoPermissionError():
            return Unfit(server, message, ACL_REMEDY)
    if is_full(error):
        return Unreachable(server, message, FULL_REMEDY)
    if "CERTIFICATE_VERIFY_FAILED" in message or "HOSTNAME" in message.upper():
        return Unfit(server, message, "check ssl_ca_certs, and the names in its certificate")
    if "WRONG_VERSION_NUMBER" in message or "RECORD_LAYER_FAILURE" in message:
        return Unfit(server, message, "it does not seem to speak TLS; use redis://")
    remedy = REMEDY
    if address.tls is not None and "Timeout connecting" in message:
        remedy += "; if it does not speak TLS, use redis://"
    elif address.tls is not None and address.tls.certfile is None and _hung_up(message):
        remedy += "; if it requires a client certificate, set ssl_certfile and ssl_keyfile"
    elif address.tls is None and not address.path and _hung_up(message):
        remedy += "; if it speaks TLS, use rediss://"
    return Unreachable(server, message, remedy)


def _hung_up(message: str) -> bool:
    """Return whether the server closed the connection during the handshake."""
    lower = message.lower()
    return any(part in lower for part in ("closed by server", "reset by peer", "certificate requ"))


def reason(error: BaseException, address: Address) -> str:
    """Return what went wrong, in one line without passwords."""
    if isinstance(error, MasterNotFoundError):
        return f"the sentinels know no running master {address.master_name!r}"
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    if is_full(error):
        line = f"it is full ({line})"
    for secret in address.secrets:
        line = line.replace(secret, "***")
    return line


def _ask_sentinels(address: Address, url: str) -> None:
    """Check that one sentinel answers and watches the master; raise Unfit or Unreachable."""
    sentinels, errors = redis_client.sentinels(address), []
    server = f"the sentinels of {masked(url)}"
    try:
        for (host, port), sentinel in zip(address.hosts, sentinels.sentinels, strict=True):
            try:
                found: Any = sentinel.sentinel_masters()
            except redis.RedisError as error:
                errors.append((f"{host}:{port}", error))
                continue
            if address.master_name not in found:
                known = ", ".join(sorted(map(str, found))) or "none"
                raise Unfit(
                    server,
                    f"they watch no master {address.master_name!r}",
                    f"set master_name in HEADGATE_REDIS_URL; known: {known}",
                )
            return
    finally:
        sentinels.close()
    message = "; ".join(f"{host}: {reason(error, address)}" for host, error in errors)
    refused = (redis.AuthenticationError, redis.exceptions.NoPermissionError)
    if any(isinstance(error, refused) for _, error in errors):
        raise Unfit(server, message, "check sentinel_username and sentinel_password")
    raise Unreachable(server, message, REMEDY)
