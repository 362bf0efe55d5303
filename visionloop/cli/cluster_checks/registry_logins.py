"""Logins to image registries that this machine holds: Docker's own, and gcloud's for Google's."""

from __future__ import annotations

import base64
import binascii
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from visionloop import environment

_SECONDS = 20.0
_GOOGLE = re.compile(r"(.+\.)?(pkg\.dev|gcr\.io)")
_HELPER = re.compile(r"[A-Za-z0-9._-]+")
# What Docker's configuration calls its own hub.
_HUB = {"registry-1.docker.io": "https://index.docker.io/v1/"}


def login(host: str) -> tuple[str, str] | None:
    """Return user and password for a registry; None where this machine has none.

    Args:
        host: For example ``ghcr.io`` or ``europe-docker.pkg.dev``.
    """
    config = _docker_config()
    name = _HUB.get(host, host)
    helpers = config.get("credHelpers") or {}
    helper = helpers.get(name) or config.get("credsStore")
    if helper and (found := _from_helper(str(helper), name)):
        return found
    auths = config.get("auths") or {}
    entry = auths.get(name) or auths.get(f"https://{name}") or {}
    try:
        user, colon, password = base64.b64decode(entry.get("auth") or "").decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        user, colon, password = "", "", ""
    if colon:
        return user, password
    return _from_gcloud() if _GOOGLE.fullmatch(host) else None


def _docker_config() -> dict[str, Any]:
    try:
        path = Path(environment.docker_config()).expanduser() / "config.json"
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _from_helper(helper: str, name: str) -> tuple[str, str] | None:
    program = shutil.which(f"docker-credential-{helper}") if _HELPER.fullmatch(helper) else None
    told = _output([program, "get"], name) if program else ""
    try:
        found = json.loads(told or "{}")
    except ValueError:
        return None
    secret = found.get("Secret")
    return (str(found.get("Username", "")), str(secret)) if secret else None


def _from_gcloud() -> tuple[str, str] | None:
    program = shutil.which("gcloud")
    token = _output([program, "auth", "print-access-token"]) if program else ""
    return ("oauth2accesstoken", token) if token else None


def _output(command: list[str], given: str = "") -> str:
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
