"""`lostwax serve`: an artifact, or a checkpoint that is compiled first, over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.cli.default_model import NAME, default_artifact, default_checkpoint
from lostwax.cli.named_artifact import named_artifact


class NothingToServe(ValueError):
    """What was named can not be served; the message says what to give."""


def serve(
    path: Path | None = None,
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    served_model_name: str | None = None,
    checkpoint: Path | None = None,
    cache: Path | None = None,
    target: str = "cpu",
    dtype: Literal["fp32", "bf16"] | None = None,
    drafts: int | None = None,
    num_pages: int | None = None,
    threads: int | None = None,
    insecure: bool = False,
    certificates: Path | None = None,
    allow_compiled: Annotated[bool, Parameter(negative=())] = False,
    drain: float = 10.0,
    allow_host: Annotated[list[str] | None, Parameter(negative=())] = None,
    allow_origin: Annotated[list[str] | None, Parameter(negative=())] = None,
) -> None:
    """Serve an artifact over HTTP; a checkpoint is compiled first, beside it.

    Without PATH the small trained model that comes with lostwax is served, as lostwax-tiny; the
    first time it is compiled into the user's cache folder.

    Parameters
    ----------
    path
        An artifact folder, or a checkpoint folder (compiled to PATH.TARGET-DTYPE.lostwax).
    host
        Address to listen on; one that other machines reach is refused without --insecure.
    port
        Port to listen on.
    served_model_name
        What clients call the model (default: the checkpoint's name with its digest).
    checkpoint
        Where the artifact's checkpoint lies, if not where it was when compiled.
    cache
        Where the default model's artifact is kept (default: $XDG_CACHE_HOME/lostwax, or
        ~/.cache/lostwax).
    target
        What to compile a checkpoint for.
    dtype
        What to compile a checkpoint in (default: bf16; the default model on the CPU: fp32).
    drafts
        Tokens to draft between two decode steps (default: as many as the artifact can verify; none
        for a checkpoint).
    num_pages
        Pages of cache (default: every request at full length, within 1 GiB).
    threads
        Threads of a CPU engine (default: torch's).
    insecure
        Allow a host that others can reach although there is no authentication.
    certificates
        A folder to keep what the golden probes showed on this device (default: in the artifact).
    allow_compiled
        Serve lowerings that never ran on this device.
    drain
        Seconds that requests under way have at Ctrl-C or SIGTERM, before they end with an error.
    allow_host
        A name by which clients call the server, beside loopback's and --host; may be repeated.
    allow_origin
        An origin (scheme://host[:port]) whose web pages may use the server; may be repeated.
    """
    from lostwax.server.gateway.serve import serve as run

    if path is None:
        if checkpoint is not None:
            raise NothingToServe(
                "--checkpoint goes with an artifact; name that, or give the checkpoint's folder"
                f" itself: lostwax serve {checkpoint}"
            )
        checkpoint = default_checkpoint()
        served_model_name = served_model_name or NAME
        artifact = default_artifact(cache=cache, target=target, dtype=dtype, drafts=drafts or 0)
    else:
        artifact = named_artifact(path, target, dtype or "bf16", drafts or 0)
    weights = ArtifactReader(artifact).checkpoint(checkpoint)
    if not weights.is_dir():
        raise NothingToServe(
            f"the checkpoint of {artifact} is not at {weights}; give --checkpoint DIR"
        )
    run(
        artifact,
        checkpoint=checkpoint,
        host=host,
        port=port,
        drafts=drafts,
        num_pages=num_pages,
        threads=threads,
        model=served_model_name,
        insecure=insecure,
        certificates=certificates,
        allow_compiled=allow_compiled,
        drain_s=drain,
        allowed_hosts=tuple(allow_host or ()),
        allowed_origins=tuple(allow_origin or ()),
    )
