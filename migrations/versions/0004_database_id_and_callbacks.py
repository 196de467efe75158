"""The id of the database, by which processes know that they share one; callbacks to be sent."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "database_id",
        sa.Column("one", sa.Integer(), autoincrement=False, nullable=False, comment="always 1"),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.PrimaryKeyConstraint("one"),
    )
    op.create_table(
        "callbacks",
        sa.Column("job_id", sa.String(length=128), nullable=False),
        sa.Column(
            "due_at_ms",
            sa.BigInteger(),
            nullable=False,
            comment="from then on maintenance sends them",
        ),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_index("callbacks_due", "callbacks", ["due_at_ms"])


def downgrade() -> None:
    op.drop_index("callbacks_due", table_name="callbacks")
    op.drop_table("callbacks")
    op.drop_table("database_id")
