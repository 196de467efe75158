"""Who calls, by the key in the headers; and what wrong keys, outages and rotations do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pytest

from headgate.producer.callers.authenticate import Callers, secrets_of
from headgate.producer.callers.caller import Caller
from headgate.producer.callers.keys import GatewayKey, new_secret, sha256_of
from headgate.producer.callers.known_keys import FRESH_S, STALE_S
from headgate.producer.callers.refused import KeyRefused
from headgate.shared.errors import Unreachable

HERE = "192.0.2.1"
T = TypeVar("T")


@dataclass
class Record:
    """Keys as the database has them, with clocks that the test turns."""

    at_s: float = 1000.0
    keys: dict[str, GatewayKey] = field(default_factory=dict)
    looks: list[str] = field(default_factory=list)
    is_away: bool = False
    hurdle: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.hurdle.set()

    def load(self, digest: str) -> GatewayKey | None:
        """Read a key, as the store does."""
        self.looks.append(digest)
        self.hurdle.wait(30)
        if self.is_away:
            raise Unreachable("the database", "it is away", "start it")
        return next((key for key in self.keys.values()
                     if digest in (key.secret_sha256, key.previous_sha256)), None)  # fmt: skip

    def add(self, name: str = "a", **fields: Any) -> str:
        """Put a new key on record; return its secret."""
        secret = new_secret()
        caller = Caller(key_id=f"hgk_{name}", tenant=f"tenant-{name}")
        key = GatewayKey(caller.key_id, name, caller, None, None, 0, None, None, sha256_of(secret),
                         None, None)  # fmt: skip
        self.keys[name] = replace(key, **fields)
        return secret

    def change(self, name: str = "a", **fields: Any) -> None:
        """Change a key on record."""
        self.keys[name] = replace(self.keys[name], **fields)


def run(record: Record, act: Callable[[Callers], Coroutine[Any, Any, T]]) -> T:
    """Let `act` use callers of this record."""

    async def main() -> T:
        callers = Callers(
            record.load, clock=lambda: record.at_s, wall_ms=lambda: int(record.at_s * 1000)
        )
        try:
            return await act(callers)
        finally:
            callers.close()

    return asyncio.run(main())


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def refused(callers: Callers, secret: str, address: str = HERE) -> tuple[int, str]:
    """The call is refused; return its status and code."""
    with pytest.raises(KeyRefused) as error:
        await callers.of(bearer(secret), address)
    assert secret not in str(error.value)
    return error.value.http_status, error.value.code


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"authorization": "Bearer hg-1"}, ["hg-1"]),
        ({"authorization": "bearer   hg-1 "}, ["hg-1"]),
        ({"x-api-key": "hg-1"}, ["hg-1"]),
        ({"authorization": "Bearer hg-1", "x-api-key": "hg-2"}, ["hg-1", "hg-2"]),
        ({"authorization": "Bearer hg-1", "x-api-key": "hg-1"}, ["hg-1"]),
        ({"authorization": "Basic aGc6"}, []),
        ({"authorization": "Bearer"}, []),
        ({}, []),
    ],
)
def test_a_key_comes_in_either_header(headers: dict[str, str], expected: list[str]) -> None:
    assert secrets_of(headers) == expected


def test_a_right_key_is_read_once_for_many_calls() -> None:
    record = Record()
    secret = record.add()

    async def act(callers: Callers) -> list[Caller]:
        return await asyncio.gather(*(callers.of(bearer(secret), HERE) for _ in range(500)))

    assert {caller.tenant for caller in run(record, act)} == {"tenant-a"}
    assert record.looks == [sha256_of(secret)]


def test_no_key_and_a_wrong_key_are_refused() -> None:
    record = Record()
    right = record.add()

    async def act(callers: Callers) -> None:
        with pytest.raises(KeyRefused) as error:
            await callers.of({}, HERE)
        assert (error.value.http_status, error.value.code) == (401, "no_key")
        assert await refused(callers, "sk-123") == (401, "invalid_api_key")
        assert await refused(callers, new_secret()) == (401, "invalid_api_key")
        both = {"authorization": f"Bearer {new_secret()}", "x-api-key": right}
        assert (await callers.of(both, HERE)).tenant == "tenant-a"

    run(record, act)
    assert len(record.looks) == 3  # what has not the form of a key is not looked up


def test_a_revoked_key_is_refused_after_a_few_seconds() -> None:
    record = Record()
    secret = record.add()

    async def act(callers: Callers) -> None:
        await callers.of(bearer(secret), HERE)
        record.change(revoked_at_ms=1)
        record.at_s += FRESH_S
        assert await refused(callers, secret) == (401, "revoked_key")

    run(record, act)


def test_a_key_expires_to_the_moment_also_while_it_is_cached() -> None:
    record = Record()
    secret = record.add(expires_at_ms=1_001_000)

    async def act(callers: Callers) -> None:
        await callers.of(bearer(secret), HERE)
        record.at_s = 1001.0
        assert await refused(callers, secret) == (401, "expired_key")

    run(record, act)


def test_after_a_rotation_both_secrets_are_good_until_the_grace_ends() -> None:
    record = Record()
    old, new = record.add(), new_secret()
    record.change(
        secret_sha256=sha256_of(new), previous_sha256=sha256_of(old), previous_until_ms=1_002_000
    )

    async def act(callers: Callers) -> None:
        for secret in (old, new):
            assert (await callers.of(bearer(secret), HERE)).key_id == "hgk_a"
        record.at_s = 1002.0
        assert await refused(callers, old) == (401, "invalid_api_key")
        assert (await callers.of(bearer(new), HERE)).key_id == "hgk_a"

    run(record, act)


def test_many_wrong_keys_close_the_database_to_their_address() -> None:
    record = Record()
    right, other = record.add(), record.add("b")

    async def act(callers: Callers) -> None:
        await callers.of(bearer(right), HERE)
        for _ in range(10):
            assert await refused(callers, new_secret()) == (401, "invalid_api_key")
        looks = len(record.looks)
        for secret in (new_secret(), "sk-1", other):
            with pytest.raises(KeyRefused) as error:
                await callers.of(bearer(secret), HERE)
            assert error.value.http_status == 429
            assert error.value.retry_after_s == pytest.approx(6)
        assert len(record.looks) == looks
        assert (await callers.of(bearer(right), HERE)).tenant == "tenant-a"
        assert (await callers.of(bearer(other), "192.0.2.2")).tenant == "tenant-b"
        record.at_s += 6
        assert await refused(callers, new_secret()) == (401, "invalid_api_key")

    run(record, act)


def test_wrong_keys_that_come_at_once_are_not_all_looked_up() -> None:
    record = Record()

    async def act(callers: Callers) -> None:
        calls = (callers.of(bearer(new_secret()), HERE) for _ in range(150))
        ends = await asyncio.gather(*calls, return_exceptions=True)
        statuses = [end.http_status for end in ends if isinstance(end, KeyRefused)]
        assert len(statuses) == 150
        assert set(statuses) == {401, 429}

    run(record, act)
    assert 10 <= len(record.looks) <= 13


def test_without_the_database_keys_that_were_seen_stay_good_for_a_while() -> None:
    record = Record()
    secret, other = record.add(), record.add("b")

    async def act(callers: Callers) -> None:
        await callers.of(bearer(secret), HERE)
        record.is_away = True
        record.at_s += STALE_S - 1
        assert (await callers.of(bearer(secret), HERE)).tenant == "tenant-a"
        for unseen in (other, new_secret()):
            with pytest.raises(Unreachable):
                await callers.of(bearer(unseen), HERE)
        record.at_s += 1
        with pytest.raises(Unreachable):
            await callers.of(bearer(secret), HERE)
        record.is_away = False
        assert (await callers.of(bearer(secret), HERE)).tenant == "tenant-a"

    run(record, act)


def test_a_key_in_use_is_read_again_before_its_time() -> None:
    record = Record()
    secret = record.add()

    async def act(callers: Callers) -> None:
        await callers.of(bearer(secret), HERE)
        record.hurdle.clear()
        record.at_s += FRESH_S - 1
        calls = [await callers.of(bearer(secret), HERE) for _ in range(3)]
        assert len(calls) == 3  # none has waited for the read that is under way
        record.hurdle.set()
        record.at_s += 1
        await callers.of(bearer(secret), HERE)

    run(record, act)
    assert record.looks == [sha256_of(secret)] * 2


def test_a_limit_of_the_address_comes_before_the_key() -> None:
    record = Record()
    secret = record.add()

    async def full(_address: str) -> float:
        return 1.5

    async def main() -> None:
        callers = Callers(record.load, count_call=full)
        with pytest.raises(KeyRefused) as error:
            await callers.of(bearer(secret), HERE)
        assert (error.value.http_status, error.value.retry_after_s) == (429, 1.5)
        callers.close()

    asyncio.run(main())
    assert record.looks == []
