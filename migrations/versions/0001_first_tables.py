"""The first tables: jobs, attempts (the ledger), audit, batches."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "attempts",
        sa.Column("job_id", sa.String(length=128), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column(
            "n", sa.Integer(), nullable=False, comment="1 for the first attempt under this claim"
        ),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column(
            "state", sa.String(length=16), nullable=False, comment="open, answered, failed, unknown"
        ),
        sa.Column("code", sa.String(length=32), nullable=True, comment="the error's code"),
        sa.Column(
            "message",
            sa.Text(),
            nullable=True,
            comment="the error's message; never holds a key or a prompt",
        ),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("request_id", sa.String(length=256), nullable=True, comment="the provider's own"),
        sa.Column("started_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("settled_at_ms", sa.BigInteger(), nullable=True),
        sa.Column(
            "waited_ms",
            sa.BigInteger(),
            nullable=False,
            comment="for buckets and backoff before it",
        ),
        sa.Column("latency_ms", sa.BigInteger(), nullable=True),
        sa.Column("input_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cached_input_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cache_write_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "cost_pico_usd",
            sa.BigInteger(),
            nullable=True,
            comment="null: no price known, or the attempt is unknown",
        ),
        sa.PrimaryKeyConstraint("job_id", "fence", "n"),
    )
    op.create_table(
        "audit",
        sa.Column("job_id", sa.String(length=128), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("error_code", sa.String(length=32), nullable=True),
        sa.Column("priority", sa.String(length=16), nullable=False),
        sa.Column("tenant", sa.String(length=128), nullable=False),
        sa.Column("user_id", sa.String(length=128), nullable=True),
        sa.Column("batch_id", sa.String(length=64), nullable=True),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("model_used", sa.String(length=128), nullable=True),
        sa.Column("provider", sa.String(length=64), nullable=True),
        sa.Column("cached", sa.String(length=16), nullable=True),
        sa.Column("fallback", sa.Boolean(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("unknown_attempts", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger(), nullable=False),
        sa.Column(
            "cost_pico_usd",
            sa.BigInteger(),
            nullable=True,
            comment="of all attempts; null where a price is not known",
        ),
        sa.Column(
            "saved_pico_usd",
            sa.BigInteger(),
            nullable=True,
            comment="what the cache's answer cost when it was bought",
        ),
        sa.Column("submitted_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("started_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("finished_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("queued_ms", sa.BigInteger(), nullable=True),
        sa.Column("latency_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_index("audit_by_batch", "audit", ["batch_id"], unique=False)
    op.create_index("audit_by_time", "audit", ["finished_at_ms"], unique=False)
    op.create_table(
        "batches",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("input_path", sa.Text(), nullable=False),
        sa.Column("input_sha256", sa.String(length=64), nullable=False),
        sa.Column("output_path", sa.Text(), nullable=True),
        sa.Column(
            "defaults",
            sa.Text(),
            nullable=False,
            comment="JSON of the submit fields given for all lines",
        ),
        sa.Column(
            "lines", sa.Integer(), nullable=False, comment="lines that hold a request, good or bad"
        ),
        sa.Column("bad_lines", sa.Integer(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column(
            "submitted_at_ms",
            sa.BigInteger(),
            nullable=True,
            comment="when the last line was queued",
        ),
        sa.Column("cancelled_at_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("batches_by_output", "batches", ["output_path"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("priority", sa.String(length=16), nullable=False),
        sa.Column("model_class", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("tenant", sa.String(length=128), nullable=False),
        sa.Column("user_id", sa.String(length=128), nullable=True),
        sa.Column("batch_id", sa.String(length=64), nullable=True),
        sa.Column("batch_line", sa.Integer(), nullable=True),
        sa.Column("custom_id", sa.Text(), nullable=True),
        sa.Column("envelope", sa.Text(), nullable=True, comment="JSON; emptied with the result"),
        sa.Column(
            "result",
            sa.Text(),
            nullable=True,
            comment="JSON of the result, from its end until it expires",
        ),
        sa.Column(
            "fence",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="number of the last claim",
        ),
        sa.Column(
            "worker", sa.String(length=128), nullable=True, comment="who holds the last claim"
        ),
        sa.Column("cancel_wanted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "retry_at_ms",
            sa.BigInteger(),
            nullable=True,
            comment="while deferred: when it goes back to its queue",
        ),
        sa.Column("submitted_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("deadline_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("started_at_ms", sa.BigInteger(), nullable=True, comment="the first claim"),
        sa.Column("finished_at_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("jobs_by_batch", "jobs", ["batch_id", "batch_line"], unique=True)
    op.create_index("jobs_by_time", "jobs", ["submitted_at_ms"], unique=False)
    op.create_index("jobs_finished", "jobs", ["batch_id", "finished_at_ms"], unique=False)
    op.create_index("jobs_open", "jobs", ["status", "id"], unique=False)
    op.create_index(
        "jobs_to_shed",
        "jobs",
        ["finished_at_ms"],
        unique=False,
        sqlite_where=sa.text("envelope IS NOT NULL"),
        postgresql_where=sa.text("envelope IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index(
        "jobs_to_shed",
        table_name="jobs",
        sqlite_where=sa.text("envelope IS NOT NULL"),
        postgresql_where=sa.text("envelope IS NOT NULL"),
    )
    op.drop_index("jobs_open", table_name="jobs")
    op.drop_index("jobs_finished", table_name="jobs")
    op.drop_index("jobs_by_time", table_name="jobs")
    op.drop_index("jobs_by_batch", table_name="jobs")
    op.drop_table("jobs")
    op.drop_index("batches_by_output", table_name="batches")
    op.drop_table("batches")
    op.drop_index("audit_by_time", table_name="audit")
    op.drop_index("audit_by_batch", table_name="audit")
    op.drop_table("audit")
    op.drop_table("attempts")
