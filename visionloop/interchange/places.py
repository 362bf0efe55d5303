"""Where the files of a set lie, and which image a name in it means."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import orjson

from visionloop.errors import InputError
from visionloop.interchange.records import Problems
from visionloop.lake.storage import FileInfo, StorageError, join, normalise, open_storage

IMAGES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".webp",
        ".jp2",
        ".j2k",
        ".avif",
        ".ppm",
        ".pgm",
    ]
)
# What an export leaves beside its files, see `visionloop.interchange.target`.
SUMMARY = "visionloop-export.json"
# Bytes of a file that tell an image's size: a JPEG's thumbnail and profile lie before it.
_HEADER = 256 << 10


class Folder:
    """The files of a set, by their paths below its root.

    Memory grows with the number of files, by about 250 bytes each.

    Args:
        uri: Its root.

    Raises:
        InputError: There is nothing.
        StorageError: It may not be listed.
    """

    def __init__(self, uri: str) -> None:
        self.root = normalise(uri)
        self.files: dict[str, FileInfo] = {}
        storage = open_storage(self.root)
        if not storage.exists(self.root):
            raise InputError(
                "there is no such file or folder", where=uri, remedy="Check the path or URI"
            )
        start = len(self.root.rstrip("/")) + 1
        quoted = self.root.startswith("file://")
        for info in storage.list(self.root):
            path = info.uri[start:]
            self.files[unquote(path) if quoted else path] = info

    def named(self, *endings: str) -> list[str]:
        """Return the paths with one of some endings, in order; an export's summary is none."""
        return [
            path
            for path in self.files
            if path.lower().endswith(endings) and path.rpartition("/")[2] != SUMMARY
        ]

    def images(self, *, whole: bool = True) -> Images:
        """Return the images among the files; `whole`: all of them belong to the set."""
        return Images(self, whole)

    def uri(self, path: str) -> str:
        """Return the URI of a file."""
        return self.files[path].uri

    def text(self, path: str) -> str:
        """Return a text file's content.

        Raises:
            InputError: It is not UTF-8 text.
            StorageError: It cannot be read.
        """
        return read_text(self.uri(path))


class Images:
    """Finds images by the names that annotations give them.

    Args:
        folder: The files.
        whole: Whether images that nothing speaks of belong to the set: beside one file of several
            lie those of the others.
    """

    def __init__(self, folder: Folder, whole: bool) -> None:
        self._folder, self._whole = folder, whole
        self._by_name: dict[str, list[str]] = {}
        self.used: set[str] = set()
        for path in folder.files:
            if suffix(path) in IMAGES and not _is_hidden(path):
                self._by_name.setdefault(path.rpartition("/")[2], []).append(path)

    def find(self, name: str, *, hints: tuple[str, ...] = (), loose: bool = False) -> str:
        """Return the path of the image that a name means, empty where none or several can be meant.

        Args:
            name: A path, relative to the set, to one of its folders, or to somebody else's disk.
            hints: Folders to look in first.
            loose: Whether leading folders of the name may be unknown here.
        """
        wanted = name.replace("\\", "/").strip("/").removeprefix("./")
        last = wanted.rpartition("/")[2]
        candidates = self._by_name.get(last, [])
        for hint in hints:
            path = f"{hint}/{wanted}" if hint else wanted
            if path in candidates:
                return path
        while True:
            found = [p for p in candidates if p == wanted or p.endswith("/" + wanted)]
            inside = [p for p in found if any(p.startswith(f"{hint}/") for hint in hints)]
            if len(inside) == 1 or len(found) == 1:
                return inside[0] if len(inside) == 1 else found[0]
            if wanted in found:
                return wanted
            if found or not loose or "/" not in wanted:
                return ""
            wanted = wanted.partition("/")[2]

    def of_stem(self, stem: str, folder: str = "") -> str:
        """Return the image whose path without its ending is given, empty where there is none."""
        return self._stems.get(f"{folder}/{stem}" if folder else stem, "")

    @property
    def _stems(self) -> dict[str, str]:
        if not hasattr(self, "_by_stem"):
            self._by_stem = {stem_of(path): path for path in self.paths()}
        return self._by_stem

    def paths(self) -> list[str]:
        """Return the paths of all images."""
        return [path for paths in self._by_name.values() for path in paths]

    def uri(self, path: str) -> str:
        """Return an image's URI, empty for an empty path, and note that it was spoken of."""
        if not path:
            return ""
        self.used.add(path)
        return self._folder.uri(path)

    def unused(self) -> Iterator[str]:
        """Yield the images of the set that nothing spoke of, in order."""
        if self._whole:
            yield from sorted(path for path in self.paths() if path not in self.used)


def suffix(path: str) -> str:
    """Return a path's ending with its dot, in lower case."""
    name = path.rpartition("/")[2]
    stem, dot, ending = name.rpartition(".")
    return f".{ending.lower()}" if dot and stem else ""


def stem_of(path: str) -> str:
    """Return a path without its ending."""
    ending = suffix(path)
    return path[: -len(ending)] if ending else path


def file_and_root(uri: str, *endings: str) -> tuple[str, str]:
    """Return the path of the one file that a URI names, if it does, and the root of its set.

    Args:
        uri: A file or a folder.
        endings: What the names of such files end with.
    """
    place = normalise(uri)
    if place.lower().endswith(endings):
        parent, _, name = place.rpartition("/")
        above, _, folder = parent.rpartition("/")
        if folder.lower() == "annotations":
            # The images lie beside this folder, not in it.
            parent, name = above, f"{folder}/{name}"
        return (unquote(name) if place.startswith("file://") else name), parent
    return "", place


def read_text(uri: str) -> str:
    """Return a text file's content.

    Raises:
        InputError: It is not UTF-8 text.
        StorageError: It cannot be read.
    """
    try:
        return open_storage(uri).read(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"not UTF-8 text: {error.reason} at byte {error.start}",
            where=uri,
            remedy="Save the file as UTF-8",
        ) from None


def readable_text(uri: str, file: str, problems: Problems) -> str | None:
    """Return the content of one text file of many, None where it is no text.

    Args:
        uri: Where it lies.
        file: Its path in the set.
        problems: Receives a ``bad_text``.

    Raises:
        StorageError: It cannot be read.
    """
    try:
        return read_text(uri)
    except InputError as error:
        problems.add("bad_text", file, "", error.what)
        return None


def read_json(uri: str) -> Any:
    """Return what a JSON file holds; NaN, which some tools write, is taken.

    Raises:
        InputError: It is not JSON.
        StorageError: It cannot be read.
    """
    data = open_storage(uri).read(uri)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"not JSON: {error}", where=uri, remedy="Export it from its tool once more"
        ) from None


def image_size(uri: str) -> tuple[int, int]:
    """Return an image's width and height as it is shown, (0, 0) where its header does not tell."""
    from visionloop.lake.storage import local_path

    if not uri:
        return 0, 0
    if uri.startswith("file://") and local_path(uri).is_file():
        with local_path(uri).open("rb") as file:
            found = size_of(file.read(_HEADER))
        if found != (0, 0):
            return found
    try:
        return size_of(open_storage(uri).read(uri))
    except StorageError:
        return 0, 0


def size_of(data: bytes) -> tuple[int, int]:
    """Return the size that an image's first bytes tell; see `image_size`."""
    from PIL import ExifTags, Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            turned = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        return (height, width) if turned else (width, height)
    except Exception:  # Pillow's readers raise whatever their parsers do
        return 0, 0


def below(root: str, path: str) -> str:
    """Return the URI of a path below a root."""
    return join(root, *path.split("/"))


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))
