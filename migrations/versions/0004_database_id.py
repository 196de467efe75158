"""The id of the database, by which processes know that they share one."""

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


def downgrade() -> None:
    op.drop_table("database_id")
