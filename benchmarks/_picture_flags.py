"""Which defects the flags find, and what else they flag, beside CleanVision on the same files."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from PIL import Image

from benchmarks._photographs import DEFECTS, encoded, photographs
from benchmarks._rows import Row
from visionloop.errors import UnreadableMedia
from visionloop.lake.schemas import arrow_schema
from visionloop.media.decode import decode_rgb
from visionloop.media.inspect import Inspection, inspect
from visionloop.media.likeness import grey
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.samples import check_samples

# What CleanVision calls each kind; it has none for a picture that lacks contrast, and finds most of
# them as such without information.
CLEANVISION = {
    "blurred": "blurry",
    "dark": "dark",
    "bright": "light",
    "low_contrast": "low_information",
    "low_information": "low_information",
    "odd_aspect": "odd_aspect_ratio",
    "grey": "grayscale",
    "near_duplicate": "near_duplicates",
    "pixel_duplicate": "near_duplicates",
}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


_COLUMNS = [
    name for name in arrow_schema("samples").names if name in Inspection.__dataclass_fields__
]


@dataclass(frozen=True)
class Collection:
    """Files of one source, a few of them spoilt.

    Attributes:
        files: Encoded bytes by name.
        spoilt: Name of the defect of each spoilt file.
    """

    files: dict[str, bytes]
    spoilt: dict[str, str]


def cleanvision_issues(folder: str) -> Mapping[str, set[str]]:
    """Return the names of the files that CleanVision flags, by its name of the issue."""
    from cleanvision import Imagelab

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        lab = Imagelab(data_path=folder)
        lab.find_issues(n_jobs=1, verbose=False)
    issues = lab.issues
    return {
        column[3:-6]: {Path(name).name for name in issues.index[issues[column]]}
        for column in issues.columns
        if column.startswith("is_")
    }


def collection(kind: str, number: int, each: int, seed: int) -> Collection:
    """Spoil some of a kind's photographs: so many with each defect, and as many copies of each."""
    rng = np.random.Generator(np.random.PCG64(seed))
    pictures = photographs(kind, number)
    order = rng.permutation(len(pictures)).tolist()
    files, spoilt = {}, {}
    for defect, (_, spoil) in DEFECTS.items():
        for _ in range(each):
            name = f"{order.pop():04d}.jpg"
            picture = spoil(pictures[int(name[:4])], rng)
            files[name], spoilt[name] = encoded(picture, int(rng.integers(75, 96))), defect
    for place in order:
        files[f"{place:04d}.jpg"] = encoded(pictures[place], int(rng.integers(75, 96)))
    # Copies come last by name, so that the original is the one that was there.
    sound = sorted(set(files) - set(spoilt))
    for number_of, name in enumerate(rng.choice(sound, 3 * each, replace=False).tolist()):
        picture = pictures[int(name[:4])]
        copy = f"copy-{name}"
        if number_of % 3 == 0:
            small = picture.resize((picture.width * 3 // 4, picture.height * 3 // 4))
            files[copy], spoilt[copy] = encoded(small, 70), "resized copy"
        elif number_of % 3 == 1:
            files[copy], spoilt[copy] = encoded(picture, 55), "re-encoded copy"
        else:
            files[copy], spoilt[copy] = _other_header(files[name]), "copy with another header"
    return Collection(files, spoilt)


EXPECTED = {defect: kind for defect, (kind, _) in DEFECTS.items()} | {
    "resized copy": "near_duplicate",
    "re-encoded copy": "near_duplicate",
    "copy with another header": "pixel_duplicate",
}


def our_flags(files: Mapping[str, bytes]) -> dict[str, set[str]]:
    """Return the names of the files that the loop's monitor flags with its defaults, by kind."""
    rows, names, thumbnails = [], {}, {}
    for name, data in files.items():
        seen = inspect(data)
        thumbnails[seen.sample_id] = seen.thumbnail
        told = {field: getattr(seen, field) for field in _COLUMNS}
        rows.append({**told, "uri": name, "source": "benchmark", "source_uri": name})
        names[seen.sample_id] = name
    samples = pa.Table.from_pylist(rows, schema=arrow_schema("samples"))
    found = check_samples(
        pa.Table.from_pylist([], schema=arrow_schema("files")),
        samples,
        None,
        pa.Table.from_pylist([], schema=arrow_schema("checks")),
        MonitoringConfig(),
        now=NOW,
        read_greys=lambda places: {one: grey(thumbnails[one]) for one in places},
        read_pixels=lambda uris: [(uri, decode_rgb(files[uri])) for uri in uris],
    )
    flagged: dict[str, set[str]] = {}
    for flag in found.flags.to_pylist():
        flagged.setdefault(flag["kind"], set()).add(names[flag["subject"]])
    return flagged


def flag_rows(*, quick: bool) -> list[Row]:
    """Spoil real photographs; return precision and recall of each flag beside CleanVision's."""
    each, seeds = (4, [0]) if quick else (12, [0, 1, 2])
    number = 150 if quick else 400
    ours: dict[str, _Counts] = {}
    theirs: dict[str, _Counts] = {}
    for seed in seeds:
        for kind in ("clothing", "bccd"):
            made = collection(kind, number, each, seed)
            _count(ours, made, our_flags(made.files), {k: k for k in CLEANVISION})
            with TemporaryDirectory() as folder:
                for name, data in made.files.items():
                    (Path(folder) / name).write_bytes(data)
                _count(theirs, made, cleanvision_issues(folder), CLEANVISION)
    peer = f"CleanVision {version('cleanvision')}"
    rows = []
    for kind in dict.fromkeys(EXPECTED.values()):
        mine, other = ours[kind], theirs[kind]
        case = f"{kind}: precision, {mine.flagged} flagged"
        rows.append(Row(case, mine.precision, peer, other.precision, "", None, False))
        for defect in mine.found:
            case = f"{kind}: recall of {defect}, {mine.planted[defect]} planted"
            rows.append(Row(case, mine.recall(defect), peer, other.recall(defect), "", None, False))
    return rows


def damage_rows(*, quick: bool) -> list[Row]:
    """Cut and damage files, and return the shares that are found."""
    rng = np.random.Generator(np.random.PCG64(0))
    pictures = photographs("clothing", 8 if quick else 40)
    kinds = {
        "cut anywhere behind the header": lambda d: d[
            : int(rng.integers(len(d) // 20, len(d) - 1))
        ],
        "second half lost to zeros": lambda d: d[: len(d) // 2].ljust(len(d), b"\0"),
        "512 bytes lost to zeros": lambda d: _patched(d, bytes(512), rng),
        "512 bytes of another file": lambda d: _patched(d, rng.bytes(512), rng),
    }
    rows = []
    for name, damage in kinds.items():
        for progressive in (False, True):
            ours = pillow = tried = 0
            for picture in pictures:
                data = encoded(picture, 90, progressive=progressive)
                for _ in range(5):
                    damaged = damage(data)
                    tried += 1
                    ours += not _reads(damaged)
                    pillow += not _opens(damaged)
            case = f"unreadable: {name}, {'progressive' if progressive else 'baseline'}, recall"
            peer = f"Pillow {version('pillow')}, load()"
            rows.append(Row(case, ours / tried, peer, pillow / tried, "", None, False))
    return rows


@dataclass
class _Counts:
    flagged: int
    right: int
    planted: dict[str, int]
    found: dict[str, int]

    @property
    def precision(self) -> float:
        return self.right / self.flagged if self.flagged else 0.0

    def recall(self, defect: str) -> float:
        return self.found[defect] / self.planted[defect]


def _count(
    counts: dict[str, _Counts],
    made: Collection,
    flagged: Mapping[str, set[str]],
    names: Mapping[str, str],
) -> None:
    """Add a collection's flags; a flag that names another defect of a file is no false one."""
    for kind in dict.fromkeys(EXPECTED.values()):
        mine = counts.setdefault(kind, _Counts(0, 0, {}, {}))
        named = flagged.get(names[kind], set())
        planted = {name: defect for name, defect in made.spoilt.items() if EXPECTED[defect] == kind}
        of_kind = {
            name for name, defect in made.spoilt.items() if names[EXPECTED[defect]] == names[kind]
        }
        mine.flagged += len(named & of_kind) + len(named - set(made.spoilt))
        mine.right += len(named & of_kind)
        for name, defect in planted.items():
            mine.planted[defect] = mine.planted.get(defect, 0) + 1
            mine.found[defect] = mine.found.get(defect, 0) + (name in named)


def _other_header(data: bytes) -> bytes:
    """Return the same picture with a comment: other bytes, equal pixels."""
    comment = hashlib.sha256(data).digest()
    return data[:2] + b"\xff\xfe" + (2 + len(comment)).to_bytes(2, "big") + comment + data[2:]


def _patched(data: bytes, patch: bytes, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(len(data) // 10, len(data) - len(patch) - 2))
    return data[:place] + patch + data[place + len(patch) :]


def _reads(data: bytes) -> bool:
    try:
        inspect(data)
    except UnreadableMedia:
        return False
    return True


def _opens(data: bytes) -> bool:
    try:
        Image.open(io.BytesIO(data)).load()
    except Exception:  # whatever Pillow raises
        return False
    return True
