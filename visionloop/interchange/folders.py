"""One folder a class, perhaps below one a split: ``train/cat/1.jpg``.

The uppermost folders are splits where all of them have names of splits.
"""

from __future__ import annotations

from collections.abc import Iterator

from visionloop.errors import InputError
from visionloop.interchange.formats import ReadOptions, WriteOptions
from visionloop.interchange.places import Folder
from visionloop.interchange.records import Annotated, Problems, Reading
from visionloop.interchange.target import Target
from visionloop.interchange.writing import Classes, Content, Holds

HOLDS = Holds(
    labels=1, split=True, unannotated=False, apart=("split", "label"), media=("copy", "link")
)
SPLITS = frozenset(
    ["train", "val", "valid", "validation", "test", "holdout", "reserved", "dev", "eval"]
)


def read(uri: str, problems: Problems, options: ReadOptions) -> Reading:
    """Read folders of classes; see `visionloop.interchange.formats.read_set`.

    Raises:
        InputError: There is no set of this format.
        StorageError: It cannot be read.
    """
    folder = Folder(options.media or uri)
    images = folder.images()
    paths = sorted(images.paths())
    if not any("/" in path for path in paths):
        raise InputError(
            "there are no folders of classes here",
            where=uri,
            remedy="Name the folder that has one folder a class",
        )
    deep = [path for path in paths if "/" in path]
    split_first = all(path.partition("/")[0] in SPLITS for path in deep) and any(
        path.count("/") > 1 for path in deep
    )
    reading = Reading("folders", folder.root, problems, iter(()), [])

    def records() -> Iterator[Annotated]:
        for path in paths:
            split, rest = "", path
            if split_first and "/" in path:
                split, _, rest = path.partition("/")
            label, _, file = rest.partition("/")
            if not file:
                problems.add("no_annotation", path, "", "it lies in no folder of a class")
                yield Annotated(rest, images.uri(path), split=split)
                continue
            if label not in reading.classes:
                reading.classes.append(label)
            yield Annotated(file, images.uri(path), labels=(label,), split=split)

    reading.records = records()
    return reading


class Writer:
    """Writes ``[<split>/]<class>/<image>``."""

    def __init__(self, target: Target, options: WriteOptions, problems: Problems) -> None:
        self._target = target
        self.classes = Classes(list(options.classes))
        self._with_splits: bool | None = None

    def add(self, record: Annotated, content: Content) -> None:
        """Write one record.

        Raises:
            InputError: A class cannot name a folder, or some records have a split and others none.
        """
        label, split = record.labels[0], record.split
        if "/" in label or label in (".", "..") or label.startswith("."):
            raise InputError(
                f"the class {label!r} cannot name a folder",
                remedy="Export to another format, or rename the class",
            )
        if self._with_splits is None:
            self._with_splits = bool(split)
        if self._with_splits != bool(split) or (split and split not in SPLITS):
            raise InputError(
                f"the split {split!r} cannot be told from a class by its folder",
                where=record.file,
                remedy=f"Give every record one of {', '.join(sorted(SPLITS))}, or none any",
            )
        self.classes.place(label)
        content.put(self._target, "/".join(filter(None, (split, label, record.file))))

    def finish(self) -> None:
        """Write nothing more."""
