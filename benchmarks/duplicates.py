"""How many copies of pictures are recognised, what passes for one, and how the search scales.

Copies are made of real photographs and of digits: re-encoded, resized, made brighter, cropped. They
are looked for among the originals as ingest looks for copies of the holdout: fingerprints propose,
the pixels of thumbnails decide. A picture of the collection that counts as a copy of another one is
a false one (BCCD holds a few real ones: fields of view that overlap). The peers' radius is the one
at which they pass as many false ones as we do, or the next smaller one; CleanVision has its own.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from benchmarks._photographs import encoded, photographs
from benchmarks._rows import Row, arguments, report
from benchmarks._semantic_duplicates import semantic_rows
from benchmarks._vectors import compute_alike
from visionloop.config import HoldoutConfig
from visionloop.media.copies import Prints, candidates, confirmed
from visionloop.media.fingerprint import COEFFICIENTS, as_words
from visionloop.media.inspect import Inspection, inspect
from visionloop.media.likeness import grey
from visionloop.media.near_duplicates import near_duplicates, within_of

Words = NDArray[np.uint64]
_THRESHOLD = HoldoutConfig().copy_likeness


def digits() -> list[Image.Image]:
    """Return scikit-learn's digits as pictures of 32 pixels a side: small, and much alike."""
    from visionloop.demo.pictures import load_digits

    small = [Image.fromarray(np.uint8(np.round(digit / 16 * 255))) for digit in load_digits()[0]]
    return [one.resize((32, 32), Image.Resampling.BICUBIC).convert("RGB") for one in small]


def _cropped(most: float) -> Callable[[Image.Image, np.random.Generator], bytes]:
    def copy(picture: Image.Image, rng: np.random.Generator) -> bytes:
        w, h = picture.size
        left, top, right, bottom = rng.uniform(0, most, 4)
        kept = (round(w * left), round(h * top), round(w * (1 - right)), round(h * (1 - bottom)))
        small = picture.crop(kept)
        size = (max(1, small.width * 3 // 4), max(1, small.height * 3 // 4))
        return encoded(small.resize(size, Image.Resampling.LANCZOS), 85)

    return copy


def _halved(picture: Image.Image, rng: np.random.Generator) -> bytes:
    size = (picture.width // 2, picture.height // 2)
    return encoded(picture.resize(size, Image.Resampling.LANCZOS), 85)


COPIES: dict[str, Callable[[Image.Image, np.random.Generator], bytes]] = {
    "JPEG of quality 50": lambda picture, rng: encoded(picture, 50),
    "half the size": _halved,
    "1.2 times as bright": lambda p, rng: encoded(ImageEnhance.Brightness(p).enhance(1.2), 85),
    "0.8 times the contrast": lambda p, rng: encoded(ImageEnhance.Contrast(p).enhance(0.8), 85),
    "cropped by up to 4% a side": _cropped(0.04),
    "cropped by up to 8% a side": _cropped(0.08),
}


@dataclass(frozen=True)
class Made:
    """A collection, and copies of some of its pictures.

    Attributes:
        originals: Encoded pictures.
        copies: By kind, the place of the original and the encoded copy.
    """

    originals: list[bytes]
    copies: dict[str, list[tuple[int, bytes]]]


def made(pictures: list[Image.Image], copied: int, seed: int = 0) -> Made:
    """Encode pictures, and make copies of some."""
    rng = np.random.Generator(np.random.PCG64(seed))
    some = rng.permutation(len(pictures))[:copied].tolist()
    copies = {
        kind: [(place, copy(pictures[place], rng)) for place in some]
        for kind, copy in COPIES.items()
    }
    return Made([encoded(picture, 95) for picture in pictures], copies)


Found = tuple[set[int], dict[str, float]]


def ours(collection: Made) -> Found:
    """Return who is taken for a copy of another original, and the recall of each kind of copy."""
    seen = [inspect(data) for data in collection.originals]
    greys = {one.sample_id: grey(one.thumbnail) for one in seen}
    holdout = _prints(seen)
    # Each against all others: the nearest is the picture itself, which says nothing.
    false = set()
    for place, one in enumerate(seen):
        others = _prints([*seen[:place], *seen[place + 1 :]])
        false |= (
            {place} if confirmed(candidates(_prints([one]), others), greys, _THRESHOLD) else set()
        )
    recalls = {}
    for kind, copies in collection.copies.items():
        looks = [inspect(data) for _, data in copies]
        mine = {one.sample_id: grey(one.thumbnail) for one in looks}
        told = confirmed(candidates(_prints(looks), holdout), greys | mine, _THRESHOLD)
        right = {(one.sample_id, one.original) for one in told}
        pairs = zip(looks, copies, strict=True)
        recalls[kind] = float(
            np.mean(
                [(look.sample_id, seen[place].sample_id) in right for look, (place, _) in pairs]
            )
        )
    return false, recalls


def _prints(seen: list[Inspection]) -> Prints:
    ids = pa.array([bytes.fromhex(one.sample_id) for one in seen], pa.binary(32))
    return Prints.of(ids, pa.array([one.fingerprint for one in seen], pa.binary()))


def by_hash(
    collection: Made, hashed: Callable[[Image.Image], Words], false_at_most: int
) -> tuple[Found, int]:
    """Return what a perceptual hash finds at the radius that passes no more false ones than ours.

    Args:
        collection: The pictures.
        hashed: Returns the hash of a picture, uint64 [w].
        false_at_most: Pictures that may have a look-alike within the radius.
    """

    def words(files: list[bytes]) -> Words:
        return np.stack([hashed(Image.open(io.BytesIO(data))) for data in files])

    originals = words(collection.originals)
    nearest = np.array(
        [_apart(one, np.delete(originals, i, 0)).min() for i, one in enumerate(originals)]
    )
    radius = int(np.sort(nearest)[false_at_most]) - 1 if false_at_most < len(nearest) else 64
    recalls = {}
    for kind, copies in collection.copies.items():
        apart = [
            _apart(one, originals[place])
            for one, (place, _) in zip(words([data for _, data in copies]), copies, strict=True)
        ]
        recalls[kind] = float(np.mean(np.array(apart) <= radius))
    return (set(np.flatnonzero(nearest <= radius).tolist()), recalls), radius


def _apart(one: Words, others: Words) -> NDArray[np.int64]:
    return np.asarray(np.bitwise_count(one ^ others).sum(axis=-1, dtype=np.int64))


def peer_hashes() -> Mapping[str, Callable[[Image.Image], Words]]:
    """Return the peers' hashes by name: imagehash's pHash of 64 and of 256 bits."""
    import imagehash

    def of(size: int) -> Callable[[Image.Image], Words]:
        def hashed(picture: Image.Image) -> Words:
            bits = imagehash.phash(picture, hash_size=size).hash
            return np.packbits(bits.ravel()).view(np.uint64)

        return hashed

    name = f"imagehash {version('imagehash')} pHash"
    return {f"{name}, 64 bits": of(8), f"{name}, 256 bits": of(16)}


def cleanvision(collection: Made) -> Found:
    """Return what CleanVision finds with its defaults (exact and near duplicates)."""
    from cleanvision import Imagelab

    def groups(files: dict[str, bytes]) -> list[set[str]]:
        with TemporaryDirectory() as folder:
            for name, data in files.items():
                (Path(folder) / f"{name}.jpg").write_bytes(data)
            silent = io.StringIO()
            with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
                lab = Imagelab(data_path=folder)
                lab.find_issues({"near_duplicates": {}, "exact_duplicates": {}}, n_jobs=1)
            return [
                {Path(path).stem for path in group}
                for kind in ("near_duplicates", "exact_duplicates")
                for group in lab.info[kind]["sets"]
            ]

    originals = {f"o{i}": data for i, data in enumerate(collection.originals)}
    false = {int(name[1:]) for group in groups(originals) for name in group}
    recalls = {}
    for kind, copies in collection.copies.items():
        found = groups(originals | {f"c{place}": data for place, data in copies})
        pairs = [{f"o{place}", f"c{place}"} for place, _ in copies]
        recalls[kind] = float(np.mean([any(pair <= group for group in found) for pair in pairs]))
    return false, recalls


def quality_rows(*, quick: bool) -> list[Row]:
    """Return recall and false positives of each collection, beside each peer."""
    rows = []
    for name, pictures in (
        ("digits", digits()[:: 4 if quick else 1]),
        ("clothing", photographs("clothing", 60 if quick else 341)),
        ("bccd", photographs("bccd", 60 if quick else 364)),
    ):
        collection = made(pictures, 20 if quick else 150)
        false, recalls = ours(collection)
        n = len(collection.originals)
        peers: dict[str, Found] = {}
        for peer, hashed in peer_hashes().items():
            found, radius = by_hash(collection, hashed, len(false))
            peers[f"{peer}, within {radius}"] = found
        peers[f"CleanVision {version('cleanvision')}"] = cleanvision(collection)
        for peer, (theirs_false, theirs) in peers.items():
            case = f"{name}: pictures of {n} taken for a copy of another"
            rows.append(Row(case, len(false) / n, peer, len(theirs_false) / n, "", None))
            for kind, recall in recalls.items():
                case = f"{name}: recall of copies, {kind}"
                rows.append(Row(case, recall, peer, theirs[kind], "", None, False))
        # Half of each collection: networks take their time on one core.
        rows += semantic_rows(name, pictures[::2][:225], 10 if quick else 30)
    return rows


def like_pictures(n: int, seed: int = 0) -> Words:
    """Return fingerprints as photographs have them, a twentieth of them of copies.

    Coefficients fall with frequency, by a power that differs from picture to picture.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    places = sorted(
        ((i, j) for i in range(10) for j in range(10) if i + j), key=lambda p: (sum(p), p)
    )
    frequency = np.array([np.hypot(*place) for place in places[:COEFFICIENTS]], np.float32)
    levels = np.array([-0.7739, -0.3446, 0.0, 0.3446, 0.7739], np.float32)
    bits = np.empty((n, 32), np.uint8)
    base = n - n // 20
    values = np.empty((n, COEFFICIENTS), np.float32)
    for start in range(0, n, 1 << 16):
        some = values[start : start + (1 << 16)]
        power = rng.uniform(0.7, 1.6, (len(some), 1)).astype(np.float32)
        some[:] = rng.standard_normal(some.shape, np.float32) * frequency**-power
        some /= np.sqrt((some**2).mean(axis=1, keepdims=True))
    values[base:] = values[rng.integers(0, base, n - base)]
    noise = 0.12 * rng.random((n - base, 1), np.float32)
    values[base:] += noise * rng.standard_normal((n - base, COEFFICIENTS), np.float32)
    for start in range(0, n, 1 << 16):
        above = values[start : start + (1 << 16), None, :] > levels[:, None]
        bits[start : start + len(above)] = np.packbits(above.reshape(len(above), -1), axis=1)
    return as_words(bits[rng.permutation(n)])


def search_rows(*, quick: bool) -> list[Row]:
    """Return the processor time of finding all pairs, and those of a holdout."""
    import faiss

    faiss.omp_set_num_threads(1)
    rows = []
    for n, radius in [(100_000, 10), (100_000, 24)] + ([] if quick else [(1_000_000, 10)]):
        words = like_pictures(n)
        began = time.process_time()
        pairs, _ = near_duplicates(words, radius)
        spent = time.process_time() - began
        # Comparing everything takes minutes: a hundredth of the rows says what all would take.
        index = faiss.IndexBinaryFlat(256)
        index.add(words.view(np.uint8).reshape(n, 32))
        some = np.ascontiguousarray(words[: n // 100].view(np.uint8).reshape(-1, 32))
        began = time.process_time()
        limits, _, _ = index.range_search(some, radius + 1)
        everything = 100 * (time.process_time() - began)
        found = ((pairs < n // 100).any(axis=1)).sum() + ((pairs < n // 100).all(axis=1)).sum()
        if int(limits[-1]) - len(some) != found:
            raise AssertionError("the search and comparing everything disagree")
        peer = f"faiss {faiss.__version__} IndexBinaryFlat, every pair (a hundredth, times 100)"
        case = f"all pairs within {radius} bits of {n:,} fingerprints, {len(pairs):,} found"
        rows.append(Row(case, spent, peer, everything, "s", None))
    n = 100_000 if quick else 1_000_000
    words, holdout = like_pictures(n), like_pictures(2000, 1)[:200]
    began = time.process_time()
    for _ in within_of(words, holdout, 48, 4):
        pass
    spent = time.process_time() - began
    index = faiss.IndexBinaryFlat(256)
    index.add(holdout.view(np.uint8).reshape(-1, 32))
    began = time.process_time()
    index.search(np.ascontiguousarray(words.view(np.uint8).reshape(n, 32)), 4)
    peer = f"faiss {faiss.__version__} IndexBinaryFlat"
    case = f"the closest 4 of a holdout of 200, for each of {n:,}"
    return [*rows, Row(case, spent, peer, time.process_time() - began, "s", None)]


def main() -> None:
    """Run the benchmark."""
    compute_alike()
    options = arguments(__doc__)
    rows = [*quality_rows(quick=options.quick), *search_rows(quick=options.quick)]
    report("duplicates", rows, as_json=options.json)


if __name__ == "__main__":
    main()
