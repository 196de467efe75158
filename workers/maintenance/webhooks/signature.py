"""Signs events as the Standard Webhooks specification 1.0 says."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook


def signed_headers(secrets: Sequence[str], event_id: str, body: str, at_ms: int) -> dict[str, str]:
    """Return the headers of an attempt at this time (Unix ms), with a signature by each secret."""
    at = datetime.fromtimestamp(at_ms // 1000, UTC)
    signatures = (Webhook(secret).sign(event_id, at, body) for secret in secrets)
    return {
        "content-type": "application/json",
        "user-agent": "Headgate",
        "webhook-id": event_id,
        "webhook-timestamp": str(at_ms // 1000),
        "webhook-signature": " ".join(signatures),
    }
