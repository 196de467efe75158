"""Reads keys from the database, and puts their limits in force."""

from __future__ import annotations

from headgate.producer.callers import store
from headgate.producer.callers.key_limits import put_limits
from headgate.producer.callers.keys import GatewayKey
from headgate.producer.callers.known_keys import LoadKey
from headgate.producer.installation import Installation


def loader(at: Installation) -> LoadKey:
    """Return what reads a key by the SHA-256 of its secret, and puts its limits in force.

    It blocks, and raises Unreachable if the database does not answer. Keys that have limits need
    Redis, too, which holds their jobs to them.
    """

    def load(digest: str) -> GatewayKey | None:
        with at.reaching():
            found = store.find(at.engine, digest)
            if found is not None:
                put_limits(at, found)
            return found

    return load


def load_origins(at: Installation) -> frozenset[str]:
    """Return the origins that good keys list; raise Unreachable if the database does not answer."""
    with at.reaching():
        return store.origins(at.engine)
