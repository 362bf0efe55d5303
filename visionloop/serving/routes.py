"""REST inference, before KServe's own routes: they cost more than a small network does.

An ASGI application of two paths, V1 ``:predict`` and V2 ``/infer``; everything else is handed on.
"""

from __future__ import annotations

import logging
import re
import uuid
from typing import Any
from urllib.parse import parse_qs

import orjson

from visionloop.errors import VisionloopError
from visionloop.inference import OnnxModel
from visionloop.serving.answering import Answerer, Refused
from visionloop.serving.asgi import App, Receive, Scope, Send, reply
from visionloop.serving.payloads import Ask, read_v1, read_v2
from visionloop.serving.replies import write_v1, write_v2
from visionloop.serving.request_counts import count_error

_V1 = re.compile(r"/v1/models/([^/]+):predict")
_V2 = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
_LENGTH = b"inference-header-content-length"


class InferenceRoutes:
    """Answers inference requests, whose bodies come in one piece.

    Args:
        answerer: Asks the model.
        app: Takes every other request.
    """

    def __init__(self, answerer: Answerer, app: App) -> None:
        self._answerer = answerer
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope["path"]
        if scope["type"] == "http" and scope["method"] == "POST":
            if found := _V1.fullmatch(path):
                await self._answer(self._v1(found[1], scope, receive), send)
                return
            if found := _V2.fullmatch(path):
                await self._answer(self._v2(found[1], found[2] or "", scope, receive), send)
                return
        await self._app(scope, receive, send)

    async def _answer(self, answer: Any, send: Send) -> None:
        try:
            body, headers = await answer
        except Refused as error:
            count_error(error.reason)
            await reply(send, error.status, orjson.dumps({"error": str(error)}))
        except VisionloopError as error:
            count_error("internal")
            await reply(send, 500, orjson.dumps({"error": str(error)}))
        except Exception as error:
            logging.getLogger(__name__).exception("a request could not be answered")
            count_error("internal")
            told = f"{type(error).__name__}: the server's log says more"
            await reply(send, 500, orjson.dumps({"error": told}))
        else:
            await reply(send, 200, body, *headers)

    async def _v1(self, name: str, scope: Scope, receive: Receive) -> tuple[bytes, list[Any]]:
        body: bytes = (await receive())["body"]
        query = parse_qs(scope["query_string"].decode("latin-1"))
        embedding = query.get("embedding", [""])[0].lower() in ("true", "1")

        def read(model: OnnxModel) -> Ask:
            self._answerer.check(model, name)
            return read_v1(body, embedding=embedding)

        ask, answer = await self._answerer.answer(read)
        return write_v1(ask, answer, name), []

    async def _v2(
        self, name: str, version: str, scope: Scope, receive: Receive
    ) -> tuple[bytes, list[Any]]:
        body: bytes = (await receive())["body"]
        length = next((v.decode("latin-1") for k, v in scope["headers"] if k == _LENGTH), None)

        def read(model: OnnxModel) -> Ask:
            self._answerer.check(model, name, version)
            return read_v2(body, length)

        ask, answer = await self._answerer.answer(read)
        request_id = ask.request_id or str(uuid.uuid4())
        content, json_length = write_v2(ask, answer, name, request_id)
        if json_length is None:
            return content, []
        return content, [
            (b"content-type", b"application/octet-stream"),
            (_LENGTH, str(json_length).encode()),
        ]
