"""Webhooks: the URL and the secret of each tenant, and the events that are sent."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table("webhook_tenants", *_of_tenants(), sa.PrimaryKeyConstraint("tenant"))
    op.create_table("webhook_deliveries", *_of_deliveries(), sa.PrimaryKeyConstraint("id"))
    is_due = sa.text("due_at_ms IS NOT NULL")
    op.create_index(
        "webhook_deliveries_due",
        "webhook_deliveries",
        ["due_at_ms"],
        sqlite_where=is_due,
        postgresql_where=is_due,
    )
    op.create_index("webhook_deliveries_by_time", "webhook_deliveries", ["created_at_ms"])
    op.create_index("webhook_deliveries_by_job", "webhook_deliveries", ["job_id"])


def _column(
    name: str, kind: sa.types.TypeEngine[Any], comment: str | None = None, *, nullable: bool = True
) -> sa.Column[Any]:
    return sa.Column(name, kind, comment=comment, nullable=nullable)


def _of_tenants() -> list[sa.Column[Any]]:
    secret = sa.String(length=128)
    return [
        _column("tenant", sa.String(length=128), nullable=False),
        _column("url", sa.Text(), "null: only requests and batches that name a URL make events"),
        _column("events", sa.Text(), "JSON list of events that the URL gets; null: all"),
        _column("secret", secret, "whsec_ and base64", nullable=False),
        _column("previous_secret", secret, "the secret before the last rotation"),
        _column("previous_until_ms", sa.BigInteger(), "until when it signs, too"),
        _column("created_at_ms", sa.BigInteger(), nullable=False),
        _column("disabled_at_ms", sa.BigInteger(), "when the URL answered 410"),
    ]


def _of_deliveries() -> list[sa.Column[Any]]:
    return [
        _column("id", sa.String(length=64), "the webhook-id of all its attempts", nullable=False),
        _column("tenant", sa.String(length=128), nullable=False),
        _column(
            "event", sa.String(length=64), "empty while the batch has not ended", nullable=False
        ),
        _column("job_id", sa.String(length=128)),
        _column("batch_id", sa.String(length=64)),
        _column("url", sa.Text(), "null: the tenant's at the time of the attempt"),
        _column("body", sa.Text(), "JSON, without prompt and answer", nullable=False),
        _column("state", sa.String(length=16), "waiting, pending, delivered, ...", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        _column("http_status", sa.Integer(), "of the last attempt"),
        _column("error", sa.String(length=256), "why the last attempt failed"),
        _column("created_at_ms", sa.BigInteger(), nullable=False),
        _column("due_at_ms", sa.BigInteger(), "when it is tried next; null: not any more"),
        _column("until_ms", sa.BigInteger(), "when it is given up", nullable=False),
        _column("tried_at_ms", sa.BigInteger(), "the last attempt"),
        _column("ended_at_ms", sa.BigInteger(), "when it was delivered or given up"),
    ]


def downgrade() -> None:
    op.drop_table("webhook_deliveries")
    op.drop_table("webhook_tenants")
