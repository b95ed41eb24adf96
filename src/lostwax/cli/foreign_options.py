"""What to give instead of options that other servers have, or that another command here has."""

from __future__ import annotations

from collections.abc import Collection

from lostwax.cli.foreign_command import one_name

_DOWNLOADS = "lostwax downloads nothing and runs no code of a checkpoint: leave it out"
_PATH = "name the folder itself: lostwax {command} PATH"
_NO_LINES = "a request has no line unless --log-requests is given: leave it out"
_NO_LEVELS = "lines have no levels: leave it out"
_CACHED_TOKENS = "usage.prompt_tokens_details.cached_tokens is always told: leave it out"
_REPLAYED = "programs are compiled ahead and replayed, whatever their size: leave it out"
_NOT_TUNED = "nothing is tuned or warmed up by choice at the start: leave it out"
_OWN_CHOICE = "what runs an op was chosen when the artifact was compiled: leave it out"
_SAFETENSORS = "weights are read from safetensors by the artifact's plan: leave it out"
_GRAMMARS = "grammars are llguidance's: leave it out"
_MIXED = "prompts are always cut into steps, which answers join: leave it out"
_FOUND = "prefixes are found in the cache by themselves: leave it out"
_OURS = {
    "--chunked-prefill-size": "--max-tokens",
    "--context-length": "--max-context",
    "--device": "--target",
    "--gpu-memory-utilization": "--num-pages",
    "--indexer-cache-dtype": "--indexer-dtype",
    "--kv-cache-dtype": "--kv-layout",
    "--max-batch-size": "--max-reqs",
    "--max-model-len": "--max-context",
    "--max-num-batched-tokens": "--max-tokens",
    "--max-num-seqs": "--max-reqs",
    "--max-running-requests": "--max-reqs",
    "--max-seq-len": "--max-context",
    "--mem-fraction-static": "--num-pages",
    "--nsa-decode-backend": "--lowering",
    "--nsa-prefill-backend": "--lowering",
    "--dsa-decode-backend": "--lowering",
    "--dsa-prefill-backend": "--lowering",
    "--enable-deterministic-inference": "--batch-invariant",
    "--no-async-scheduling": "--disable-overlap-schedule",
    "--no-enable-prefix-caching": "--disable-radix-cache",
    "--num-speculative-tokens": "--drafts",
    "--speculative-num-draft-tokens": "--drafts",
    "--speculative-num-steps": "--drafts",
    "--tensor-parallel-size": "--tp",
    "--tp-size": "--tp",
}
"""Options of SGLang, vLLM and TensorRT-LLM by what does the same here."""
_OTHERWISE = {
    "--allowed-hosts": "here each is named: serve --allow-host NAME",
    "--allowed-origins": "here each is named: serve --allow-origin ORIGIN",
    "--hicache-ratio": "here the size itself is given: serve --hicache-size GB",
    "--max-total-tokens": "here pages of 64 tokens are given: serve --num-pages N",
    "--model": _PATH,
    "--model-path": _PATH,
    "--ssl-keyfile-password": "take the password off the key: openssl pkey -in KEY -out OTHER",
}
"""What is said in another way."""
NEEDLESS = {
    "--attention-backend": "attention is chosen by cost when a model is compiled: leave it out",
    "--async-scheduling": "steps overlap wherever the device keeps the state: leave it out",
    "--decode-log-interval": "metrics tell of steps: leave it out",
    "--disable-cuda-graph": _REPLAYED,
    "--cuda-graph-bs": _REPLAYED,
    "--cudagraph-capture-sizes": _REPLAYED,
    "--enforce-eager": _REPLAYED,
    "--disable-flashinfer-autotune": _NOT_TUNED,
    "--kernel-config.enable_flashinfer_autotune": _NOT_TUNED,
    "--skip-server-warmup": _NOT_TUNED,
    "--disable-log-requests": _NO_LINES,
    "--disable-log-stats": "nothing is counted unless --enable-metrics is given: leave it out",
    "--disable-uvicorn-access-log": _NO_LINES,
    "--distributed-executor-backend": "ranks are processes of this host: leave it out",
    "--enable-auto-tool-choice": "calls are read wherever a request brings tools: leave it out",
    "--enable-cache-report": _CACHED_TOKENS,
    "--enable-chunked-prefill": _MIXED,
    "--enable-mixed-chunk": _MIXED,
    "--enable-prefix-caching": _FOUND,
    "--enable-prompt-tokens-details": _CACHED_TOKENS,
    "--enable-trace": "--otlp-traces-endpoint alone turns traces on: leave it out",
    "--fp8-gemm-backend": _OWN_CHOICE,
    "--grammar-backend": _GRAMMARS,
    "--guided-decoding-backend": _GRAMMARS,
    "--hf-token": _DOWNLOADS,
    "--hicache-write-policy": "pages are saved when they give way: leave it out",
    "--load-format": _SAFETENSORS,
    "--log-level": _NO_LEVELS,
    "--log-level-http": _NO_LEVELS,
    "--moe-runner-backend": _OWN_CHOICE,
    "--prefix-caching-hash-algo": "pages are always found by SHA-256: leave it out",
    "--quantization": "weights stay as the checkpoint stores them: leave it out",
    "--random-seed": "each request has its seed: leave it out",
    "--sampling-backend": _OWN_CHOICE,
    "--seed": "each request has its seed: leave it out",
    "--tokenizer": "the checkpoint's own is used: leave it out",
    "--tokenizer-mode": "the checkpoint's own encoding is used: leave it out",
    "--tokenizer-path": "the checkpoint's own is used: leave it out",
    "--trust-remote-code": _DOWNLOADS,
    "--uvicorn-log-level": _NO_LEVELS,
}
"""What is so without an option, or changes no answer: a server that leaves it out does the same."""
_ONE_HOST = "ranks run on one host"
_SLICED = "ranks have a slice of every expert, and none holds whole ones"
_ONE_ENGINE = "prompts and answers run in one engine"
_PROMPT = "a prompt is not spread over ranks"
_ADAPTERS = "adapters are not served"
_ORDER = "requests run in the order in which they came"
_CONFIG = "the model is what its config.json says"
_OFFLOAD = "weights stay on the device"
_RANKS_TALK = "how ranks exchange values is not chosen"
LACKING = {
    "--all2all-backend": _SLICED,
    "--api-server-count": "one gateway process serves",
    "--attention-context-parallel-size": _PROMPT,
    "--attn-cp-size": _PROMPT,
    "--cpu-offload-gb": _OFFLOAD,
    "--data-parallel-size-local": _ONE_HOST,
    "--decode-context-parallel-size": _PROMPT,
    "--deepep-config": _SLICED,
    "--deepep-mode": _SLICED,
    "--default-chat-template-kwargs": "each request says chat_template_kwargs",
    "--disable-custom-all-reduce": _RANKS_TALK,
    "--disaggregation-bootstrap-port": _ONE_ENGINE,
    "--disaggregation-ib-device": _ONE_ENGINE,
    "--disaggregation-mode": _ONE_ENGINE,
    "--disaggregation-transfer-backend": _ONE_ENGINE,
    "--dist-init-addr": _ONE_HOST,
    "--download-dir": "lostwax downloads nothing",
    "--enable-dp-lm-head": "every rank has a slice of the head",
    "--enable-dsa-prefill-context-parallel": _PROMPT,
    "--enable-eplb": _SLICED,
    "--enable-expert-parallel": _SLICED,
    "--enable-lora": _ADAPTERS,
    "--enable-nccl-nvls": _RANKS_TALK,
    "--enable-nsa-prefill-context-parallel": _PROMPT,
    "--enable-priority-scheduling": _ORDER,
    "--enable-symm-mem": _RANKS_TALK,
    "--enable-torch-compile": "what runs is compiled before, by lostwax compile",
    "--enable-two-batch-overlap": "a step is not cut in two",
    "--generation-config": "what a request leaves out has OpenAI's defaults",
    "--hf-overrides": _CONFIG,
    "--json-model-override-args": _CONFIG,
    "--kv-transfer-config": _ONE_ENGINE,
    "--lora-paths": _ADAPTERS,
    "--max-prefill-tokens": "a prefill step has at most --chunked-prefill-size rows",
    "--moe-a2a-backend": _SLICED,
    "--moe-dense-tp-size": "all layers are sliced for the same ranks",
    "--nccl-init-addr": _ONE_HOST,
    "--nccl-port": _ONE_HOST,
    "--nnodes": _ONE_HOST,
    "--node-rank": _ONE_HOST,
    "--pipeline-parallel-size": "layers are not spread over ranks; nearest: --tp",
    "--pp-size": "layers are not spread over ranks; nearest: --tp",
    "--preferred-sampling-params": "what a request leaves out has OpenAI's defaults",
    "--revision": "lostwax downloads nothing: fetch the revision, then name its folder",
    "--rope-scaling": _CONFIG,
    "--sampling-defaults": "what a request leaves out has OpenAI's defaults",
    "--schedule-conservativeness": _ORDER,
    "--schedule-policy": _ORDER,
    "--scheduling-policy": _ORDER,
    "--speculative-draft-model-path": "drafts come from the model's own MTP layer",
    "--stream-interval": "each token is sent when it is there",
    "--swap-space": _OFFLOAD,
    "--tokenizer-worker-num": "one gateway process serves",
}
"""What has no counterpart, and the rule behind it."""
_OF_COMPILE = (
    "--activations",
    "--batch-invariant",
    "--budget",
    "--index-pages",
    "--indexer-dtype",
    "--kv-layout",
    "--kv-scale",
    "--lowering",
    "--max-context",
    "--max-reqs",
    "--max-tokens",
    "--records",
    "--tp",
)
"""They decide the artifact, so that commands that take one do not take them."""
_OF_BENCH = {
    "--api-key": "put the key in a file: --api-key-file FILE",
    "--base-url": "here it is --url",
    "--concurrency": "here it is --max-concurrency",
    "--dataset-path": "here it is --dataset",
    "--num-warmups": "here it is --warmups",
    "--random-input-len": "here it is --input-len",
    "--random-output-len": "here it is --output-len",
    "--random-prefix-len": "here it is --prefix-len",
    "--result-dir": "here it is --out",
    "--sharegpt-output-len": "here it is --output-len",
    "--tokenizer": "the server's usage counts the tokens: leave it out",
}
"""Of `vllm bench serve`."""


def hint(
    option: str, command: str | None, own: Collection[str], of_serve: Collection[str]
) -> str | None:
    """A sentence for an option that `command` does not have, None where nothing is known of it.

    `own` are the names of its options, `of_serve` those of `serve`.
    """
    given = option.partition("=")[0]
    name = one_name(given)
    if command == "bench serve" and name in _OF_BENCH:
        return f"unknown option {given}: {_OF_BENCH[name]}"
    if (why := said_of(name)) is not None and name not in of_serve:
        return f"unknown option {given}: {why.format(command=command or 'COMMAND')}"
    if name in _OTHERWISE:
        return f"unknown option {given}: {_OTHERWISE[name].format(command=command or 'COMMAND')}"
    ours = _OURS.get(name, name)
    if ours in own:
        return f"unknown option {given}: here it is {ours}"
    if ours in _OF_COMPILE:
        return (
            f"unknown option {given}: {ours} is decided when a checkpoint is compiled;"
            f" lostwax compile CHECKPOINT {ours} … -o DIR"
        )
    if name in of_serve or ours in of_serve:
        there = name if name in of_serve else ours
        ask = f", and ask it: lostwax {command} --url URL" if "--url" in own else ""
        return (
            f"unknown option {given}: it is a server's; start one with it: lostwax serve PATH"
            f" {there} …{ask}"
        )
    return None


def said_of(name: str) -> str | None:
    """What there is to say of a server's option that has no other name here, None where nothing is
    known of it."""
    if name in LACKING:
        return f"{LACKING[name]}; leave it out"
    return NEEDLESS.get(name) or _OTHERWISE.get(name)


def lacking(name: str) -> str | None:
    """Why a server's option has no counterpart, None where nothing is known of it."""
    if name in _OURS:
        return f"here it is {_OURS[name]}; give that"
    return LACKING.get(name) or _OTHERWISE.get(name)
