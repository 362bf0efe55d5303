"""How fast one core checks photographs, beside what others would run for it."""

from __future__ import annotations

import hashlib
import io
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from benchmarks._photographs import camera_files, encoded
from benchmarks._rows import Row
from visionloop.media.inspect import inspect
from visionloop.media.measures import MEASURED_SIDE, measures

SIZES = {"1080p": (1920, 1080), "640x480": (640, 480)}
GOALS = {
    "1080p": {"floor": 0.75, "naive": 6.0, "cleanvision": 5.0},
    "640x480": {"naive": 3.0, "cleanvision": 5.0},
}
_REPEATS = 5


def rates(works: dict[str, Callable[[bytes], object]], files: Sequence[bytes]) -> dict[str, float]:
    """Return images per second of one core for each work: medians, taken in turn.

    Seconds are the processor's. In turn, so that what else the machine does hits all alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work(files[0])
    for _ in range(_REPEATS):
        for name, work in works.items():
            began = time.process_time()
            for data in files:
                work(data)
            seconds[name].append(time.process_time() - began)
    return {name: len(files) / statistics.median(times) for name, times in seconds.items()}


def floor(data: bytes) -> object:
    """Decode nothing but the entropy-coded data: grey, an eighth of each side."""
    import simplejpeg

    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    return simplejpeg.decode_jpeg(data, "GRAY", min_height=height // 8, min_width=width // 8)


def naive(data: bytes) -> object:
    """Do the same checks as a script with Pillow, NumPy and imagehash would, at full size."""
    import imagehash

    identity = hashlib.sha256(data).hexdigest()
    picture = Image.open(io.BytesIO(data))
    exif = picture.getexif()
    rgb = picture.convert("RGB")
    grey = np.asarray(rgb.convert("L"), dtype=np.float32) / 255
    counts = np.histogram(grey, bins=256, range=(0, 1))[0] / grey.size
    entropy = -sum(share * np.log2(share) for share in counts if share)
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    seen = (grey.mean(), grey.std(), laplacian.var(), entropy)
    print_of = imagehash.phash(rgb)
    rgb.thumbnail((256, 256))
    small = io.BytesIO()
    rgb.save(small, "JPEG", quality=80)
    return identity, len(exif), seen, print_of, small.getvalue()


def opencv(data: bytes) -> object:
    """Do the same checks with OpenCV, at full size."""
    import cv2

    identity = hashlib.sha256(data).hexdigest()
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    counts = cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel() / grey.size
    entropy = -(counts[counts > 0] * np.log2(counts[counts > 0])).sum()
    seen = (cv2.meanStdDev(grey), cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S)), entropy)
    tiny = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    waves = cv2.dct(tiny)[:8, :8]
    scale = 256 / max(picture.shape[:2])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return identity, seen, waves > np.median(waves), cv2.imencode(".jpg", small)[1]


def torchvision(data: bytes) -> object:
    """Do the same checks with torchvision, at full size."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg
    from torchvision.transforms.v2.functional import resize, rgb_to_grayscale

    identity = hashlib.sha256(data).hexdigest()
    raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    picture = decode_jpeg(raw, mode=ImageReadMode.RGB)
    grey = rgb_to_grayscale(picture)[0]
    counts = torch.bincount(grey.flatten(), minlength=256) / grey.numel()
    entropy = -(counts[counts > 0] * counts[counts > 0].log2()).sum()
    plane = grey.float()
    inner = plane[1:-1, 1:-1]
    laplacian = plane[:-2, 1:-1] + plane[2:, 1:-1] + plane[1:-1, :-2] + plane[1:-1, 2:] - 4 * inner
    seen = (plane.mean(), plane.std(), laplacian.var(), entropy)
    tiny = resize(grey[None], [32, 32], antialias=True)
    scale = 256 / max(picture.shape[1:])
    small = resize(picture, [round(n * scale) for n in picture.shape[1:]], antialias=True)
    return identity, seen, tiny > tiny.float().median(), encode_jpeg(small)


def cleanvision_rate(files: Sequence[bytes]) -> float:
    """Return CleanVision's images per second of one core: all of its checks, one process."""
    from benchmarks._picture_flags import cleanvision_issues

    with TemporaryDirectory() as folder:
        for number, data in enumerate(files):
            (Path(folder) / f"{number:04d}.jpg").write_bytes(data)
        times = []
        for _ in range(3):
            began = time.process_time()
            cleanvision_issues(folder)
            times.append(time.process_time() - began)
    return len(files) / statistics.median(times)


def speed_rows(*, quick: bool) -> list[Row]:
    """Measure both sizes, and return the rows."""
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    rows = []
    for size, (width, height) in SIZES.items():
        number = 8 if quick else 32
        files = camera_files(width, height, number)
        kilobytes = sum(map(len, files)) / number / 1000
        works: dict[str, Callable[[bytes], object]] = {
            "ours": inspect,
            "floor": floor,
            "naive": naive,
            "opencv": opencv,
            "torchvision": torchvision,
        }
        found = rates(works, files)
        found["cleanvision"] = cleanvision_rate(files)
        names = {
            "floor": "entropy decoding alone (simplejpeg, grey, 1/8)",
            "naive": f"Pillow {version('pillow')}, NumPy and imagehash at full size",
            "opencv": f"OpenCV {version('opencv-python-headless')} at full size",
            "torchvision": f"torchvision {version('torchvision')} at full size",
            "cleanvision": f"CleanVision {version('cleanvision')}, one job",
        }
        for peer, name in names.items():
            case = f"{size}, {kilobytes:.0f} kB a file: all checks, one core"
            goal = GOALS[size].get(peer)
            rows.append(Row(case, found["ours"], name, found[peer], "img/s", goal, False))
        rows.append(_scaling(size, files))
        rows += _kinds(size, width, height, quick=quick)
        rows += agreement_rows(size, files)
    return rows


def _scaling(size: str, files: Sequence[bytes]) -> Row:
    """Measure two threads against one, by the clock."""

    def seconds(threads: int) -> float:
        with ThreadPoolExecutor(threads) as pool:
            began = time.perf_counter()
            list(pool.map(inspect, [*files] * 4))
            return time.perf_counter() - began

    seconds(2)
    one, two = (statistics.median(seconds(n) for _ in range(_REPEATS)) for n in (1, 2))
    done = 4 * len(files)
    case = f"{size}: two threads, by the clock (the goal holds on an idle machine)"
    return Row(case, done / two, "one thread", done / one, "img/s", 1.7, False)


def _kinds(size: str, width: int, height: int, *, quick: bool) -> list[Row]:
    """Compare other kinds of JPEG with the entropy decoding of the same files."""
    number = 4 if quick else 12
    files = camera_files(width, height, number)
    kinds = {
        "progressive": camera_files(width, height, number, progressive=True),
        "grey": [encoded(Image.open(io.BytesIO(data)).convert("L")) for data in files],
        "finer quantised": [encoded(Image.open(io.BytesIO(data)), 95) for data in files],
    }
    rows = []
    for kind, some in kinds.items():
        found = rates({"ours": inspect, "floor": floor}, some)
        case = f"{size}, {kind}, {sum(map(len, some)) / number / 1000:.0f} kB a file"
        name = "entropy decoding alone"
        goal = GOALS[size].get("floor") if kind == "finer quantised" else None
        rows.append(Row(case, found["ours"], name, found["floor"], "img/s", goal, False))
    return rows


def agreement_rows(size: str, files: Sequence[bytes]) -> list[Row]:
    """Compare measures of the reduced decoding with those of the full one, reduced by Pillow."""
    ratios: dict[str, list[float]] = {}
    for data in files:
        ours = inspect(data)
        grey = Image.open(io.BytesIO(data)).convert("L")
        factor = min(grey.size) / MEASURED_SIDE
        shape = (round(grey.width / factor), round(grey.height / factor))
        full = measures(grey.resize(shape, Image.Resampling.BOX))
        for name, value in full._asdict().items():
            ratios.setdefault(name, []).append(getattr(ours, name) / max(value, 1e-9))
    rows = []
    for name, values in ratios.items():
        low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
        case = f"{size}: {name}, 5% to 95% of photographs {low:.3f} to {high:.3f}, median"
        rows.append(Row(case, float(middle), "decoded at full size", 1.0, "", None, False))
    return rows


if __name__ == "__main__":
    sys.exit("run `python -m benchmarks.ingest`")
