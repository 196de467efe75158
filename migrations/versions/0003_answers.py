"""Idempotency keys, the roll-up of usage, and the columns of audit lines that it needs."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column(
        "jobs",
        sa.Column(
            "share_pico_usd",
            sa.BigInteger(),
            nullable=True,
            comment="its part of the call of an equal job",
        ),
    )
    op.add_column("audit", sa.Column("template", sa.String(length=128), nullable=True))
    op.add_column(
        "audit",
        sa.Column(
            "latency_bin",
            sa.Integer(),
            nullable=True,
            comment="bucket of latency_ms in shared/stats/sketch.py",
        ),
    )
    op.create_table(
        "idempotency",
        sa.Column("tenant", sa.String(length=128), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("body_sha256", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=128), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "key"),
    )
    op.create_index("idempotency_by_time", "idempotency", ["created_at_ms"])
    op.create_table(
        "usage_days",
        sa.Column("day", sa.Integer(), nullable=False, comment="20261121"),
        sa.Column("tenant", sa.String(length=128), nullable=False),
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column(
            "model",
            sa.String(length=128),
            nullable=False,
            comment="the one that answered, or was asked for",
        ),
        sa.Column("template", sa.String(length=128), nullable=False),
        sa.Column("batch_id", sa.String(length=64), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("succeeded", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("cancelled", sa.BigInteger(), nullable=False),
        sa.Column("expired", sa.BigInteger(), nullable=False),
        sa.Column("cached", sa.BigInteger(), nullable=False, comment="answered by the cache"),
        sa.Column(
            "shared", sa.BigInteger(), nullable=False, comment="answered by an equal request's call"
        ),
        sa.Column("fallbacks", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("unknown_attempts", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_pico_usd", sa.BigInteger(), nullable=False),
        sa.Column(
            "unpriced", sa.BigInteger(), nullable=False, comment="jobs whose cost nobody knows"
        ),
        sa.Column("saved_pico_usd", sa.BigInteger(), nullable=False),
        sa.Column("latency_ms", sa.BigInteger(), nullable=False, comment="of all together"),
        sa.Column("latencies", sa.LargeBinary(), nullable=False, comment="a packed sketch"),
        sa.PrimaryKeyConstraint("day", "tenant", "user_id", "model", "template", "batch_id"),
    )
    op.create_table(
        "usage_summed",
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("lines", sa.BigInteger(), nullable=False),
        sa.Column("summed_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day"),
    )


def downgrade() -> None:
    op.drop_table("usage_summed")
    op.drop_table("usage_days")
    op.drop_table("idempotency")
    op.drop_column("audit", "latency_bin")
    op.drop_column("audit", "template")
    op.drop_column("jobs", "share_pico_usd")
