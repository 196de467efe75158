"""Keys of the gateway's callers, and the key with which a job came."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table("gateway_keys", *_columns(), sa.PrimaryKeyConstraint("id"))
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


def _column(
    name: str, kind: sa.types.TypeEngine[Any], comment: str | None = None, *, nullable: bool = True
) -> sa.Column[Any]:
    return sa.Column(name, kind, comment=comment, nullable=nullable)


def _columns() -> list[sa.Column[Any]]:
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


def downgrade() -> None:
    op.drop_column("audit", "key_id")
    op.drop_column("jobs", "key_id")
    op.drop_table("gateway_keys")
