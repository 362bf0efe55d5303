"""A report with something in every section, for tests of the page that need no lake."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from tests.monitoring.sample_report import full_report, picture, thumbnail
from visionloop.monitoring.intervals import Rate, wilson
from visionloop.monitoring.report.data import Gallery, ReportData
from visionloop.monitoring.report.data_cost import AnnotatorLine, Annotators, Cost, RoundCost
from visionloop.monitoring.report.data_drift import (
    DRIFT,
    STABLE,
    TOO_FEW,
    DriftPoint,
    DriftSeries,
)
from visionloop.monitoring.report.data_funnel import Account, Part, Step
from visionloop.monitoring.report.data_health import (
    ACT,
    ERROR,
    INFO,
    WARNING,
    FailedStage,
    Finding,
    StandingAct,
    StandingFlag,
    Verdict,
)
from visionloop.monitoring.report.data_lineage import DecisionLine, LearnedFrom, Lineage
from visionloop.monitoring.report.data_map import EmbeddingMap, MapPoint
from visionloop.monitoring.report.data_models import (
    ArmPoint,
    Difference,
    Efficiency,
    ModelRow,
    ReliabilityBin,
    Saved,
    ShareComparison,
    SliceRow,
)

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def whole() -> ReportData:
    """Return a report of three rounds in which every section has something to show."""
    data = full_report()
    models = _models()
    return replace(
        data,
        verdict=_verdict(),
        total=_account(""),
        accounts=tuple(_account(f"000{i}") for i in range(3)),
        efficiency=_efficiency(),
        models=models,
        map=some_map(400),
        errors=Gallery(
            "Most confident errors",
            31,
            tuple(
                picture(80 + i, f"label {i}, predicted {9 - i}", f"{99 - i}.2% sure")
                for i in range(8)
            ),
            "8 of 31 are shown.",
        ),
        disagreements=Gallery(
            "Labels that the model contradicts",
            2,
            tuple(picture(90 + i, f"labelled {i}", "97.1% sure of 4") for i in range(2)),
            "2 in all.",
        ),
        drift=_drift(),
        drift_note="Predictions of the endpoint were not compared: its model is new.",
        annotators=Annotators(
            (
                AnnotatorLine("annotator 1", 41, 2, 0, wilson(37, 40), 40, wilson(18, 20), 3.2),
                AnnotatorLine("annotator 2", 9, 0, 1, None, 4, None, None),
            )
        ),
        cost=_cost(),
        lineage=_lineage(),
        decisions=(
            DecisionLine("watch", "camera drift", "start a round", "by rule 1", "0002", NOON),
            DecisionLine("publish", "model of round 2", "published", "passed", "0002", NOON),
        ),
        standing=(
            StandingFlag(
                "camera_silent",
                "Camera gone silent",
                ERROR,
                "camera east-2",
                "camera",
                31.5,
                12.0,
                "hours",
                "its own gaps over the last 30 days",
                ("The newest picture is of 21 November, 04:31.",),
                NOON,
                "Look at the camera; `visionloop health` says what came in.",
                ("sample-00001", "sample-00000", "sample-00399"),
            ),
        ),
        acts=(StandingAct("random_share", "The random share is raised to 30%.", NOON, 0.3),),
        failed=(
            FailedStage(
                "embed",
                "0002",
                NOON,
                "the weights `dinov2-small` are not there",
                "/models",
                "Run `visionloop fetch weights`",
            ),
        ),
        notes=("An older lake has no seconds of work.",),
        in_service_name="model of round 2",
        flag_counts={"near_duplicate": 19, "unreadable": 36, "camera_silent": 1},
        new_flags={"near_duplicate": 7, "unreadable": 12},
        flags=tuple(
            replace(
                flag,
                title=flag.gallery.heading,
                meaning="Another picture is nearly the same: it teaches nothing new.",
                remedy="They are left out of the choice; nothing is to do.",
            )
            for flag in data.flags
        ),
    )


def _verdict() -> Verdict:
    return Verdict(
        ACT,
        "Act now",
        "A camera has gone silent, and what production sees has moved away from the holdout.",
        (
            Finding(
                ERROR,
                "Camera east-2 sent nothing for 31.5 hours (threshold 12).",
                "flags",
                "Look at the camera; `visionloop health` says what came in.",
            ),
            Finding(WARNING, "Confidences of digits drifted.", "drift", "Label at random first."),
            Finding(WARNING, "36 of 1,260 files cannot be read.", "funnel", "See their kinds."),
            Finding(
                INFO,
                "Whether annotator 2 agrees with the others cannot be told: too few answers.",
                "annotators",
                unknown=True,
            ),
        ),
    )


def _account(round_id: str) -> Account:
    k = 1 if round_id else 3
    steps = (
        Step(
            "found",
            "Files found",
            "files",
            420 * k,
            kept=(Part("ok", 380 * k), Part("flagged", 28 * k), Part("unreadable", 12 * k)),
        ),
        Step(
            "samples",
            "Pictures in the lake",
            "pictures",
            404 * k,
            420 * k,
            "found",
            rest=(Part("unreadable", 12 * k), Part("further copies of a picture", 4 * k)),
        ),
        Step(
            "selectable",
            "To choose from",
            "pictures",
            205 * k,
            404 * k,
            "samples",
            rest=(Part("in the holdout", 199 * k),),
        ),
        Step(
            "selected",
            "Chosen",
            "pictures",
            20 * k,
            205 * k,
            "selectable",
            rest=(Part("not chosen", 185 * k),),
        ),
        Step("answered", "Labelled", "labels", 20 * k, 20 * k, "selected"),
        Step("trained", "Learned from", "labels", 20 * k, 20 * k, "answered"),
    )
    events = (
        Step("logged", "Events logged", "events", 700 * k),
        Step(
            "harvested",
            "Harvested",
            "events",
            690 * k,
            700 * k,
            "logged",
            rest=(Part("orphan", 6 * k), Part("rejected", 4 * k)),
        ),
    )
    return Account(round_id, steps, events)


def _efficiency() -> Efficiency:
    def arm(right: tuple[int, ...]) -> tuple[ArmPoint, ...]:
        return tuple(ArmPoint(f"000{i}", 20 * (i + 1), wilson(r, 597)) for i, r in enumerate(right))

    return Efficiency(
        arm((421, 505, 556)),
        arm((380, 432, 499)),
        {
            f"000{i}": Difference(value, value - 0.03, value + 0.03, 597, True, "Newcombe")
            for i, value in enumerate((0.02, 0.122, 0.095))
        },
        Saved(0.836, 60.0, 39.0, 8, 27),
        (ShareComparison("", wilson(31, 54), wilson(2, 6)),),
    )


def _models() -> tuple[ModelRow, ...]:
    bins = tuple(
        ReliabilityBin(
            i / 10, (i + 1) / 10, n, i / 10 + 0.06, wilson(round(n * (i / 10 + 0.02)), n)
        )
        for i, n in enumerate((0, 0, 3, 8, 21, 30, 44, 61, 90, 340))
        if n
    )
    slices = (
        SliceRow("camera", "east-1", wilson(300, 310)),
        SliceRow("camera", "east-2", wilson(245, 290), worse=True, corrected=True),
        SliceRow("camera", "a camera with quite a long name", wilson(11, 17), small=True),
        SliceRow("light", "dim", wilson(180, 210)),
        SliceRow("light", "daylight", wilson(376, 387)),
    )
    gates = ("passed", "rejected", "passed")
    states = ("retired", "rejected", "in_service")
    return tuple(
        ModelRow(
            f"m-{i}f3a9c2e1b",
            f"model of round {i}",
            f"000{i}",
            "loop",
            states[i],
            20 * (i + 1),
            wilson(right, 597),
            right / 600,
            wilson(31 - 8 * i, 597),
            Rate(0.21 - 0.05 * i, 0.17 - 0.05 * i, 0.25 - 0.05 * i, 597),
            bins,
            slices,
            gates[i],
            "accuracy 0.846, `holdout`",
            Difference(0.11, 0.07, 0.15, 597, True) if i else None,
            NOON,
        )
        for i, right in enumerate((421, 505, 556))
    )


def some_map(n: int, thumbnails: int = 60) -> EmbeddingMap:
    """Return a map of ``n`` points in ten clusters; the first points have a picture."""
    rng = np.random.Generator(np.random.PCG64(7))
    centres = rng.random((10, 2)) * 0.8 + 0.1
    points = []
    for i in range(n):
        label = i % 10
        x, y = np.clip(centres[label] + rng.normal(0, 0.04, 2), 0, 1)
        told = str(label) if i % 3 else ""
        points.append(
            MapPoint(
                f"sample-{i:05d}",
                f"digit_{i:05d}.png",
                float(x),
                float(y),
                told,
                str(label if i % 11 else (label + 1) % 10),
                float(rng.uniform(0.4, 1)),
                ("Blurred: sharpness 0.4, threshold 2.1",) if i % 13 == 0 else (),
                ("Blurred",) if i % 13 == 0 else (),
                "Uncertain: 0.93 of 1." if i % 20 == 0 else "",
                f"000{i % 3}",
                f"000{i % 3}" if i % 20 == 0 else "",
                "holdout" if i % 4 == 0 else "pool",
                f"camera east-{i % 2}",
                i if i < thumbnails else -1,
                True,
            )
        )
    return EmbeddingMap(
        tuple(points),
        tuple(thumbnail(i) for i in range(min(n, thumbnails))),
        1212,
        "pixels_pca64",
        "PCA of downscaled pixels",
        "t-SNE",
        f"{n:,} of 1,212 pictures are shown: all that are flagged, chosen or labelled, and a "
        "random draw of the rest.",
        "model of round 2",
    )


def _drift() -> tuple[DriftSeries, ...]:
    def series(title: str, kind: str, scores: tuple[float, ...], unit: str) -> DriftSeries:
        points = tuple(
            DriftPoint(
                f"000{i}",
                DRIFT if score > 0.15 else STABLE,
                score,
                0.15,
                "the model's own holdout",
                500,
                597,
                0.01,
            )
            for i, score in enumerate(scores)
        )
        drifts = points[-1].state == DRIFT
        return DriftSeries(
            "digits", "endpoint", kind, title, unit, points, "model of round 1", drifts
        )

    few = DriftSeries(
        "camera east-1",
        "source",
        "pixel_drift",
        "Pixels",
        "share",
        (DriftPoint("0002", TOO_FEW, reason="12 pictures; 50 are needed"),),
    )
    return (
        series("Confidences", "confidence_drift", (0.04, 0.09, 0.31), "Wasserstein distance"),
        series("Predictions", "prediction_drift", (0.02, 0.03, 0.05), "share"),
        few,
    )


def _cost() -> Cost:
    stages = {"ingest": 1.2, "embed": 9.8, "infer": 0.8, "monitor": 0.3, "select": 0.2}
    rounds = tuple(
        RoundCost(
            f"000{i}",
            {**stages, "train": 5.1 + 3 * i, "evaluate": 0.9, "report": 1.4, "export": 0.2},
            None,
            420,
            20,
            199 if i == 0 else 0,
            64.0,
            Difference(0.11, 0.07, 0.15, 597, True) if i else None,
            1.8 if i else None,
            1.6 if i else None,
        )
        for i in range(3)
    )
    return Cost(
        rounds,
        seconds=sum(one.total_seconds for one in rounds),
        gpu_note="No stage says on what it ran.",
        images=1212,
        labels=60,
        holdout_labels=199,
        gained=Difference(0.226, 0.18, 0.27, 597, True),
        labels_per_point=1.77,
    )


def _lineage() -> Lineage:
    return Lineage(
        "m-2f3a9c2e1b",
        "model of round 2",
        "0002",
        "small convolutional network",
        "sha256:9f31",
        60,
        (Part("oracle", 60),),
        tuple(Part(f"round {i}", 20) for i in range(3)),
        (Part("selected", 54), Part("random", 6)),
        (Part("camera east-1", 33), Part("camera east-2", 27)),
        tuple(Part(str(i), 6) for i in range(10)),
        597,
        wilson(556, 597),
        (DecisionLine("gate", "model of round 2", "passed", "above by 8.5 points", "0002", NOON),),
        "model of round 0",
        tuple(
            LearnedFrom(
                f"s{i}", f"digit_{i:04d}.png", str(i % 10), "oracle", "0000", "selected", ""
            )
            for i in range(60)
        ),
        "file:///tmp/demo/lake/models/m-2f3a9c2e1b",
        NOON - timedelta(hours=1),
    )
