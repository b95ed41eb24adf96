"""`lostwax serve`: an artifact, or a checkpoint that is compiled first, over HTTP."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.cli.checked_model import (
    require_checkpoint,
    require_fits,
    require_runnable,
    require_used,
)
from lostwax.cli.default_model import NAME, default_artifact, default_checkpoint
from lostwax.cli.named_artifact import named_artifact
from lostwax.cli.named_paths import Checkpoint, Model, OutFolder
from lostwax.cli.option_types import (
    MORE,
    Count,
    Descriptor,
    Drafts,
    Flag,
    Host,
    Name,
    Pages,
    Port,
    Seconds,
    Stall,
    TargetName,
    Threads,
)
from lostwax.server.engine.extend_budget import MAX_STALL
from lostwax.server.engine.options import EngineOptions


def serve(
    path: Model | None = None,
    /,
    *,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    served_model_name: Name | None = None,
    checkpoint: Checkpoint | None = None,
    drafts: Drafts | None = None,
    num_pages: Pages | None = None,
    max_running_requests: Count | None = None,
    threads: Threads | None = None,
    target: Annotated[TargetName | None, MORE] = None,
    dtype: Annotated[Literal["fp32", "bf16"] | None, MORE] = None,
    cache: Annotated[OutFolder | None, MORE] = None,
    certificates: Annotated[OutFolder | None, MORE] = None,
    allow_compiled: Annotated[Flag, MORE] = False,
    disable_radix_cache: Annotated[Flag, MORE] = False,
    max_stall: Annotated[Stall, MORE] = MAX_STALL,
    drain: Annotated[Seconds, MORE] = 10.0,
    allow_host: Annotated[list[Host] | None, MORE, Parameter(negative=())] = None,
    allow_origin: Annotated[list[str] | None, MORE, Parameter(negative=())] = None,
    insecure: Annotated[Flag, MORE] = False,
    ready_fd: Annotated[Descriptor | None, MORE] = None,
) -> None:
    """Serve an artifact over HTTP; a checkpoint is compiled first, beside it.

    Without PATH the small trained model that comes with lostwax is served, as lostwax-tiny; the
    first time it is compiled into the user's cache folder.

    Parameters
    ----------
    path
        The folder of an artifact or of a checkpoint. A checkpoint is compiled first, to
        PATH.TARGET-DTYPE.lostwax. Default: the small trained model that comes with lostwax.
    host
        Address to listen on. One that other machines reach is refused without --insecure.
    port
        Port to listen on. 0 takes any free one, which is printed.
    served_model_name
        What clients call the model (default: the checkpoint's name with its digest).
    checkpoint
        Where the artifact's checkpoint lies, if not where it was when compiled.
    drafts
        Tokens to draft between two decode steps (default: as many as the artifact can verify; none
        for a checkpoint).
    num_pages
        Pages of cache (default: every request at full length, within 1 GiB).
    max_running_requests
        Requests that run at once at most; others wait (default: as many as the artifact takes).
    threads
        Threads of a CPU engine (default: what steps timed at the start are fastest on; with several
        ranks, each has its share of the cores).
    target
        What to compile a checkpoint for (default: cpu).
    dtype
        What to compile a checkpoint in (default: bf16; the default model on the CPU: fp32).
    cache
        Where the default model's artifact is kept (default: $XDG_CACHE_HOME/lostwax, or
        ~/.cache/lostwax).
    certificates
        A folder to keep what the golden probes showed on this device (default: in the artifact).
    allow_compiled
        Serve lowerings that never ran on this device.
    disable_radix_cache
        Run every prompt whole, also where another request's pages hold its beginning: for several
        tenants, who could else find out how one another's prompts begin.
    max_stall
        How long an answer waits for its next token while prompts run, in times of its usual wait.
        Less keeps answers smooth, more lets first tokens come sooner.
    drain
        Seconds that requests under way have at Ctrl-C or SIGTERM, before they end with an error.
    allow_host
        A name by which clients call the server, beside loopback's and --host; may be repeated.
    allow_origin
        An origin (scheme://host[:port]) whose web pages may use the server; may be repeated.
    insecure
        Allow a host that others can reach although there is no authentication; for several tenants
        add --disable-radix-cache.
    ready_fd
        For programs: a pipe's file descriptor, to which one line of JSON with the port is written
        when the model answers.
    """
    from lostwax.server.gateway.origins import require_origins
    from lostwax.server.gateway.serve import require_may_listen
    from lostwax.server.gateway.serve import serve as run

    require_used(path, checkpoint=checkpoint, cache=cache, target=target, dtype=dtype)
    require_origins(allow_origin or ())
    require_may_listen(host, port, insecure=insecure)
    require_runnable(path, target)
    if path is None:
        checkpoint = default_checkpoint()
        served_model_name = served_model_name or NAME
        artifact = default_artifact(
            cache=cache, target=target or "cpu", dtype=dtype, drafts=drafts or 0
        )
    else:
        artifact = named_artifact(path, target or "cpu", dtype or "bf16", drafts or 0)
    require_fits(
        artifact, drafts=drafts, num_pages=num_pages, max_running_requests=max_running_requests
    )
    require_checkpoint(ArtifactReader(artifact), checkpoint)
    run(
        artifact,
        checkpoint=checkpoint,
        host=host,
        port=port,
        engine=EngineOptions(
            drafts=drafts,
            prefix_cache=not disable_radix_cache,
            max_running=max_running_requests,
            max_stall=max_stall,
        ),
        num_pages=num_pages,
        threads=threads,
        model=served_model_name,
        insecure=insecure,
        certificates=certificates,
        allow_compiled=allow_compiled,
        drain_s=drain,
        allowed_hosts=tuple(allow_host or ()),
        allowed_origins=tuple(allow_origin or ()),
        ready_fd=ready_fd,
    )
