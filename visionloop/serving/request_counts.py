"""Inference requests by the class of their status, in the predictor's metrics.

KServe's own metrics time what succeeded and count no errors; a canary is judged by errors.
"""

from __future__ import annotations

from prometheus_client import Counter

_REQUESTS = Counter(
    "visionloop_inference_requests", "Inference requests answered, by class of status", ["code"]
)
for _code in ("2xx", "4xx", "5xx"):
    _REQUESTS.labels(_code)  # there from the start, so that a rate needs no guess


def count(status: int) -> None:
    """Count an answer.

    Args:
        status: Its HTTP status, or that which fits a status of gRPC.
    """
    _REQUESTS.labels(f"{status // 100}xx").inc()


def is_inference(method: str, path: str) -> bool:
    """Return whether a request asks for a prediction, and not for health or metadata.

    Args:
        method: HTTP method.
        path: Path of the request.
    """
    return method == "POST" and path.endswith((":predict", "/infer"))
