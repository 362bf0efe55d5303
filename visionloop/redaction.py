"""Keeps passwords and tokens out of configurations, messages, tracebacks and logs."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from visionloop import environment
from visionloop.progress import log

HIDDEN = "***"

# `scheme://user:password@host`. What is hidden may be too much (a path with an @ behind a port), so
# the second expression, which refuses a configuration, is the narrower one.
_IN_ADDRESS = re.compile(r"(://[^:/@\s]*):[^\s'\"]*@")
_PASSWORD = re.compile(r"://[^:/@\s]*:[^@/\s]+@|^postgresql[^:]*://[^:/@\s]*:[^@\s]+@")
_IN_QUERY = re.compile(
    r"([?&][\w.-]*(?:password|passwd|pwd|token|secret|credential|api_?key)=)[^&\s'\"]+", re.I
)
# A secret shorter than this would blank out ordinary words.
_SHORTEST = 4


def redacted(text: str) -> str:
    """Return a text that is fit to be told: what is secret in it is replaced by ``***``.

    Hidden are the secrets that this process was given (see `visionloop.environment.secrets`), and
    what stands in an address as a password or token, whoever's it is.
    """
    for secret in environment.secrets():
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, HIDDEN)
    text = _IN_ADDRESS.sub(rf"\1:{HIDDEN}@", text)
    return _IN_QUERY.sub(rf"\1{HIDDEN}", text)


def holds_secret(address: str) -> bool:
    """Return whether an address holds a password or token."""
    return bool(_PASSWORD.search(address) or _IN_QUERY.search(address))


def fields_with_secrets(data: Any, path: str = "") -> Iterator[str]:
    """Yield the dotted path of every value that is an address with a password or token in it.

    Args:
        data: What YAML or JSON gave.
        path: Path of that data.
    """
    if isinstance(data, str):
        if "://" in data and holds_secret(data):
            yield path
    elif isinstance(data, Mapping):
        for name, value in data.items():
            yield from fields_with_secrets(value, f"{path}.{name}" if path else str(name))
    elif isinstance(data, (list, tuple)):
        for value in data:
            yield from fields_with_secrets(value, path)


def traceback_of(error: BaseException) -> str:
    """Return an exception's traceback, fit to be told."""
    return redacted("".join(traceback.format_exception(error)))


def hide_in_tracebacks() -> None:
    """Let this process print an exception that nobody catches without what is secret in it."""

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        told = redacted("".join(traceback.format_exception(kind, error, trace)))
        if environment.json_logs():
            log(redacted(f"{kind.__name__}: {error}"), level="error", traceback=told)
        else:
            print(told, end="", file=sys.stderr, flush=True)

    sys.excepthook = tell
