"""Types of options that are not paths: each names its bounds, so that all are checked on entry.

A validator raises ValueError with what must hold, before which `lostwax.cli.app` puts the option's
name. Knows no command.
"""

from __future__ import annotations

import fcntl
import ipaddress
import math
import os
import re
from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlsplit

from cyclopts import Group, Parameter

MORE = Parameter(group=Group("More options", sort_key=9))
"""Options that `--help` only names; `--help-all` says what they do."""


def also(*names: str) -> Parameter:
    """One of MORE by its own name and by those that other servers give to the same."""
    return Parameter(name=names, group=MORE.group)


MAX_NAME_CHARS = 256
MAX_PORT = 65535


class OptionRefused(Exception):
    """An option's value cannot be; the message is a whole sentence with the remedy."""


def within(
    low: float, high: float = math.inf, *, hint: str = ""
) -> Callable[[object, float | None], None]:
    """Both ends are allowed; None is an option that was not given."""
    bounds = f"at least {low:g}" if math.isinf(high) else f"in {low:g}..{high:.15g}"

    def validate(_: object, value: float | None) -> None:
        if value is not None and not low <= value <= high:  # not a number lies nowhere
            raise ValueError(f"must be {bounds}, not {value}{hint}")

    return validate


def above_zero(high: float) -> Callable[[object, float | None], None]:
    """Above 0 and at most `high`."""

    def validate(_: object, value: float | None) -> None:
        if value is not None and not 0 < value <= high:
            raise ValueError(f"must be above 0 and at most {high:g}, not {value}")

    return validate


def _name(_: object, value: str | None) -> None:
    if value is not None and not (value.isprintable() and 0 < len(value) <= MAX_NAME_CHARS):
        raise ValueError(f"must be one line of 1 to {MAX_NAME_CHARS} printable characters")


def _host(_: object, value: str) -> None:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if not re.fullmatch(r"(?=.{1,253}\Z)[\w-]{1,63}(\.[\w-]{1,63})*", value, re.ASCII):
            raise ValueError(
                f"must be an address or a host's name, such as 127.0.0.1, not {value[:64]!r}"
            ) from None


def _url(_: object, value: str | None) -> None:
    if value is None:
        return
    try:
        found = urlsplit(value)
        port = found.port  # raises ValueError beyond 65535
    except ValueError:
        raise ValueError(f"{value[:200]!r} is no URL: its port must be in 0..{MAX_PORT}") from None
    if found.password is not None:
        raise ValueError(
            "must hold no password, which logs and results would show; put a key in a file:"
            " --api-key-file FILE"
        )
    if found.scheme not in ("http", "https") or not found.hostname or port == 0:
        raise ValueError(f"{value[:200]!r} is no URL of a server; give one like http://HOST:PORT")


def _target(_: object, value: str | None) -> None:
    if value is None:
        return
    from lostwax.backends.registry import UnknownTarget, find_target

    try:
        find_target(value)
    except UnknownTarget as error:  # a ValueError, of which cyclopts would make its own sentence
        raise OptionRefused(str(error)) from error


def _key(_: object, value: str | None) -> None:
    if value is None:
        return
    from lostwax.server.gateway.api_keys import require_key

    require_key(value)  # a ValueError whose words fit behind the option's name


def _descriptor(_: object, value: int | None) -> None:
    if value is None:
        return
    try:
        can_write = fcntl.fcntl(value, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except (OSError, ValueError, OverflowError):
        can_write = False
    if not can_write:
        raise ValueError(
            "must be the number of a pipe's end that this process inherits and may write to,"
            f" not {value}"
        )


Flag = Annotated[bool, Parameter(negative=())]
"""Off unless it is given."""
Json = Annotated[bool, Parameter(name="--json", negative=())]
Key = Annotated[str, Parameter(validator=_key)]
Name = Annotated[str, Parameter(validator=_name)]
Host = Annotated[str, Parameter(validator=_host)]
Url = Annotated[str, Parameter(validator=_url)]
TargetName = Annotated[str, Parameter(validator=_target)]
Port = Annotated[int, Parameter(validator=within(0, MAX_PORT))]
Threads = Annotated[int, Parameter(validator=within(1, 1024))]
Count = Annotated[int, Parameter(validator=within(1, 2**31 - 1))]
"""Tokens, requests, examples: what there must be one of."""
Bytes = Annotated[int, Parameter(validator=within(1, 2**62))]
Pages = Annotated[
    int, Parameter(validator=within(2, 2**31 - 1, hint="; page 0 takes what padding writes"))
]
MAX_WAIT_S = 86400
Descriptor = Annotated[int, Parameter(validator=_descriptor)]
Seconds = Annotated[float, Parameter(validator=within(0, MAX_WAIT_S))]
Timeout = Annotated[float, Parameter(validator=above_zero(MAX_WAIT_S))]
Fraction = Annotated[float, Parameter(validator=above_zero(1))]
Gigabytes = Annotated[float, Parameter(validator=within(0, 1e6))]
Stall = Annotated[float, Parameter(validator=within(1.1, 1e6))]
Drafts = Annotated[int, Parameter(validator=within(0, 3))]
Ranks = Annotated[int, Parameter(validator=within(1, 1024))]
Seed = Annotated[int, Parameter(validator=within(0, 2**63 - 1))]
Temperature = Annotated[float, Parameter(validator=within(0, 2))]
TopP = Annotated[float, Parameter(validator=above_zero(1))]
