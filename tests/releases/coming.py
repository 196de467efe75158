"""A made-up next release: a copy of this tree with what a release may add, and no more.

Its envelopes, results, cache entries and rows have fields that today's code does not know, its
tables are one revision ahead. So today's code plays the release before in the rolling upgrades.
"""

import re
import shutil
from pathlib import Path

from headgate.shared.database import migrate
from headgate.shared.job.envelope import NEWEST_VERSION
from tests import ROOT

REVISION = f"{int(migrate.NEWEST) + 1:04d}"

MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("mood", sa.String(length=16), nullable=True))
    op.add_column("jobs", sa.Column("weight", sa.Integer(), server_default="1", nullable=False))
    op.create_table("moods", sa.Column("name", sa.String(length=16), primary_key=True))
    op.create_index("jobs_by_mood", "jobs", ["mood"])


def downgrade() -> None:
    op.drop_index("jobs_by_mood", "jobs")
    op.drop_table("moods")
    op.drop_column("jobs", "weight")
    op.drop_column("jobs", "mood")
"""

#: File, how a line in it begins, and what the next release puts after that line.
ADDED = [
    ("shared/database/tables.py", '    Column("deadline_at_ms", BigInteger, nullable=False),',
     '    Column("mood", String(16)),\n'
     '    Column("weight", Integer, nullable=False, server_default="1"),'),
    ("shared/database/rows.py", '        "deadline_at_ms": envelope.waits_until_ms,',
     '        "mood": envelope.mood,'),
    ("shared/job/request.py", "    metadata: dict[str, Any] = Field(default_factory=dict)",
     "    colour: str | None = None"),
    ("shared/job/request.py", '    mode: Literal["off", "exact"] | None = None',
     "    scope: str | None = None"),
    ("shared/job/envelope.py", "    batch_line: ", '    mood: str = "calm"'),
    ("shared/job/result.py", "    reasoning_tokens: int = 0", "    audio_tokens: int = 0"),
    ("shared/job/result.py", "    retry_at: str | None = None", '    mood: str = "calm"'),
    ("shared/job/result.py", "    request_id: str | None = None", '    mood: str = "calm"'),
    ("shared/job/envelope.py", '        fields = {**_given(self), "v": version, ',
     '        fields["mood"] = self.mood'),
]  # fmt: skip


def make_next(folder: Path, *, envelope_version: int = 1, migration: str = MIGRATION) -> Path:
    """The folder holds the next release; put it into PYTHONPATH to run it."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "headgate", folder / "headgate", ignore=ignored)  # follows the links
    folder = folder / "headgate"
    for file, line, added in ADDED:
        _change(folder / file, rf"(?<=\n){re.escape(line)}[^\n]*\n", rf"\g<0>{added}\n")
    _change(folder / "shared/database/migrate.py", r'NEWEST = "\d+"', f'NEWEST = "{REVISION}"')
    _change(
        folder / "shared/job/envelope.py",
        r"ENVELOPE_VERSION = 1\n",
        f"ENVELOPE_VERSION = {envelope_version}\n",
    )
    _change(
        folder / "shared/job/envelope.py",
        rf"NEWEST_VERSION = {NEWEST_VERSION}\n",
        f"NEWEST_VERSION = {max(NEWEST_VERSION, envelope_version)}\n",
    )
    _change(
        folder / "shared/job/envelope.py",
        re.escape("range(ENVELOPE_VERSION, NEWEST_VERSION + 1)"),
        "range(1, NEWEST_VERSION + 1)",
    )
    text = migration.format(revision=REVISION, before=migrate.NEWEST)
    (folder / "migrations" / "versions" / f"{REVISION}_next.py").write_text(text)
    return folder.parent


def _change(path: Path, pattern: str, new: str) -> None:
    text, count = re.subn(pattern, new, path.read_text(), count=1)
    assert count == 1, f"{path.name} has no {pattern!r}: tell the made-up release where it is now"
    path.write_text(text)
