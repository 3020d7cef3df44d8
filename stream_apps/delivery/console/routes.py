"""The routes of the console's files. They are public: whoever opens the page has yet to sign in. They are no part of
the API, so OpenAPI does not describe them."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, Request, Response

from schemas.problems import ProblemError
from stream_apps.delivery.answers import accepts_gzip, is_known
from stream_apps.delivery.console.assets import PAGE, SECURITY_HEADERS, Asset


class FileNotFound(ProblemError):
    """The console has no such file."""

    code, title, status = "file-not-found", "File not found", 404

    def __init__(self) -> None:
        super().__init__("The console has no file of this name; it begins at GET /.")


def make_router(assets: Mapping[str, Asset]) -> APIRouter:
    """The routes that serve these files."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def get_page(request: Request) -> Response:
        """The page. It loads `/console/…` and calls this API and the ingest API, all at the address it came from."""
        return answer_asset(request, assets[PAGE])

    @router.get("/console/{name}")
    async def get_file(request: Request, name: str) -> Response:
        """A script, the style sheet or the icon."""
        asset = assets.get(name)
        if asset is None or name == PAGE:
            raise FileNotFound
        return answer_asset(request, asset)

    return router


def answer_asset(request: Request, asset: Asset) -> Response:
    """The file, or 304. Browsers ask each time, so that all files are of one version."""
    headers = {"ETag": asset.tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding", **SECURITY_HEADERS}
    if is_known(asset.tag, request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    body = asset.body
    if accepts_gzip(request.headers.get("accept-encoding", "")):
        headers["Content-Encoding"], body = "gzip", asset.compressed
    return Response(body, media_type=asset.media_type, headers=headers)
