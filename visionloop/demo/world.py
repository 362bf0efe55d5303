"""The demo's world: scikit-learn's real digits, as four cameras would have photographed them.

The world writes PNG files with sidecar metadata into a bucket, one batch a round, and knows what it
did: the true label of every picture, and how many broken, copied, blurred and dark ones it planted.
Nothing in a file's name or metadata gives a planted one away.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from visionloop.demo.pictures import broken, load_digits, near_copy, png, render

CLASSES = tuple(str(digit) for digit in range(10))
KINDS = ("unreadable", "exact_duplicate", "near_duplicate", "blurred", "dark")

FIRST_BATCH = 900
LATER_BATCH = 200
# Never delivered: what production sees and the loop does not.
HELD_BACK = 300

_FIRST_DAY = datetime(2026, 3, 2, tzinfo=UTC)
# Share of a batch that is planted, by kind; the rest of it is sound.
_PLANTED_SHARE = {
    "unreadable": 0.012,
    "exact_duplicate": 0.012,
    "near_duplicate": 0.016,
    "blurred": 0.014,
    "dark": 0.014,
}
_LEAST_PLANTED = 4


@dataclass(frozen=True)
class Camera:
    """A camera of the demo's world.

    Attributes:
        name: Its name in the sidecars.
        places: Where it may stand.
        tint: Gain of red, green and blue.
        noise: Standard deviation of its sensor's noise, of full scale.
        share: Its share of the pictures of the first round.
    """

    name: str
    places: tuple[str, ...]
    tint: tuple[float, float, float]
    noise: float
    share: float


CAMERAS = (
    Camera("gate-north", ("entrance",), (1.0, 0.97, 0.92), 0.006, 0.35),
    Camera("gate-south", ("entrance",), (1.0, 1.0, 0.99), 0.006, 0.3),
    Camera("dock", ("warehouse",), (0.94, 0.98, 1.0), 0.014, 0.15),
    Camera("handheld", ("yard", "warehouse"), (1.0, 0.99, 0.96), 0.009, 0.2),
)
_GAIN = {"day": 1.0, "dusk": 0.88, "night": 0.74}


@dataclass(frozen=True)
class Picture:
    """An encoded picture.

    Attributes:
        data: The encoded bytes.
        label: Its true class; empty for what cannot be read.
        name: Its path below the bucket.
        sidecar: Its metadata; None where it has none.
    """

    data: bytes
    label: str
    name: str = ""
    sidecar: dict[str, Any] | None = None

    @property
    def sample_id(self) -> str:
        """SHA-256 of the bytes."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass
class _Batch:
    sound: list[Picture] = field(default_factory=list)
    planted: dict[str, list[Picture]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    @property
    def files(self) -> list[Picture]:
        return self.sound + [picture for kind in KINDS for picture in self.planted[kind]]


class World:
    """Real digits arriving in a bucket, batch by batch; the same for the same seed.

    The first batch has 900 digits, the next two 200, and each later one half of what is left, so
    that the digits last for some ten rounds; then nothing more arrives.

    Args:
        directory: Folder of the world; the bucket is ``<directory>/bucket``.
        seed: Seed of everything that is drawn.

    Attributes:
        classes: Names of the classes.
        group_key: Metadata key of what was photographed together.
    """

    def __init__(self, directory: str | Path, *, seed: int = 0) -> None:
        self.classes = list(CLASSES)
        self.group_key = "session"
        self.directory = Path(directory)
        self.seed = seed

    @property
    def bucket(self) -> Path:
        """Folder that the pictures arrive in: the loop's source."""
        return self.directory / "bucket"

    @property
    def truth(self) -> Path:
        """CSV file with the columns sample_id,label of every readable picture of all rounds."""
        return self.directory / "truth.csv"

    def deliver(self, number: int) -> int:
        """Write a round's batch into the bucket, and return how many picture files it has.

        What is there already with the same bytes is not touched, so that delivering twice is as
        delivering once.
        """
        if not self.truth.exists():
            self._write_truth()
        batch = self._batch(number)
        for picture in batch.files:
            path = self.bucket / picture.name
            _write(path, picture.data)
            if picture.sidecar is not None:
                _write(path.with_name(path.name + ".json"), _json(picture.sidecar))
        return len(batch.files)

    def planted(self, number: int) -> dict[str, int]:
        """Return how many files of each kind of fault a round's batch holds."""
        return {kind: len(found) for kind, found in self._batch(number).planted.items()}

    def delivered(self, number: int) -> list[Picture]:
        """Return the files of a round's batch."""
        return self._batch(number).files

    def traffic(self, number: int) -> list[Picture]:
        """Return what production sees after a round: pictures that the loop has not ingested.

        One half will arrive in the bucket with the next batch, with the same bytes, so that the
        confidences of the deployed model join with samples that can be selected; the other half is
        never delivered.
        """
        coming = self._batch(number + 1).sound
        rng = self._rng("traffic", number)
        never = [self._held_back[i] for i in rng.permutation(len(self._held_back))]
        half = min(len(never), max(len(coming), LATER_BATCH // 2))
        mixed = [coming[i] for i in rng.permutation(len(coming))[:half]] + never[:half]
        return [mixed[i] for i in rng.permutation(len(mixed))]

    @cached_property
    def _digits(self) -> tuple[npt.NDArray[np.float32], list[str]]:
        pixels, targets = load_digits()
        order = self._rng("order", 0).permutation(len(targets))
        images = (pixels[order] / 16.0).astype(np.float32)
        return images, [str(target) for target in targets[order]]

    @cached_property
    def _batches(self) -> list[_Batch]:
        """All batches; a copy may be of a picture of any batch so far, so they are made in turn."""
        left = len(self._digits[1]) - HELD_BACK
        batches: list[_Batch] = []
        start = 0
        before: list[Picture] = []
        size = min(FIRST_BATCH, left)
        while size:
            digits = range(start, start + size)
            batch = self._make_batch(len(batches), digits, before)
            before += batch.sound
            start += size
            left -= size
            size = min(LATER_BATCH, (left + 1) // 2)
            batches.append(batch)
        return batches

    @cached_property
    def _held_back(self) -> list[Picture]:
        n = len(self._digits[1])
        rng = self._rng("held back", 0)
        return [self._photograph(i, 0, rng) for i in range(n - HELD_BACK, n)]

    def _batch(self, number: int) -> _Batch:
        return self._batches[number] if 0 <= number < len(self._batches) else _Batch()

    def _make_batch(self, number: int, digits: Sequence[int], before: Sequence[Picture]) -> _Batch:
        rng = self._rng("batch", number)
        counts = {
            kind: min(max(_LEAST_PLANTED, round(share * len(digits))), len(digits) // 10)
            for kind, share in _PLANTED_SHARE.items()
        }
        batch = _Batch()
        faults = ["blurred"] * counts["blurred"] + ["dark"] * counts["dark"]
        for digit, fault in zip(digits, faults, strict=False):
            batch.planted[fault].append(self._photograph(digit, number, rng, fault))
        for digit in digits[len(faults) :]:
            batch.sound.append(self._photograph(digit, number, rng))
        # Mostly of what comes with the same batch: a burst; else of what came long before.
        originals = [*before, *batch.sound]
        weights = np.r_[np.full(len(before), 0.5), np.full(len(batch.sound), 1.0)]
        wanted = counts["exact_duplicate"] + counts["near_duplicate"]
        chosen = rng.choice(len(originals), wanted, replace=False, p=weights / weights.sum())
        for turn, place in enumerate(chosen):
            original = originals[place]
            kind = "exact_duplicate" if turn < counts["exact_duplicate"] else "near_duplicate"
            data = original.data
            if kind == "near_duplicate":
                data = near_copy(data, turn % 4, rng)
            batch.planted[kind].append(self._copy(original, data, number, rng))
        for turn in range(counts["unreadable"]):
            source = batch.sound[int(rng.integers(len(batch.sound)))]
            data = broken(source.data, turn % 6, rng)
            batch.planted["unreadable"].append(self._copy(source, data, number, rng, label=""))
        return batch

    def _photograph(
        self, digit: int, number: int, rng: np.random.Generator, fault: str = ""
    ) -> Picture:
        """Photograph a digit: camera, place and time are drawn, and show in the picture."""
        # From round to round the noisy dock takes a larger share: the world drifts.
        drift = 0.06 * number
        shares = np.array([c.share + drift * (c.name == "dock") for c in CAMERAS])
        camera = CAMERAS[rng.choice(len(CAMERAS), p=shares / shares.sum())]
        taken = _FIRST_DAY + timedelta(days=7 * number, seconds=float(rng.uniform(0, 7 * 86_400)))
        taken = taken.replace(microsecond=0)
        hour = taken.hour
        lighting = "day" if 7 <= hour < 18 else "dusk" if hour in (5, 6, 18, 19) else "night"
        gain = _GAIN[lighting]
        noise = camera.noise * (1.5 if lighting == "night" else 1.0)
        blur = 0.0
        if fault == "blurred":
            blur = float(rng.uniform(2.2, 3.4))
        if fault == "dark":
            gain *= float(rng.uniform(0.1, 0.28))
        images, labels = self._digits
        pixels = render(images[digit], camera.tint, gain, noise, blur, rng)
        sidecar = {
            "camera": camera.name,
            "place": camera.places[int(rng.integers(len(camera.places)))],
            "lighting": lighting,
            "captured_at": _time(taken),
            "session": _session(camera.name, taken),
            "sensor": {"iso": {"day": 100, "dusk": 400, "night": 1600}[lighting]},
        }
        data = png(Image.fromarray(pixels))
        return Picture(data, labels[digit], _name(camera.name, taken, data, rng), sidecar)

    def _copy(
        self,
        original: Picture,
        data: bytes,
        number: int,
        rng: np.random.Generator,
        *,
        label: str | None = None,
    ) -> Picture:
        """Return other bytes under the name of another moment of the same camera."""
        sidecar = dict(original.sidecar or {})
        taken = _FIRST_DAY + timedelta(days=7 * number, seconds=float(rng.uniform(0, 7 * 86_400)))
        taken = taken.replace(microsecond=0)
        camera = str(sidecar["camera"])
        sidecar |= {"captured_at": _time(taken), "session": _session(camera, taken)}
        name = _name(camera, taken, data, rng)
        return Picture(data, original.label if label is None else label, name, sidecar)

    def _write_truth(self) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["sample_id", "label"])
        known = [picture for batch in self._batches for picture in batch.files]
        known += self._held_back
        labels = {picture.sample_id: picture.label for picture in known if picture.label}
        writer.writerows(sorted(labels.items()))
        _write(self.truth, text.getvalue().encode())

    def _rng(self, purpose: str, number: int) -> np.random.Generator:
        words = hashlib.sha256(f"{self.seed}/{purpose}/{number}".encode()).digest()[:16]
        return np.random.Generator(np.random.PCG64(int.from_bytes(words, "big")))


def _name(camera: str, taken: datetime, data: bytes, rng: np.random.Generator) -> str:
    ending = "jpg" if data.startswith(b"\xff\xd8") else "png"
    number = int(rng.integers(0, 10**6))
    return f"{taken:%Y-%m-%d}/{camera}/{taken:%H%M%S}-{number:06d}.{ending}"


def _time(taken: datetime) -> str:
    return taken.isoformat().replace("+00:00", "Z")


def _session(camera: str, taken: datetime) -> str:
    """Return what is photographed in one go: a camera's pictures of six hours."""
    return f"{camera}/{taken:%Y%m%d}/{taken.hour // 6}"


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _write(path: Path, data: bytes) -> None:
    try:
        if path.read_bytes() == data:
            return
    except OSError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(data)
    temporary.replace(path)
