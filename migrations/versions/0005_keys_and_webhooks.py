"""Keys of the gateway's callers, the key with which a job came, and webhooks."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table("gateway_keys", *_of_keys(), sa.PrimaryKeyConstraint("id"))
    op.create_index("gateway_keys_by_secret", "gateway_keys", ["secret_sha256"], unique=True)
    op.create_index("gateway_keys_by_previous", "gateway_keys", ["previous_sha256"])
    key_id = sa.String(length=32)
    op.add_column(
        "jobs",
        sa.Column("key_id", key_id, nullable=True, comment="the gateway key that it came with"),
    )
    op.add_column(
        "audit",
        sa.Column(
            "key_id", key_id, nullable=True, comment="the gateway key that the job came with"
        ),
    )
    _create_webhooks()


def _create_webhooks() -> None:
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


def _of_keys() -> list[sa.Column[Any]]:
    name = sa.String(length=128)
    return [
        _column("id", sa.String(length=32), "names the key; not secret", nullable=False),
        _column("name", name, nullable=False),
        _column("tenant", name, nullable=False),
        _column("user_id", name),
        _column("any_user", sa.Boolean(), "each call may name its user", nullable=False),
        _column("any_tenant", sa.Boolean(), "each call may name its tenant", nullable=False),
        _column("tier", name),
        _column("scopes", sa.Text(), "JSON list of what the key may do", nullable=False),
        _column("models", sa.Text(), "JSON list of the models that it may name; null: all"),
        _column("rpm", sa.BigInteger(), "calls a minute with this key"),
        _column("tpm", sa.BigInteger(), "tokens a minute with this key"),
        _column("budget_usd", sa.String(length=32), "what it may spend in a period"),
        _column("budget_period", sa.String(length=8), "day or month"),
        _column("origins", sa.Text(), "JSON list of web pages that may use it", nullable=False),
        _column("created_at_ms", sa.BigInteger(), nullable=False),
        _column("expires_at_ms", sa.BigInteger()),
        _column("revoked_at_ms", sa.BigInteger()),
        _column("secret_sha256", sa.String(length=64), nullable=False),
        _column("previous_sha256", sa.String(length=64), "of the secret before the last rotation"),
        _column("previous_until_ms", sa.BigInteger(), "until when the secret before is accepted"),
    ]


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
    op.drop_column("audit", "key_id")
    op.drop_column("jobs", "key_id")
    op.drop_table("gateway_keys")
