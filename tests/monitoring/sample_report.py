"""A report's data as a small loop would give it, for tests that need no lake."""

from __future__ import annotations

import base64
import io
from datetime import UTC, datetime

import numpy as np
from PIL import Image

from visionloop.monitoring.intervals import wilson
from visionloop.monitoring.report.data import (
    Confusion,
    FlagKind,
    Funnel,
    Gallery,
    HarvestCount,
    Picture,
    ReportData,
    Round,
    Slice,
    Window,
)
from visionloop.monitoring.unjudged import Unjudged


def thumbnail(seed: int) -> str:
    rng = np.random.Generator(np.random.PCG64(seed))
    pixels = (rng.random((8, 8)) * 255).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC).save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def picture(seed: int, title: str, *lines: str) -> Picture:
    return Picture(f"digit_{seed:04d}.png", thumbnail(seed), title, lines, small=True)


def full_report() -> ReportData:
    """Return three rounds with everything that a report can show."""
    rng = np.random.Generator(np.random.PCG64(0))
    classes = tuple("0123456789")
    counts = np.diag(rng.integers(50, 60, 10)) + rng.integers(0, 3, (10, 10))
    rounds = []
    for i, (labels, right, random) in enumerate([(20, 421, 380), (40, 505, 432), (60, 556, 499)]):
        rounds.append(
            Round(
                f"000{i}",
                state="done",
                outcome="published",
                funnel=Funnel(420, 380, 28, 12, 0, 420 * i, 380 - 20 * i, 20, 20, labels),
                labels=labels,
                accuracy=wilson(right, 597),
                random_accuracy=wilson(random, 597),
                model_id=f"m-{i}f3a9c2e1b",
                gate="passed" if i != 1 else "rejected",
                gate_reason="accuracy 0.705 is above the model in service by 0.141",
                spaces=(
                    (
                        "pixels_pca64",
                        "PCA of downscaled pixels, fitted on the first round's pictures: no "
                        "weights were named",
                    ),
                    *([(f"model_m-{i - 1}f3a9c2e1b", f"model m-{i - 1}f3a9c2e1b")] if i else []),
                ),
                seconds={"ingest": 1.2, "infer": 0.8, "monitor": 0.3, "select": 0.2, "train": 5.1},
            )
        )
    bins = rng.dirichlet(np.linspace(0.2, 3, 20))
    windows = [
        Window(
            f"000{i}",
            "digits",
            f"m-{i - 1}f3a9c2e1b",
            500,
            wilson(400, 500) if i == 1 else None,
            tuple(rng.dirichlet(np.linspace(0.2, 3, 20))),
            tuple(bins),
            ("confidence drift 0.31 (threshold 0.15)",) if i == 2 else (),
            "31% of the images lie outside of what the model was calibrated on" if i == 2 else "",
            wilson(37, 50) if i == 2 else None,
        )
        for i in (1, 2)
    ]
    return ReportData(
        loop="digits",
        lake="file:///tmp/demo/lake",
        version="v-42-9f31",
        not_judged=(
            Unjudged(
                ("slow_stage",),
                "9 stages have too few earlier runs to tell a pace, 8 are needed: ingest (3), "
                "monitor (3), train_on_the_accelerators_of_the_cluster (2) and 6 more.",
                9,
                8,
                {"ingest": 3, "monitor": 3, "train_on_the_accelerators_of_the_cluster": 2},
            ),
        ),
        as_of=datetime(2026, 11, 22, 10, 20, tzinfo=UTC),
        rounds=tuple(rounds),
        in_service="m-2f3a9c2e1b",
        in_service_accuracy=wilson(556, 597),
        n_samples=1212,
        n_holdout=597,
        n_labels=60,
        selections=(
            Gallery(
                "Round 0002",
                20,
                tuple(
                    picture(i, f"label {i % 10}", f"#{i + 1}", "uncertainty 0.93", "diversity 0.41")
                    for i in range(20)
                ),
                "20 chosen; all are shown.",
            ),
        ),
        flags=(
            FlagKind(
                "near_duplicate",
                {"0000": 6, "0001": 6, "0002": 7},
                {"0000": 6, "0001": 6, "0002": 6},
                Gallery(
                    "Near duplicates",
                    19,
                    tuple(picture(40 + i, "4 bits from", "digit_0007.png") for i in range(6)),
                    "6 of 19 are shown.",
                ),
            ),
            FlagKind(
                "unreadable",
                {"0000": 12, "0001": 12, "0002": 12},
                {"0000": 12, "0001": 12, "0002": 12},
                Gallery("Unreadable", 36, (Picture("broken.png", "", "truncated"),)),
            ),
        ),
        confusion=Confusion(classes, tuple(tuple(int(n) for n in row) for row in counts)),
        slices=(
            Slice("camera", "A", wilson(300, 310), False),
            Slice("camera", "B", wilson(245, 270), False),
            Slice("camera", "C", wilson(11, 17), True),
            Slice("lighting", "dim", wilson(180, 210), False),
            Slice("lighting", "daylight", wilson(376, 387), False),
        ),
        evaluated="m-2f3a9c2e1b",
        windows=tuple(windows),
        harvest=(
            HarvestCount("harvested", "", 2000),
            HarvestCount("orphan", "request without a response", 3),
            HarvestCount("rejected", "probabilities sum to 1.31", 2),
        ),
    )
