"""Asks an endpoint which model it serves, and waits until it is the wanted one."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import Any

from visionloop.errors import VisionloopError

POLL_SECONDS = 0.2


class NoAnswer(VisionloopError):
    """An endpoint could not be asked: nothing is known of its model."""


def served_models(url: str, name: str, *, timeout: float = 5.0) -> list[str]:
    """Return the model ids that an endpoint answers with, from its V2 model metadata.

    Args:
        url: Address of the predictor, for example ``http://127.0.0.1:8080``.
        name: Name of the model.
        timeout: Seconds to wait for the answer.

    Returns:
        The ``versions`` of ``GET /v2/models/<name>``; none while it has no model.

    Raises:
        OSError: Nothing answers there.
        HTTPException: What answers there does not speak HTTP, or broke off.
    """
    try:
        with urllib.request.urlopen(
            f"{url.rstrip('/')}/v2/models/{name}", timeout=timeout
        ) as reply:
            body: Any = json.load(reply)
    except urllib.error.HTTPError as error:
        if error.code in (404, 503):
            return []  # up, without a model of that name yet
        raise
    versions = body.get("versions") if isinstance(body, dict) else None
    return [str(version) for version in versions or []]


def why_refused(url: str, model_id: str, *, timeout: float = 5.0) -> str:
    """Return why an endpoint refuses a model; empty when it does not, or does not say.

    Args:
        url: Address of the predictor.
        model_id: The model.
        timeout: Seconds to wait for the answer.
    """
    try:
        with urllib.request.urlopen(
            f"{url.rstrip('/')}/visionloop/status", timeout=timeout
        ) as reply:
            refused = json.load(reply)["refused"] or {}
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return ""  # another server than ours
    return str(refused.get("reason", "")) if refused.get("model_id") == model_id else ""


def wait_for_model(
    url: str,
    name: str,
    model_id: str,
    *,
    timeout: float,
    on_wait: Callable[[float], None] = lambda seconds: None,
) -> float:
    """Wait until an endpoint serves a model.

    Args:
        url: Address of the predictor.
        name: Name of the model there.
        model_id: The model that it shall serve.
        timeout: Seconds to wait.
        on_wait: Called now and then with the seconds waited so far.

    Returns:
        Seconds waited.

    Raises:
        NoAnswer: It did not answer at the end of that time.
        VisionloopError: It answered all that time, and not with that model; says with what.
    """
    began = time.monotonic()
    while True:
        answers = False
        try:
            served = served_models(url, name)
            answers = True
            state = f"it serves {', '.join(served)}" if served else "it is up and has no model yet"
            if model_id in served:
                return time.monotonic() - began
        except (OSError, HTTPException, ValueError) as error:
            state = f"it does not answer: {getattr(error, 'reason', error)}"
        waited = time.monotonic() - began
        if waited > timeout:
            if refusal := why_refused(url, model_id):
                state += f", and refuses this one: {refusal.rstrip('.')}"
            what = f"the endpoint {name!r} did not come up with model {model_id} within "
            what += f"{timeout:g} s: {state}"
            remedy = (
                "Start it with `visionloop serve --model <pointer>` or look at its log, then run "
                "the round, or the rollback, again; the model that was in service is in service "
                "again"
            )
            if answers:
                raise VisionloopError(what, where=url, remedy=remedy)
            raise NoAnswer(what, where=url, remedy=remedy)
        on_wait(waited)
        time.sleep(POLL_SECONDS)
