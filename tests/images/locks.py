"""Reads the locks of the images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Locked:
    """One entry of a lock.

    Attributes:
        name: The package, as indexes write it.
        version: Its one version.
        hashes: Digests of the files that may be installed.
        requirement: The whole entry, with its marker.
    """

    name: str
    version: Version
    hashes: tuple[str, ...]
    requirement: Requirement

    def holds_in(self, environment: dict[str, str]) -> bool:
        """Whether the entry is installed under these markers."""
        marker = self.requirement.marker
        return marker is None or marker.evaluate(environment)


def read_lock(name: str) -> list[Locked]:
    """Return the entries of ``requirements/NAME.txt``.

    Raises:
        ValueError: A line is no package with one version.
    """
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    bare = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found = []
    for line in bare.replace("\\\n", " ").splitlines():
        if line.strip():
            named, *hashes = line.split("--hash=")
            requirement = Requirement(named)
            (pinned,) = requirement.specifier
            if pinned.operator != "==":
                raise ValueError(f"{name}.txt: {named} names no single version")
            found.append(
                Locked(
                    canonicalize_name(requirement.name),
                    Version(pinned.version),
                    tuple(digest.strip() for digest in hashes),
                    requirement,
                )
            )
    return found


def environment_of(python: str) -> dict[str, str]:
    """Return the markers of a Python on Linux, for example of ``3.12``."""
    return {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.9",
        "python_version": python,
        "sys_platform": "linux",
    }
