"""The id of the database; callbacks that are to be sent; jobs by their metadata."""

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
    op.create_table(
        "job_metadata",
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column(
            "value",
            sa.String(length=256),
            nullable=False,
            comment="a text, a number, true or false",
        ),
        sa.Column("job_id", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("key", "value", "job_id"),
    )
    op.create_index("job_metadata_by_job", "job_metadata", ["job_id"])


def downgrade() -> None:
    op.drop_index("job_metadata_by_job", table_name="job_metadata")
    op.drop_table("job_metadata")
    op.drop_index("callbacks_due", table_name="callbacks")
    op.drop_table("callbacks")
    op.drop_table("database_id")
