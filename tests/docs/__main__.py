"""Write the pages of `docs/reference/` anew: `python -m tests.docs`.

With `--check` nothing is written; stale pages are named and the exit code is 1.
"""

from __future__ import annotations

import sys

from tests import ROOT
from tests.docs.reference import PAGES

FOLDER = ROOT / "docs" / "reference"


def stale() -> dict[str, str]:
    """Return the text of each page that differs from its file, by file name."""
    made = {name: page() for name, page in PAGES.items()}
    return {name: text for name, text in made.items() if _read(name) != text}


def _read(name: str) -> str:
    path = FOLDER / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


def main() -> int:
    """Write the stale pages, or only name them; return the exit code."""
    check = "--check" in sys.argv[1:]
    found = stale()
    for name, text in found.items():
        if not check:
            FOLDER.mkdir(parents=True, exist_ok=True)
            (FOLDER / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"docs/reference/{name}: {'stale' if check else 'written'}\n")
    if not found:
        sys.stdout.write("docs/reference: up to date\n")
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main())
