"""The address of a caller, behind proxies and without; and its wrong keys."""

from __future__ import annotations

import pytest

from headgate.producer.callers.addresses import WrongKeys, client_address, place_of, proxies_of

PROXIES = "10.0.0.0/8, ::1,192.0.2.7"


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.5", None, "203.0.113.5"),
        ("203.0.113.5", "198.51.100.1", "203.0.113.5"),  # a stranger says what it likes
        ("10.1.2.3", "198.51.100.1", "198.51.100.1"),
        ("::ffff:10.1.2.3", "198.51.100.1:4711", "198.51.100.1"),
        ("10.1.2.3", "1.1.1.1, 198.51.100.1, 192.0.2.7", "198.51.100.1"),
        ("::1", "[2001:db8::1]:443", "2001:db8::1"),
        ("10.1.2.3", "198.51.100.1, unknown", "10.1.2.3"),
        ("10.1.2.3", "198.51.100.1, unknown, 192.0.2.7", "192.0.2.7"),
        ("10.1.2.3", None, "10.1.2.3"),
        ("10.1.2.3", "10.9.9.9, 10.8.8.8", "10.9.9.9"),
        ("10.1.2.3", "9.9.9.9," * 100_000 + "10.8.8.8", "9.9.9.9"),
        ("", "198.51.100.1", ""),
    ],
)
def test_only_a_trusted_proxy_names_the_caller(
    peer: str, forwarded: str | None, expected: str
) -> None:
    headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
    assert client_address(peer, headers, proxies_of(PROXIES)) == expected


def test_without_proxies_nothing_is_believed() -> None:
    assert client_address("127.0.0.1", {"x-forwarded-for": "9.9.9.9"}, ()) == "127.0.0.1"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_a_network_of_a_home_counts_as_one_address(address: str, expected: str) -> None:
    assert place_of(address) == expected


def test_wrong_keys_are_forgiven_with_time() -> None:
    now = [0.0]
    wrong = WrongKeys(lambda: now[0])
    for _ in range(9):
        wrong.add("192.0.2.1")
    assert wrong.wait_s("192.0.2.1") == 0
    wrong.add("192.0.2.1")
    assert wrong.wait_s("192.0.2.1") == pytest.approx(6)
    assert wrong.wait_s("192.0.2.2") == 0
    now[0] = 6
    assert wrong.wait_s("192.0.2.1") == 0
    now[0] = 10_000
    for _ in range(9):
        wrong.add("192.0.2.1")
    assert wrong.wait_s("192.0.2.1") == 0  # never more than ten at once


def test_only_so_many_addresses_are_remembered() -> None:
    wrong = WrongKeys(lambda: 0.0, most=2)
    for n in range(3):
        for _ in range(10):
            wrong.add(f"192.0.2.{n}")
    assert [wrong.wait_s(f"192.0.2.{n}") > 0 for n in range(3)] == [False, True, True]
