"""Write the locks beside this file: each wheel that the image installs, with its version and hash.

    .venv/bin/python deploy/lock.py

The versions are those of the environment that runs this script, so the image ships what was tested.
Run it with the image's Python version. The locks hold the Linux wheels of both architectures.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MACHINES = ("x86_64", "aarch64")
GLIBC_MINORS = range(36, 16, -1)  # Debian 12 has glibc 2.36
LEGACY = ("manylinux2014", "manylinux2010", "manylinux1", "linux")


def installed_versions() -> str:
    """Return each package of this environment with its version, as constraints for pip."""
    own = {"headgate", "pip", "setuptools"}
    found = {dist.name: dist.version for dist in distributions() if dist.name not in own}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items()))


def chosen(requirements: list[str], machine: str, constraints: Path) -> dict[str, tuple[str, str]]:
    """Return the version and the wheel's hash of each package that pip would install there."""
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in GLIBC_MINORS]
    platforms += [f"{name}_{machine}" for name in LEGACY]
    argv = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    argv += ["--dry-run", "--ignore-installed", "--only-binary=:all:", "--report", "-"]
    argv += ["--target", str(constraints.parent / "none"), "--constraint", str(constraints)]
    argv += [word for name in platforms for word in ("--platform", name)]
    answer = subprocess.run([*argv, *requirements], check=True, capture_output=True, text=True)  # noqa: S603
    report: dict[str, Any] = json.loads(answer.stdout)
    return {
        package["metadata"]["name"].lower().replace("_", "-"): (
            package["metadata"]["version"],
            package["download_info"]["archive_info"]["hashes"]["sha256"],
        )
        for package in report["install"]
    }


def lock(requirements: list[str], constraints: Path) -> str:
    """Return the text of a lock that holds for every machine."""
    by_machine = [chosen(requirements, machine, constraints) for machine in MACHINES]
    lines = [
        f"# By deploy/lock.py, for Python {sys.version_info.major}.{sys.version_info.minor}, "
        f"Linux on {', '.join(MACHINES)}. Not to be edited by hand."
    ]
    for name in sorted(set().union(*by_machine)):
        found = [packages[name] for packages in by_machine if name in packages]
        [version] = {version for version, _ in found}
        lines.append(f"{name}=={version} \\")
        lines.append(" \\\n".join(f"    --hash=sha256:{h}" for h in sorted({h for _, h in found})))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write both locks."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text(installed_versions())
        for name, requirements in (
            ("requirements.lock", project["project"]["dependencies"]),
            ("build.lock", project["build-system"]["requires"]),
        ):
            (HERE / name).write_text(lock(requirements, constraints))


if __name__ == "__main__":
    main()
