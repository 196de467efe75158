"""The client of the commands: it always works on Redis and the database."""

from __future__ import annotations

from headgate.producer.client.client import Client
from headgate.shared.settings import load


def open_client() -> Client:
    """Return a client on the servers, also where HEADGATE_BASE_URL names a gateway."""
    return Client(load().model_copy(update={"base_url": None, "api_key": None}))
