"""Inference in the predictor's metrics: how many, how long, how many at once, and what went wrong.

KServe's own metrics time what succeeded and count no errors; a canary is judged by errors.

======================================= ========================================================
``visionloop_inference_requests_total`` requests answered, by `code`: ``2xx``, ``4xx``, ``5xx``
``visionloop_inference_errors_total``   those answered with an error, by `reason`; and those that
                                        were not: ``gone``, ``malformed``, ``connections``
``visionloop_inference_seconds``        by `stage` of a request: ``decode`` (and reading),
                                        ``queue``, ``inference``
``visionloop_inference_batch_images``   pictures that went through the network at once
``visionloop_inference_images_total``   pictures answered, by `model_id`
``visionloop_inference_under_way``      requests that are being answered
``visionloop_model_info``               1, with `model_id` and `provider` of the model in service
======================================= ========================================================
"""

from __future__ import annotations

from prometheus_client import Counter, Histogram

STAGES = ("decode", "queue", "inference")
REASONS = (
    "invalid_request", "invalid_image", "too_large", "too_slow", "not_found", "not_ready",
    "overloaded", "ending", "internal", "gone", "malformed", "connections",
)  # fmt: skip

_REQUESTS = Counter(
    "visionloop_inference_requests", "Inference requests answered, by class of status", ["code"]
)
_ERRORS = Counter(
    "visionloop_inference_errors", "Inference requests that got no answer, by reason", ["reason"]
)
_SECONDS = Histogram(
    "visionloop_inference_seconds",
    "Seconds of a stage of a request",
    ["stage"],
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
_BATCH = Histogram(
    "visionloop_inference_batch_images",
    "Pictures that went through the network at once",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
)
_IMAGES = Counter("visionloop_inference_images", "Pictures answered, by model", ["model_id"])
# There from the start, so that a rate needs no guess.
_CODES = {code: _REQUESTS.labels(f"{code}xx") for code in (2, 4, 5)}
_STAGES = {stage: _SECONDS.labels(stage) for stage in STAGES}
for _reason in REASONS:
    _ERRORS.labels(_reason)


def count(status: int) -> None:
    """Count an answer.

    Args:
        status: Its HTTP status, or that which fits a status of gRPC.
    """
    _CODES[2 if status < 400 else status // 100].inc()


def count_error(reason: str) -> None:
    """Count what got no answer, or an error, which `count` is told of, too.

    Args:
        reason: One of `REASONS`.
    """
    _ERRORS.labels(reason).inc()


def observe(stage: str, seconds: float) -> None:
    """Count the seconds of a stage of a request."""
    _STAGES[stage].observe(seconds)


def count_run(model_id: str, pictures: int, max_batch: int) -> None:
    """Count pictures that went through the network, as many at once as it takes.

    Args:
        model_id: The model.
        pictures: Their number.
        max_batch: Most at once.
    """
    for start in range(0, pictures, max_batch):
        _BATCH.observe(min(max_batch, pictures - start))
    _IMAGES.labels(model_id).inc(pictures)


def is_inference(method: str, path: str) -> bool:
    """Return whether a request asks for a prediction, and not for health or metadata.

    Args:
        method: HTTP method.
        path: Path of the request.
    """
    return method == "POST" and path.endswith((":predict", "/infer"))
