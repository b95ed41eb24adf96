"""`lostwax serve`: an artifact, or a checkpoint that is compiled first, over HTTP."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.cli.checked_model import (
    require_checkpoint,
    require_fits,
    require_runnable,
    require_used,
)
from lostwax.cli.decided import (
    Decided,
    given_drafts,
    named_model,
    require_decided,
    require_default,
)
from lostwax.cli.default_model import FAST_DTYPES, NAME, default_artifact, default_checkpoint
from lostwax.cli.default_target import DEFAULT_TARGET
from lostwax.cli.named_artifact import named_artifact
from lostwax.cli.named_paths import Checkpoint, File, Model, OutFolder, is_artifact
from lostwax.cli.option_types import (
    MORE,
    Count,
    Descriptor,
    Drafts,
    Flag,
    Fraction,
    Gigabytes,
    Host,
    Key,
    Name,
    OptionRefused,
    Pages,
    Port,
    Seconds,
    Stall,
    TargetName,
    Threads,
    Timeout,
    Url,
    also,
)
from lostwax.cli.serve_chats import chat_settings, named_template
from lostwax.cli.serve_limits import host_pages, pages_within, require_within
from lostwax.server.engine.extend_budget import MAX_STALL
from lostwax.server.engine.log_lines import LogFormat
from lostwax.server.engine.options import SERVED
from lostwax.server.gateway.api_keys import digests_of, read_keys
from lostwax.server.gateway.settings import (
    MAX_QUEUED_REQS,
    MAX_QUEUED_TOKENS,
    WATCHDOG_S,
    Settings,
)
from lostwax.server.gateway.tls import Tls


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
    max_running_requests: Annotated[
        Count | None, also("--max-running-requests", "--max-num-seqs")
    ] = None,
    max_queued_requests: Annotated[Count, MORE] = MAX_QUEUED_REQS,
    max_queued_tokens: Annotated[Count, MORE] = MAX_QUEUED_TOKENS,
    threads: Annotated[Threads | None, MORE] = None,
    context_length: Annotated[
        Count | None, also("--context-length", "--max-model-len", "--max-seq-len")
    ] = None,
    mem_fraction_static: Annotated[
        Fraction | None, also("--mem-fraction-static", "--gpu-memory-utilization")
    ] = None,
    chunked_prefill_size: Annotated[
        Count | None, also("--chunked-prefill-size", "--max-num-batched-tokens")
    ] = None,
    page_size: Annotated[Count | None, also("--page-size", "--block-size")] = None,
    watchdog_timeout: Annotated[Timeout, MORE] = WATCHDOG_S,
    request_timeout: Annotated[Timeout | None, MORE] = None,
    target: Annotated[TargetName | None, MORE] = None,
    dtype: Annotated[Literal["fp32", "bf16"] | None, MORE] = None,
    cache: Annotated[OutFolder | None, MORE] = None,
    certificates: Annotated[OutFolder | None, MORE] = None,
    allow_compiled: Annotated[Flag, MORE] = False,
    disable_radix_cache: Annotated[
        Flag, also("--disable-radix-cache", "--no-enable-prefix-caching")
    ] = False,
    enable_hierarchical_cache: Annotated[Flag, MORE] = False,
    hicache_size: Annotated[Gigabytes, also("--hicache-size", "--kv-offloading-size")] = 0.0,
    disable_overlap_schedule: Annotated[
        Flag, also("--disable-overlap-schedule", "--no-async-scheduling")
    ] = False,
    max_stall: Annotated[Stall, MORE] = MAX_STALL,
    drain: Annotated[Seconds, MORE] = 10.0,
    enable_metrics: Annotated[Flag, MORE] = False,
    collect_tokens_histogram: Annotated[Flag, MORE] = False,
    log_requests: Annotated[Flag, also("--log-requests", "--enable-log-requests")] = False,
    log_format: Annotated[LogFormat, MORE] = "text",
    otlp_traces_endpoint: Annotated[Url | None, MORE] = None,
    api_key: Annotated[list[Key] | None, MORE, Parameter(negative=())] = None,
    api_key_file: Annotated[File | None, MORE] = None,
    ssl_certfile: Annotated[File | None, MORE] = None,
    ssl_keyfile: Annotated[File | None, MORE] = None,
    allow_host: Annotated[list[Host] | None, MORE, Parameter(negative=())] = None,
    allow_origin: Annotated[list[str] | None, MORE, Parameter(negative=())] = None,
    insecure: Annotated[Flag, MORE] = False,
    config: Annotated[File | None, MORE] = None,
    ready_fd: Annotated[Descriptor | None, MORE] = None,
    decided: Annotated[Decided, Parameter(name="*")] = Decided(),  # noqa: B008  (it is frozen)
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
        Address to listen on. One that other machines reach is refused without an API key or
        --insecure.
    port
        Port to listen on. 0 takes any free one, which is printed.
    served_model_name
        What clients call the model (default: the checkpoint's name with its digest).
    checkpoint
        Where the artifact's checkpoint lies, if not where it was when compiled.
    drafts
        Tokens to draft between two decode steps at most; fewer are, where that gives more tokens a
        second (default: as many as the artifact can verify; none for a checkpoint).
    num_pages
        Pages of cache (default: every request at full length, within 1 GiB).
    max_running_requests
        Requests that run at once at most; others wait (default: as many as the artifact takes).
    max_queued_requests
        Answers that wait at most beside those that may run: what would be more is refused (429).
    max_queued_tokens
        Tokens at most of the prompts that run or wait, and of the answers as far as clients say
        how long.
    threads
        Threads of a CPU engine (default: what steps timed at the start are fastest on; with several
        ranks, each has its share of the cores).
    context_length
        Tokens of a prompt with its answer at most (default: as many as the artifact takes).
    mem_fraction_static
        In place of --num-pages: cache, weights and programs together take this part of the
        device's memory (of a GPU: of the smallest of its kind).
    chunked_prefill_size
        Rows of a prefill step at most (default: as many as the artifact takes).
    page_size
        Tokens a page. The artifact has decided: any other number is refused.
    watchdog_timeout
        Seconds after which a step that has not ended never will: the engine is started again.
    request_timeout
        Seconds after which a request that has not ended, waiting or running, fails (504); without
        it a request takes as long as it takes.
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
    enable_hierarchical_cache
        Save prefixes that give way in the cache to host memory, and bring them back from there: as
        much as two caches take, unless --hicache-size says otherwise.
    hicache_size
        Gigabytes (10^9 bytes) of that memory for each rank; it alone turns the tier on (default:
        0, none is taken).
    disable_overlap_schedule
        Submit a step only when the one before is done, also on devices that keep the state.
    max_stall
        How long an answer waits for its next token while prompts run, in times of its usual wait.
        Less keeps answers smooth, more lets first tokens come sooner.
    drain
        Seconds that requests under way have at Ctrl-C or SIGTERM, before they end with an error.
    enable_metrics
        Tell Prometheus of requests and of the engine, at /metrics.
    collect_tokens_histogram
        With --enable-metrics: histograms of the lengths of prompts and answers, too.
    log_requests
        Write a line for each request: times, tokens and how it ended, never its text.
    log_format
        How the server's lines are written: text, or JSON with an object a line.
    otlp_traces_endpoint
        Send a span a request to this collector of OpenTelemetry (OTLP over HTTP, at /v1/traces if
        the URL has no path); it needs lostwax[otel].
    api_key
        A key of which clients must send one, as Authorization: Bearer KEY; may be repeated. Who
        lists processes sees it: --api-key-file hides it.
    api_key_file
        A file of such keys, one a line.
    ssl_certfile
        A certificate (PEM) with the chain behind it: the server speaks TLS.
    ssl_keyfile
        Its private key, if that is not in the same file.
    allow_host
        A name by which clients call the server, beside loopback's and --host; may be repeated.
    allow_origin
        An origin (scheme://host[:port]) whose web pages may use the server; may be repeated.
    insecure
        Allow a host that others can reach although no API key is asked for; for several tenants
        add --disable-radix-cache.
    config
        A TOML file whose table [serve] holds options by their names; what the command line says
        goes first.
    ready_fd
        For programs: a pipe's file descriptor, to which one line of JSON with the port is written
        when the model answers.
    """
    from lostwax.server.gateway.origins import require_origins
    from lostwax.server.gateway.serve import require_may_listen
    from lostwax.server.gateway.serve import serve as run

    del config  # read before the command line was (`cli/app.py`)
    if num_pages is not None and mem_fraction_static is not None:
        raise OptionRefused("--num-pages and --mem-fraction-static say the same; give one of them")
    if disable_radix_cache and (enable_hierarchical_cache or hicache_size):
        option = "--hicache-size" if hicache_size else "--enable-hierarchical-cache"
        raise OptionRefused(
            f"{option} keeps prefixes that --disable-radix-cache never finds; leave one of them out"
        )
    if collect_tokens_histogram and not enable_metrics:
        raise OptionRefused("--collect-tokens-histogram adds to /metrics; give --enable-metrics")
    if otlp_traces_endpoint is not None:
        _require_otel()
    template = decided.chat_template and named_template(decided.chat_template)
    path, drafts = named_model(path, decided), given_drafts(drafts, decided)
    if path is None or not is_artifact(path):
        usual = "bf16" if path else FAST_DTYPES.get(target or DEFAULT_TARGET, "bf16")
        require_default(path, dtype or usual, decided)
    require_used(path, checkpoint=checkpoint, cache=cache, target=target, dtype=dtype)
    require_origins(allow_origin or ())
    keys = [*(api_key or ()), *(read_keys(api_key_file) if api_key_file else ())]
    tls = _tls(ssl_certfile, ssl_keyfile)
    require_may_listen(host, port, insecure=insecure or bool(keys))
    require_runnable(path, target)
    target = target or DEFAULT_TARGET
    if path is None:
        checkpoint = default_checkpoint()
        served_model_name = served_model_name or NAME
        artifact = default_artifact(cache=cache, target=target, dtype=dtype, drafts=drafts or 0)
    else:
        artifact = named_artifact(path, target, dtype or "bf16", drafts or 0)
    require_decided(ArtifactReader(artifact), decided)
    chats = chat_settings(artifact, template, decided)
    require_within(
        artifact,
        context_length=context_length,
        chunked_prefill_size=chunked_prefill_size,
        page_size=page_size,
    )
    if mem_fraction_static is not None:
        num_pages = pages_within(artifact, mem_fraction_static)
    require_fits(
        artifact, drafts=drafts, num_pages=num_pages, max_running_requests=max_running_requests
    )
    num_host_pages = 0
    if enable_hierarchical_cache or hicache_size:
        num_host_pages = host_pages(artifact, hicache_size, num_pages)
    reader = ArtifactReader(artifact)
    require_checkpoint(reader, checkpoint)
    num_running = max_running_requests or reader.manifest.limits.max_reqs
    run(
        artifact,
        Settings(
            model=served_model_name,
            host=host,
            allowed_hosts=tuple(allow_host or ()),
            allowed_origins=tuple(allow_origin or ()),
            metrics=enable_metrics,
            token_histograms=collect_tokens_histogram,
            key_digests=digests_of(keys),
            log_requests=log_requests,
            log_format=log_format,
            max_admitted_reqs=num_running + max_queued_requests,
            max_admitted_tokens=max_queued_tokens,
            request_timeout_s=request_timeout,
            otlp_traces_endpoint=otlp_traces_endpoint,
            chats=chats,
        ),
        checkpoint=checkpoint,
        port=port,
        engine=replace(
            SERVED,
            max_drafts=drafts,
            prefix_cache=not disable_radix_cache,
            overlap=not disable_overlap_schedule,
            max_running=max_running_requests,
            max_stall=max_stall,
            max_context=context_length,
            max_extend_rows=chunked_prefill_size,
        ),
        num_pages=num_pages,
        num_host_pages=num_host_pages,
        threads=threads,
        insecure=insecure,
        tls=tls,
        certificates=certificates,
        allow_compiled=allow_compiled,
        drain_s=drain,
        watchdog_s=watchdog_timeout,
        ready_fd=ready_fd,
    )


def _require_otel() -> None:
    for package in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.common"):
        if not _is_installed(package):
            raise OptionRefused(
                "--otlp-traces-endpoint needs OpenTelemetry: pip install 'lostwax[otel]'"
            )
    # As the library reads it: it would make no spans and say nothing.
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        raise OptionRefused(
            "--otlp-traces-endpoint sends nothing while OTEL_SDK_DISABLED is true; unset it"
        )


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # not even what it is a part of
        return False


def _tls(certfile: Path | None, keyfile: Path | None) -> Tls | None:
    if certfile is None:
        if keyfile is not None:
            raise OptionRefused("--ssl-keyfile goes with --ssl-certfile; give both")
        return None
    tls = Tls(certfile, keyfile)
    tls.require_usable()
    return tls
