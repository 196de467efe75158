"""Tiers of callers, for HEADGATE_TIERS=table."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "callers",
        sa.Column("tenant", sa.String(length=128), nullable=False),
        sa.Column(
            "user_id",
            sa.String(length=128),
            server_default=sa.text("''"),
            nullable=False,
            comment="empty: every user of the tenant without a row of its own",
        ),
        sa.Column("tier", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "user_id"),
    )


def downgrade() -> None:
    op.drop_table("callers")
