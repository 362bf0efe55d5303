"""URIs of files, of objects and of members of tars, in the form that the lake stores."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

from visionloop.errors import InputError

# Between the URI of a tar and the name of what it holds. A file's path has its own `!` quoted.
INSIDE = "!/"
_MEMBER = re.compile(r"(?is)^(.*?\.(?:tar|tar\.gz|tgz))!/(.+)$")


def scheme_of(uri: str) -> str:
    """Return ``file`` or ``gs``.

    Raises:
        InputError: The URI has another scheme.
    """
    scheme = urlsplit(uri).scheme if "://" in uri else "file"
    if scheme not in ("file", "gs"):
        raise InputError(
            f"storage scheme {scheme!r} is not supported",
            where=uri,
            remedy="Use a path, file://… or gs://…",
        )
    return scheme


def normalise(uri: str | Path) -> str:
    """Return a URI in the one form that the lake stores: ``file:///absolute/path`` or ``gs://…``.

    Raises:
        InputError: The URI is empty, or of a scheme that no storage has.
    """
    text = str(uri)
    if not text:
        raise InputError("an empty URI", remedy="Give a path, file://… or gs://…")
    if is_member(text):
        container, name = split_member(text)
        return normalise(container) + INSIDE + name
    if scheme_of(text) == "gs":
        return text.rstrip("/")
    return uri_of(local_path(text))


def uri_of(path: str | Path) -> str:
    """Return the URI of an absolute path as it is, also below a folder called ``x.tar!``."""
    return "file://" + quote(os.fsencode(path))


def local_path(uri: str | Path) -> Path:
    """Return the absolute path of a ``file://`` URI or a plain path.

    Raises:
        InputError: The URI names a host.
    """
    text = str(uri)
    if text.startswith("file://"):
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise InputError(
                f"file URI names a host, {parts.netloc!r}",
                where=text,
                remedy="Write file:///absolute/path with three slashes",
            )
        # By bytes: a name that is no UTF-8 leads back to its file, too.
        text = os.fsdecode(unquote_to_bytes(text[len("file://") + len(parts.netloc) :]))
    return Path(os.path.abspath(os.path.expanduser(text)))


def is_member(uri: str) -> bool:
    """Return whether a URI names a file inside a tar: ``<tar>!/<member>``."""
    return INSIDE in uri and _MEMBER.match(uri) is not None


def split_member(uri: str) -> tuple[str, str]:
    """Return the URI of the tar and the name of its member, as a member's URI has them.

    Raises:
        InputError: It is no URI of a file inside a tar.
    """
    found = _MEMBER.match(uri)
    if found is None:
        raise InputError("no URI of a file inside a tar", where=uri, remedy="Write …/x.tar!/name")
    return found[1], found[2]


def storage_of(uri: str) -> str:
    """Return what reads a URI, as a key: URIs of one key can be read by one storage."""
    return "archive" if is_member(uri) else scheme_of(uri)


def join(root: str, *parts: str) -> str:
    """Append path segments to a URI, quoting them as the scheme needs."""
    if scheme_of(root) == "file":
        return normalise(str(local_path(root).joinpath(*parts)))
    return "/".join([root.rstrip("/"), *(part.strip("/") for part in parts)])


def name_of(uri: str) -> str:
    """Return the last segment of a URI, unquoted."""
    last = uri.rstrip("/").rsplit("/", 1)[-1]
    return unquote(last) if uri.startswith("file://") else last


def relative(root: str, uri: str) -> str:
    """Return a URI's place under a root, unquoted and with slashes."""
    if scheme_of(root) == "file":
        return local_path(uri).relative_to(local_path(root)).as_posix()
    return uri[len(root.rstrip("/")) + 1 :]
