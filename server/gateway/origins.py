"""Which origins an operator may allow. Knows no request, and none of the web's libraries."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s@A-Z]+")


class WrongOrigin(ValueError):
    """An allowed origin is not of the form scheme://host[:port]; the message says so."""


def require_origins(origins: Sequence[str]) -> None:
    """Raises WrongOrigin where one could never equal what a browser sends."""
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise WrongOrigin(
                f"--allow-origin {origin}: give scheme://host[:port] in lower case and without a"
                " path, such as http://localhost:3000"
            )
