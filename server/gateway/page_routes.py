"""The page at `/`: files that lie beside this one, sent as they are. Knows nothing of chats.

The page loads nothing from elsewhere and runs no script but its own, which the headers hold a
browser to. It is sent without a key, as a browser has none yet: it holds no secret, and asks for
the key itself.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request, Response

FOLDER = Path(__file__).parent / "page"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page/reading.js": ("reading.js", "text/javascript; charset=utf-8"),
    "/page/tokens.js": ("tokens.js", "text/javascript; charset=utf-8"),
    "/page/choices.js": ("choices.js", "text/javascript; charset=utf-8"),
    "/page/explaining.js": ("explaining.js", "text/javascript; charset=utf-8"),
}
"""Names and types by path."""
_POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "img-src data:",  # the empty icon, for which a browser would ask elsewhere
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
)
HEADERS = {
    "Content-Security-Policy": "; ".join(_POLICY),
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def add_page(app: FastAPI) -> None:
    """Add a route for each file; they are read once. They stand in no `/openapi.json`."""
    contents = {path: (FOLDER / name).read_bytes() for path, (name, _) in FILES.items()}

    async def page(http: Request) -> Response:
        path = http.scope["route"].path
        return Response(contents[path], headers=HEADERS, media_type=FILES[path][1])

    for path in FILES:
        app.add_api_route(path, page, methods=["GET"], include_in_schema=False)
