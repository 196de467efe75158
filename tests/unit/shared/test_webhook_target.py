"""Where a webhook may be sent: which addresses are public, and which URLs are refused at once."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.shared.webhook_target import (
    AllowedTargets,
    checked_url,
    is_public,
    shown_url,
    why_forbidden,
)

PUBLIC = ("1.1.1.1", "8.8.8.8", "203.0.114.1", "::ffff:8.8.8.8", "2606:4700::1111",
          "64:ff9b::8.8.8.8")  # fmt: skip
NOT_PUBLIC = (
    "0.0.0.1", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.254", "168.63.129.16",
    "169.254.169.254", "172.31.0.1", "192.0.0.192", "192.168.1.1", "198.19.0.1", "203.0.113.9",
    "224.0.0.1", "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "fe80::1",
    "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1", "2001::1",
    "2002:7f00:1::", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "3fff::1",
)  # fmt: skip


def test_public_addresses_are_told_from_all_others() -> None:
    assert [one for one in PUBLIC if not is_public(one)] == []
    assert [one for one in NOT_PUBLIC if is_public(one)] == []


@given(st.ip_addresses(v=4))
def test_an_address_stays_what_it_is_in_the_forms_of_ipv6(address: IPv4Address) -> None:
    """Mapped or translated, it is as public as before; a tunnel to it never is."""
    mapped = IPv6Address(f"::ffff:{address}")
    translated = IPv6Address(int(IPv6Address("64:ff9b::")) | int(address))
    tunnel = IPv6Address(0x2002 << 112 | int(address) << 80)
    assert is_public(str(mapped)) == is_public(str(translated)) == is_public(str(address))
    assert not is_public(str(tunnel))


def test_hosts_and_networks_are_allowed_by_name_and_by_number() -> None:
    allowed = AllowedTargets.read(" Hooks.Internal, 10.0.0.0/8,127.0.0.1 ,fd00::/8,")
    assert allowed.hosts == {"hooks.internal"}
    assert ip_network("127.0.0.1/32") in allowed.networks
    assert allowed.may_dial("plain", "10.2.3.4")
    assert allowed.may_dial("secure", "::ffff:10.2.3.4")
    assert allowed.may_dial("named", "192.168.0.1")
    assert not allowed.may_dial("secure", "192.168.0.1")
    assert not allowed.may_dial("plain", "8.8.8.8"), "http reaches allowed networks only"
    assert allowed.kind_of("http", "hooks.internal.") == "named"


@pytest.mark.parametrize("text", ["10.0.0.0/33", "a b", "host:80", "https://x", "1.2.3", "*.x"])
def test_a_bad_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="give host names, addresses or networks"):
        AllowedTargets.read(text)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.example/", "https:///x", "https://", "a.example/x", "https://u:p@a.example/",
        "https://a.example/#f", "https://a.example/a b", "https://a.example/\n",
        "https://a.example:99999/", "https://a.example:0/", "https://127.1/", "https://0x7f.1/",
        "https://2130706433/", "https://0177.0.0.1/", "https://exam%70le.com/",
        "https://a.example\\@b.example/", "https://ex\u00e4mple.de/", "https://-a.example/",
        "https://[::1/", "https://a.example/" + "x" * 2048, "https://a..example/",
    ],
)  # fmt: skip
def test_what_is_no_url_of_a_webhook_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"use |leave out|its host"):
        checked_url(url)


def test_a_url_that_can_never_be_dialled_is_refused_with_the_remedy() -> None:
    nothing, some = AllowedTargets(), AllowedTargets.read("hooks.internal,127.0.0.0/8")
    for url in ("https://a.example/x?y=1", "https://8.8.8.8:8443/", "https://[2606:4700::1111]/"):
        assert why_forbidden(checked_url(url), nothing) is None
    for url, word in (
        ("http://a.example/", "use https"), ("http://8.8.8.8/", "use https"),
        ("https://127.0.0.1/", "use a public address"), ("http://10.0.0.1/", "public address"),
        ("https://[::1]/", "use a public address"), ("https://localhost/", "use a public host"),
    ):  # fmt: skip
        why = why_forbidden(checked_url(url), nothing)
        assert why is not None
        assert word in why
        assert "HEADGATE_WEBHOOK_ALLOW" in why
    for url in ("http://127.0.0.1:8000/", "http://hooks.internal/", "http://localhost:1/"):
        assert why_forbidden(checked_url(url), some) is None


def test_a_query_is_never_shown() -> None:
    assert shown_url("https://a.example/x?token=1") == "https://a.example/x?..."
