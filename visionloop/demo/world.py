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
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

SIDE = 32
CLASSES = tuple(str(digit) for digit in range(10))
KINDS = ("unreadable", "exact_duplicate", "near_duplicate", "blurred", "dark")

FIRST_BATCH = 900
LATER_BATCH = 250
# Never delivered: what production sees and the loop does not.
HELD_BACK = 300

_EPOCH = datetime(2026, 3, 2, tzinfo=UTC)
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

    Args:
        directory: Folder of the world; the bucket is ``<directory>/bucket``.
        seed: Seed of everything that is drawn.
        rounds: Number of batches that the digits are to last for; later rounds deliver nothing.
    """

    def __init__(self, directory: str | Path, *, seed: int = 0, rounds: int = 3) -> None:
        self.directory = Path(directory)
        self.seed = seed
        self.rounds = max(1, rounds)

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

    def production(self, number: int) -> list[Picture]:
        """Return what production sees after a round: pictures that the loop has not ingested.

        One half will arrive in the bucket with the next batch, with the same bytes, so that the
        confidences of the deployed model join with samples that can be selected; the other half is
        never delivered.
        """
        coming = self._batch(number + 1).sound
        rng = self._rng("production", number)
        never = [self._held_back[i] for i in rng.permutation(len(self._held_back))]
        half = min(len(never), max(len(coming), LATER_BATCH // 2))
        mixed = [coming[i] for i in rng.permutation(len(coming))[:half]] + never[:half]
        return [mixed[i] for i in rng.permutation(len(mixed))]

    @cached_property
    def _digits(self) -> tuple[npt.NDArray[np.float32], list[str]]:
        # Slow to import, and needed by nobody but the demo.
        from sklearn.datasets import load_digits

        found = load_digits()
        order = self._rng("order", 0).permutation(len(found.target))
        images = (found.images[order] / 16.0).astype(np.float32)
        return images, [str(target) for target in found.target[order]]

    @cached_property
    def _batches(self) -> list[_Batch]:
        """All batches; a copy may be of a picture of any batch so far, so they are made in turn."""
        n = len(self._digits[1]) - HELD_BACK
        sizes = [min(FIRST_BATCH, n)]
        later = min(LATER_BATCH, (n - sizes[0]) // max(1, self.rounds - 1))
        sizes += [later] * (self.rounds - 1)
        batches: list[_Batch] = []
        start = 0
        before: list[Picture] = []
        for number, size in enumerate(sizes):
            batch = self._make_batch(number, range(start, start + size), before)
            before += batch.sound
            start += size
            batches.append(batch)
        return batches

    @cached_property
    def _held_back(self) -> list[Picture]:
        n = len(self._digits[1])
        rng = self._rng("held back", 0)
        return [self._photograph(i, self.rounds, rng) for i in range(n - HELD_BACK, n)]

    def _batch(self, number: int) -> _Batch:
        return self._batches[number] if 0 <= number < len(self._batches) else _Batch()

    def _make_batch(self, number: int, digits: Sequence[int], before: Sequence[Picture]) -> _Batch:
        rng = self._rng("batch", number)
        counts = {
            kind: max(_LEAST_PLANTED, round(share * len(digits)))
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
                data = _near_copy(data, turn % 4, rng)
            batch.planted[kind].append(self._copy(original, data, number, rng))
        for turn in range(counts["unreadable"]):
            source = batch.sound[int(rng.integers(len(batch.sound)))]
            data = _broken(source.data, turn % 6, rng)
            batch.planted["unreadable"].append(self._copy(source, data, number, rng, label=""))
        return batch

    def _photograph(
        self, digit: int, number: int, rng: np.random.Generator, fault: str = ""
    ) -> Picture:
        """Photograph a digit: camera, place and time are drawn, and show in the picture."""
        # From round to round the noisy dock takes a larger share: the world drifts.
        shares = np.array([camera.share for camera in CAMERAS]) + [0, 0, 0.06 * number, 0]
        camera = CAMERAS[rng.choice(len(CAMERAS), p=shares / shares.sum())]
        taken = _EPOCH + timedelta(days=7 * number, seconds=float(rng.uniform(0, 7 * 86_400)))
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
        pixels = _render(images[digit], camera.tint, gain, noise, blur, rng)
        sidecar = {
            "camera": camera.name,
            "place": camera.places[int(rng.integers(len(camera.places)))],
            "lighting": lighting,
            "captured_at": taken.isoformat().replace("+00:00", "Z"),
            "sensor": {"iso": {"day": 100, "dusk": 400, "night": 1600}[lighting]},
        }
        data = _png(Image.fromarray(pixels))
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
        taken = _EPOCH + timedelta(days=7 * number, seconds=float(rng.uniform(0, 7 * 86_400)))
        taken = taken.replace(microsecond=0)
        sidecar["captured_at"] = taken.isoformat().replace("+00:00", "Z")
        name = _name(str(sidecar["camera"]), taken, data, rng)
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


def class_counts(pictures: Sequence[Picture]) -> dict[str, int]:
    """Return how many pictures of each class there are."""
    return dict(sorted(Counter(picture.label for picture in pictures if picture.label).items()))


def _render(
    digit: npt.NDArray[np.float32],
    tint: tuple[float, float, float],
    gain: float,
    noise: float,
    blur: float,
    rng: np.random.Generator,
) -> npt.NDArray[np.uint8]:
    """Return a picture of dark ink on light paper, lit from one side.

    Args:
        digit: float32 [8, 8], 1 is full ink.
        tint: Gain of each channel.
        gain: Exposure.
        noise: Standard deviation of the sensor's noise.
        blur: Standard deviation of the defocus in pixels, before the sensor.
        rng: Source of light and noise.

    Returns:
        uint8 [32, 32, 3].
    """
    margin = 2
    ink = Image.fromarray(digit).resize(
        (SIDE - 2 * margin, SIDE - 2 * margin), Image.Resampling.BICUBIC
    )
    # The steepened ramp turns the blurred 8 x 8 grid back into strokes with an edge.
    strokes = np.clip((np.asarray(ink) - 0.12) / 0.72, 0, 1)
    strokes = np.pad(strokes, margin)
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 + 0.07 * (np.cos(angle) * x + np.sin(angle) * y)
    scene = (0.86 - 0.7 * strokes) * light
    if blur:
        from scipy.ndimage import gaussian_filter

        scene = gaussian_filter(scene, blur, mode="nearest")
    exposed = scene[..., None] * np.array(tint) * gain
    exposed = exposed + rng.normal(0, noise, (SIDE, SIDE, 3))
    return (np.clip(exposed, 0, 1) * 255 + 0.5).astype(np.uint8)


def _near_copy(data: bytes, way: int, rng: np.random.Generator) -> bytes:
    """Return the same picture in other bytes: re-encoded, resized, cropped, or brightened."""
    with Image.open(io.BytesIO(data)) as opened:
        image = opened.convert("RGB")
    if way == 0:
        return _jpeg(image, int(rng.integers(60, 90)))
    if way == 1:
        side = int(rng.choice([24, 26, 40, 48, 64]))
        return _png(image.resize((side, side), Image.Resampling.BICUBIC))
    if way == 2:
        left, top = (int(v) for v in rng.integers(0, 2, 2))
        right, bottom = (int(v) for v in rng.integers(0, 2, 2))
        right = right or int(left + top + bottom == 0)
        return _jpeg(image.crop((left, top, SIDE - right, SIDE - bottom)), 88)
    factor = float(rng.choice([0.85, 0.9, 1.08, 1.14]))
    return _png(ImageEnhance.Brightness(image).enhance(factor))


def _broken(data: bytes, way: int, rng: np.random.Generator) -> bytes:
    """Return what a transfer or a person left under an image's name."""
    if way in (0, 1, 2):
        return data[: int(len(data) * rng.uniform(0.2, 0.95))]
    if way == 3:
        return b""
    if way == 4:
        return b"%PDF-1.4\n1 0 obj <</Type /Catalog>> endobj\n%%EOF" + rng.bytes(64)
    return f"<Error><Code>AccessDenied</Code><Id>{rng.integers(1e9)}</Id></Error>".encode()


def _png(image: Image.Image) -> bytes:
    text = io.BytesIO()
    image.save(text, "PNG")
    return text.getvalue()


def _jpeg(image: Image.Image, quality: int) -> bytes:
    text = io.BytesIO()
    image.save(text, "JPEG", quality=quality)
    return text.getvalue()


def _name(camera: str, taken: datetime, data: bytes, rng: np.random.Generator) -> str:
    ending = "jpg" if data.startswith(b"\xff\xd8") else "png"
    number = int(rng.integers(0, 10**6))
    return f"{taken:%Y-%m-%d}/{camera}/{taken:%H%M%S}-{number:06d}.{ending}"


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
