"""`/docs`: the API's description for people, with a form for each request. All of it comes from this process."""

from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Route
from swagger_ui_bundle import swagger_ui_path  # type: ignore[import-untyped]

from service.api.state import State
from service.domain.errors import NotFound

HEADERS: Final = {
    "cache-control": "no-cache",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
FILES: Final = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
# Addresses are relative: a reverse proxy may give Klingel a path of its own.
PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Klingel: API</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<main id="api"></main>
<noscript>This page needs JavaScript. The description itself is at <a href="openapi.json">openapi.json</a>.</noscript>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
START: Final = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  tryItOutEnabled: true,
  persistAuthorization: false,
  validatorUrl: null,
});
"""


async def page(request: Request[State]) -> Response:
    return HTMLResponse(PAGE, headers=HEADERS)


async def file(request: Request[State]) -> Response:
    """
    Raises:
        NotFound: none of those that the page asks for.
    """
    name = request.path_params["name"]
    if name == "start.js":
        return Response(START, media_type="text/javascript", headers=HEADERS)
    if name not in FILES:
        raise NotFound(f"There is no file {name} here.")
    return FileResponse(str(swagger_ui_path / name), media_type=FILES[name], headers=HEADERS)


# Not described by `/openapi.json`: for people.
ROUTES: Final[Sequence[BaseRoute]] = (
    Route("/docs", page, methods=["GET"]),
    Route("/docs/{name}", file, methods=["GET"]),
)
