"""The live view's addresses.

================== ================================================================================
 /                  the report of the newest version, in a frame
 /images            images, a page at a time, with filters
 /images/ID         all that is known of an image
 /api/images        the same as /images as JSON
 /api/columns       what can be filtered and sorted by
 /version           which version is shown and which is the newest
 /healthz           alive
================== ================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse

from visionloop.errors import InputError, VisionloopError
from visionloop.lake import Lake
from visionloop.monitoring.live import pages
from visionloop.monitoring.live.asking import Finder, asked_of
from visionloop.monitoring.live.columns import plain
from visionloop.monitoring.live.details import Details, details_of, is_cheap, neighbours_of
from visionloop.monitoring.live.filters import OF_KIND
from visionloop.monitoring.live.following import Following
from visionloop.monitoring.live.guard import REPORT_PATH
from visionloop.monitoring.live.index import Index
from visionloop.monitoring.live.pictures import NoPicture, Pictures

# An id names an image: nothing else of an address is looked at.
_ID = r"/{sample_id:str}"
# A browser asks again after an hour, and then learns that an image was erased.
_AN_HOUR = {"cache-control": "private, max-age=3600"}
_NEVER = {"cache-control": "no-store"}


_Answer = TypeVar("_Answer")


class _NotYet(Exception):
    """There is nothing to show yet."""


def live_app(following: Following, pictures: Pictures) -> FastAPI:
    """Return the application.

    Args:
        following: Follows the lake.
        pictures: Reads pictures.
    """
    app = FastAPI(title="visionloop live view", docs_url=None, redoc_url=None)
    finder = Finder()

    def ready() -> tuple[Lake, Index]:
        shown = following.shown
        if shown.lake is None or shown.index is None:
            raise _NotYet
        return shown.lake, shown.index

    def retried(work: Callable[[Lake, Index], _Answer]) -> tuple[_Answer, Index]:
        """Do work on the rows of the version that is shown, or of a newer one if they are gone."""
        lake, index = ready()
        try:
            return work(lake, index), index
        except (VisionloopError, OSError, pa.ArrowException):
            newer = following.refresh(index)
            return work(lake, newer), newer

    @app.exception_handler(_NotYet)
    def not_yet(request: Request, _: Exception) -> Response:
        shown = following.shown
        if request.url.path.startswith("/api/"):
            told = {"error": shown.problem or pages.waiting_words(shown, following.uri)}
            return JSONResponse(told, 503, {"retry-after": "2"})
        return HTMLResponse(pages.waiting(shown, following.uri), headers=_NEVER)

    @app.exception_handler(InputError)
    def wrong(request: Request, error: InputError) -> Response:
        if request.url.path.startswith("/api/"):
            told = {"error": error.what, "where": error.where, "remedy": error.remedy}
            return JSONResponse(told, 400, _NEVER)
        return HTMLResponse(pages.problem(following.shown, error), 400, _NEVER)

    @app.exception_handler(VisionloopError)
    def away(request: Request, error: VisionloopError) -> Response:
        if request.url.path.startswith("/api/"):
            return JSONResponse({"error": str(error)}, 503, {"retry-after": "2"})
        return HTMLResponse(pages.problem(following.shown, error), 503, _NEVER)

    @app.exception_handler(404)
    def unknown(request: Request, _: Exception) -> Response:
        if request.url.path.startswith("/api/"):
            return JSONResponse({"error": "there is no such address"}, 404, _NEVER)
        return HTMLResponse(pages.unknown(following.shown), 404, _NEVER)

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    def report() -> Response:
        ready()
        following.ask()
        return HTMLResponse(pages.report(following.shown), headers=_NEVER)

    @app.api_route(REPORT_PATH, methods=["GET", "HEAD"], include_in_schema=False)
    def report_page() -> Response:
        held = following.shown.report
        if held is None:
            return PlainTextResponse("the first report is being made\n", 404, _NEVER)
        return HTMLResponse(held.page, headers=_NEVER)

    @app.api_route("/images", methods=["GET", "HEAD"], include_in_schema=False)
    def images(request: Request) -> Response:
        lake, index = ready()
        asked = asked_of(request.query_params, index)
        found = finder.find(index, asked)
        rows = index.rows(found.rows)
        pictures.expect(lake, index, [row["sample_id"] for row in rows])
        page = pages.images(following.shown, index, asked, found, rows)
        return HTMLResponse(page, headers=_NEVER)

    @app.get(
        "/api/images",
        summary="Images, a page at a time",
        description="Parameters: `column`, `op` and `value`, all three once for each filter; "
        "`sort` (a column) and `order` (asc or desc); `page` (from 1) and `size` (1 to 500). "
        "Operators: eq, ne, lt, gt, contains, empty, filled. Times are UTC.",
    )
    def api_images(request: Request) -> Response:
        _, index = ready()
        asked = asked_of(request.query_params, index)
        found = finder.find(index, asked)
        rows = index.rows(found.rows)
        told = {
            "version": index.version,
            "as_of": plain(index.as_of),
            "predictions_of": index.model_id,
            "total": found.total,
            "matching": found.matching,
            "page": found.page,
            "pages": found.pages,
            "size": asked.size,
            "next": _api(asked.address(page=found.page + 1)) if found.page < found.pages else None,
            "previous": _api(asked.address(page=found.page - 1)) if found.page > 1 else None,
            "images": [{name: plain(value) for name, value in row.items()} for row in rows],
        }
        return JSONResponse(told, headers=_NEVER)

    @app.get("/api/columns", summary="What images can be filtered and sorted by")
    def api_columns() -> Response:
        _, index = ready()
        told = [
            {"name": one.name, "kind": one.kind, "title": one.title, "operators": OF_KIND[one.kind]}
            for one in index.columns.values()
        ]
        return JSONResponse({"version": index.version, "columns": told}, headers=_NEVER)

    @app.api_route("/images" + _ID, methods=["GET", "HEAD"], include_in_schema=False)
    def image(request: Request, sample_id: str) -> Response:
        def look(lake: Lake, index: Index) -> tuple[Details, list[tuple[str, float]] | None] | None:
            if index.row_of(sample_id) < 0:
                return None
            wanted = "neighbours" in request.query_params or is_cheap(lake, index)
            near = neighbours_of(lake, index, sample_id) if wanted else None
            return details_of(lake, index, sample_id), near

        found, index = retried(look)
        if found is None:
            return HTMLResponse(pages.unknown(following.shown), 404, _NEVER)
        details, near = found
        lake, _ = ready()
        others = [name for name, _ in near or ()] + [o for f in details.flags for o in f.images]
        pictures.expect(lake, index, others)
        there = pictures.is_there(index, sample_id)
        page = pages.image(following.shown, index, sample_id, details, near, there=there)
        return HTMLResponse(page, headers=_NEVER)

    @app.get("/thumbnails" + _ID, include_in_schema=False)
    def thumbnail(sample_id: str) -> Response:
        lake, index = ready()
        if index.row_of(sample_id) < 0:
            return PlainTextResponse("there is no such image\n", 404, _NEVER)
        try:
            shown = pictures.thumbnail(lake, index, sample_id)
        except NoPicture:
            return Response(pages.no_picture(), media_type="image/svg+xml", headers=_NEVER)
        return Response(shown.data, media_type=shown.content_type, headers=_AN_HOUR)

    @app.get("/media" + _ID, include_in_schema=False)
    def media(sample_id: str) -> Response:
        lake, index = ready()
        if index.row_of(sample_id) < 0:
            return PlainTextResponse("there is no such image\n", 404, _NEVER)
        try:
            shown = pictures.original(index, sample_id)
        except NoPicture:
            try:
                shown = pictures.thumbnail(lake, index, sample_id)
            except NoPicture:
                return Response(pages.no_picture(), media_type="image/svg+xml", headers=_NEVER)
        headers = {"content-disposition": "inline", **_NEVER}
        return Response(shown.data, media_type=shown.content_type, headers=headers)

    @app.get("/version", summary="Which version is shown, and which is the newest")
    def version() -> Response:
        shown = following.shown
        told = {
            "images": shown.index.version if shown.index else "",
            "report": shown.report.version if shown.report else "",
            "report_made": plain(shown.report.made_at) if shown.report else "",
            "newest": shown.newest,
            "as_of": plain(shown.as_of),
            "problem": shown.problem or shown.no_report,
            "memory_bytes": shown.index.nbytes if shown.index else 0,
        }
        return JSONResponse(told, headers=_NEVER)

    # Not beside the pictures in the pool of threads: storage that is slow must not make it late.
    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return PlainTextResponse("alive\n", headers=_NEVER)

    @app.get("/no-picture.svg", include_in_schema=False)
    def no_picture() -> Response:
        return Response(pages.no_picture(), media_type="image/svg+xml", headers=_AN_HOUR)

    @app.get("/live.css", include_in_schema=False)
    def style() -> Response:
        return Response(pages.style(), media_type="text/css", headers=_NEVER)

    @app.get("/live.js", include_in_schema=False)
    def script() -> Response:
        return Response(pages.script(), media_type="text/javascript", headers=_NEVER)

    return app


def _api(query: str) -> str:
    return f"/api/images?{query}" if query else "/api/images"
