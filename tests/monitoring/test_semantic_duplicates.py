"""A picture that the encoder takes for an earlier one is flagged, whatever encoder it is."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.media.ingests import fill, settings
from tests.media.pictures import photographs
from tests.monitoring.test_samples import NOW, Intake, flags
from visionloop.inference.descriptor import fit_descriptor, pixel_features
from visionloop.lake import Lake
from visionloop.lake.schemas import arrow_schema
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.findings import Findings
from visionloop.monitoring.sample_flags import population_of
from visionloop.monitoring.semantic_duplicates import flag_semantic_duplicates
from visionloop.stages.infer import infer
from visionloop.stages.ingest import ingest
from visionloop.stages.monitor import monitor

Vectors = dict[str, np.ndarray]


def unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype=np.float32)


def flagged(vectors: Vectors, new: set[str], *, order: int = 1, **fields: Any) -> dict[str, str]:
    """Return the original of each flagged sample; samples lie at their names."""
    rows = [{"sample_id": name, "uri": name} for name in sorted(vectors)]
    samples = pa.Table.from_pylist(rows, schema=arrow_schema("samples"))

    def read() -> Iterator[tuple[pa.Array, np.ndarray]]:
        names = list(vectors)[::order]
        for start in range(0, len(names), 70):
            some = names[start : start + 70]
            yield pa.array(some), np.stack([vectors[name] for name in some])

    findings = Findings(NOW)
    thresholds = MonitoringConfig(**fields)
    flag_semantic_duplicates(population_of(samples, new), thresholds, read, findings)
    assert {row["kind"] for row in findings.flags} <= {"semantic_duplicate"}
    assert all(row["score"] >= row["threshold"] for row in findings.flags)
    return {row["subject"]: json.loads(row["evidence"])["original"] for row in findings.flags}


def scattered(n: int, seed: int = 0, *, offset: float = 0.0) -> Vectors:
    """Return vectors of n samples, with an offset as close together as untrained networks' are."""
    rng = np.random.Generator(np.random.PCG64(seed))
    x = unit(rng.standard_normal((n, 32)) + offset * np.sqrt(32))
    return {f"{i:05d}": one for i, one in enumerate(x)}


def beside(vector: np.ndarray, share: float, vectors: Vectors) -> np.ndarray:
    """Return a vector at a share of the usual distance from one."""
    x = np.stack(list(vectors.values())).astype(np.float64)
    products = x @ x.T
    np.fill_diagonal(products, -1)
    usual = float(np.median(1 - products.max(axis=1)))
    across = np.random.Generator(np.random.PCG64(9)).standard_normal(len(vector))
    across -= (across @ vector) * vector / (vector @ vector)
    cosine = 1 - share * usual
    turned = cosine * vector + np.sqrt(1 - cosine**2) * across / np.linalg.norm(across)
    return unit(turned[None])[0]


@pytest.mark.parametrize("offset", [0.0, 1.0, 10.0])
def test_what_is_near_is_held_against_what_is_usual_in_the_space(offset: float) -> None:
    vectors = scattered(300, offset=offset)
    assert flagged(vectors, set(vectors)) == {}
    more = vectors | {
        "near": beside(vectors["00007"], 0.2, vectors),
        "beyond": beside(vectors["00009"], 0.3, vectors),
    }
    for order in (1, -1):
        assert flagged(more, {"near", "beyond"}, order=order) == {"near": "00007"}
    assert flagged(more, {"near", "beyond"}, semantic_duplicate_share=0) == {}
    assert flagged(more, {"near", "beyond"}, semantic_duplicate_share=0.35).keys() == {
        "near",
        "beyond",
    }


def test_of_new_ones_the_first_stays_and_what_was_there_always_does() -> None:
    vectors = scattered(200)
    # One after the other: known, then three new ones that show the same.
    vectors |= {name: beside(vectors["00003"], 0.01, vectors) for name in ("a", "b", "c")}
    vectors |= {"nan": np.full(32, np.nan, np.float32)}
    assert flagged(vectors, {"a", "b", "c"}) == dict.fromkeys("abc", "00003")
    assert flagged(vectors, {"b", "c", "nan", "00003"}) == dict.fromkeys(["b", "c", "00003"], "a")
    alone = {name: one for name, one in vectors.items() if name != "00003"}
    assert flagged(alone, set(alone)) == {"b": "a", "c": "a"}
    few = dict(list(vectors.items())[-20:])
    assert flagged(few, set(few)) == {}, "too few to say what is usual"


def test_where_most_are_copies_nothing_is_said_of_them() -> None:
    vectors = scattered(60)
    vectors |= {f"again {name}": one for name, one in vectors.items()}
    assert flagged(vectors, set(vectors)) == {}


def test_photographs_turned_a_little_are_found_and_sound_ones_are_not(
    shared: Path,
) -> None:
    intake, pictures = Intake(), {}
    for number, data in enumerate(photographs(shared, 2)):
        pictures[intake.add(f"{number:04d}.jpg", data)] = Image.open(io.BytesIO(data))
    copies = {}
    for number, (original, picture) in enumerate(list(pictures.items())[::8]):
        copy = picture.convert("RGB").rotate(4, Image.Resampling.BICUBIC)
        encoded = io.BytesIO()
        copy.save(encoded, "JPEG", quality=85)
        name = intake.add(f"copy-{number:04d}.jpg", encoded.getvalue())
        copies[name], pictures[name] = original, copy
    features = np.stack([pixel_features(one.convert("RGB")) for one in pictures.values()])
    vectors = fit_descriptor(features, dimensions=64).embed(features)
    checked = intake.check(read_vectors=lambda: [(pa.array(list(pictures)), vectors)])
    by_pixels = {row["subject"] for row in flags(checked, "near_duplicate")}
    told = {
        row["subject"]: row["evidence"]["original"] for row in flags(checked, "semantic_duplicate")
    }
    right = {name for name, original in told.items() if copies.get(name) == original}
    assert len(pictures) > 150 and not by_pixels & set(copies) and not by_pixels & set(told)
    assert len(right) > len(copies) / 2
    assert len(told) - len(right) <= 0.02 * len(pictures)


def test_the_stage_compares_the_embeddings_that_infer_has_written(tmp_path: Path) -> None:
    fill(tmp_path / "source", 40)
    limits = {"semantic_duplicate_share": 0.9, "min_population": 20}
    config = settings(tmp_path / "source", "lake", monitoring=limits)
    ingest(config=config)
    inferred = infer(config=config)
    monitor(config=config)
    lake = Lake.open(json.loads(config)["lake"], loop="test")
    ids, vectors = lake.embeddings(inferred.space)
    rows = lake.read("flags").to_pylist()
    kinds = ("near_duplicate", "pixel_duplicate")
    same = {row["subject"] for row in rows if row["kind"] in kinds}
    found = [row for row in rows if row["kind"] == "semantic_duplicate"]
    place = {name: row for row, name in enumerate(ids)}
    assert len(found) > 2 and not same & {row["subject"] for row in found}
    for row in found:
        original = json.loads(row["evidence"])["original"]
        cosine = vectors[place[row["subject"]]] @ vectors[place[original]]
        assert row["score"] == pytest.approx(cosine, abs=1e-5) and cosine >= row["threshold"] - 1e-5
