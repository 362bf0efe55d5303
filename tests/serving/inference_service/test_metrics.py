"""Requests and errors, read from what real predictors and Triton show."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serving.conftest import Starter, picture
from visionloop.errors import VisionloopError
from visionloop.serving.config import KServeConfig
from visionloop.serving.inference_service.endpoint import Endpoint
from visionloop.serving.inference_service.metrics import Count, Tally, count_of

OURS = Endpoint("clf", "models", "clf", KServeConfig())


def test_the_predictor_counts_answers_by_the_class_of_their_status(
    start: Starter, bundle: Path
) -> None:
    server = start("serve", model_uri=str(bundle), name="clf", http_port=0, grpc_port=None)
    for _ in range(3):
        assert server.post("/v1/models/clf:predict", picture())[0] == 200
    assert server.post("/v1/models/clf:predict", b"no picture")[0] == 400
    server.get("/v2/health/ready")
    server.get("/v2/models/clf")
    page = server.get("/metrics").decode()
    assert 'visionloop_inference_requests_total{code="2xx"} 3.0' in page
    assert 'visionloop_inference_requests_total{code="4xx"} 1.0' in page
    assert count_of(page, OURS.name) == Count(4, 0)


@pytest.mark.parametrize(
    ("page", "requests", "errors"),
    [
        ('visionloop_inference_requests_total{code="5xx"} 2.0\n', 2, 2),
        ('# HELP visionloop_inference_requests_total{code="5xx"} 9\n', 0, 0),
        ("visionloop_inference_requests_created 1.7e9\n", 0, 0),
        ('nv_inference_request_success{model="clf",version="1"} 7\n', 7, 0),
        ('nv_inference_request_failure{model="clf",reason="BACKEND",version="1"} 3\n', 3, 3),
        # What a client cancelled or asked wrongly is no error of the server's.
        ('nv_inference_request_failure{model="clf",reason="CANCELED",version="1"} 3\n', 3, 0),
        ('nv_inference_request_failure{model="clf",reason="OTHER",version="1"} 3\n', 3, 0),
        ('nv_inference_request_failure{model="clf",version="1"} 3\n', 3, 3),
        ('nv_inference_request_success{model="other",version="1"} 7\n', 0, 0),
        ('visionloop_inference_requests_total{code="5xx"} NaN\n', 0, 0),
        ("", 0, 0),
    ],
)
def test_counts_are_read_from_prometheus_text(page: str, requests: int, errors: int) -> None:
    assert count_of(page, OURS.name) == Count(requests, errors)


def test_a_pod_that_restarted_is_counted_from_zero_again() -> None:
    assert Count(10, 2).since(Count(4, 1)) == Count(6, 1)
    assert Count(3, 0).since(Count(40, 1)) == Count(3, 0)


def test_a_tally_is_kept_over_a_restart_of_its_reader() -> None:
    tally = Tally({"m1": Count(5, 1)}, {"pod": Count(7, 1)})
    again = Tally.from_plain(tally.to_plain())
    assert (again.models, again.last) == (tally.models, tally.last)


def test_what_a_pod_counted_before_it_could_be_read_is_not_of_the_canary() -> None:
    tally, ours, now = Tally(), OURS, Count(900, 90)

    class Deaf:
        def proxy_get(self, *_: object, **__: object) -> bytes:
            raise VisionloopError("no route")

    class Heard:
        def proxy_get(self, *_: object, **__: object) -> bytes:
            good, bad = now.requests - now.errors, now.errors
            name = "visionloop_inference_requests_total"
            return f'{name}{{code="2xx"}} {good}\n{name}{{code="5xx"}} {bad}\n'.encode()

    annotations = {"visionloop.dev/model-id": "m1"}
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    pod = {"metadata": {"name": "p", "annotations": annotations}, "status": ready}
    tally.read(Deaf(), ours, [pod], first=True)  # type: ignore[arg-type]
    assert tally.unread == {"p": "no route."}
    tally.read(Heard(), ours, [pod])  # type: ignore[arg-type]
    assert tally.of("m1") == Count(0, 0)
    now = Count(910, 91)
    tally.read(Heard(), ours, [pod])  # type: ignore[arg-type]
    assert tally.of("m1") == Count(10, 1)
