"""What to give instead of options that other servers have, or that another command here has."""

from __future__ import annotations

_DOWNLOADS = "lostwax downloads nothing and runs no code of a checkpoint: leave it out"
_PATH = "name the folder itself: lostwax {command} PATH"
_NO_LINES = "a request has no line unless --log-requests is given: leave it out"
_CACHED_TOKENS = "usage.prompt_tokens_details.cached_tokens is always told: leave it out"
_OURS = {
    "--attention-backend": "--lowering",
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
    "--max-total-tokens": "--num-pages",
    "--mem-fraction-static": "--num-pages",
    "--moe-runner-backend": "--lowering",
    "--nsa-decode-backend": "--lowering",
    "--nsa-prefill-backend": "--lowering",
    "--dsa-decode-backend": "--lowering",
    "--dsa-prefill-backend": "--lowering",
    "--no-async-scheduling": "--disable-overlap-schedule",
    "--no-enable-prefix-caching": "--disable-radix-cache",
    "--num-speculative-tokens": "--drafts",
    "--speculative-num-draft-tokens": "--drafts",
    "--speculative-num-steps": "--drafts",
    "--tensor-parallel-size": "--tp",
    "--tp-size": "--tp",
}
"""Options of SGLang, vLLM and TensorRT-LLM by what does the same here."""
_OF_SERVE = {
    "--gpu-memory-utilization": "--mem-fraction-static",
    "--max-model-len": "--context-length",
    "--max-num-batched-tokens": "--chunked-prefill-size",
    "--max-num-seqs": "--max-running-requests",
    "--max-seq-len": "--context-length",
    "--block-size": "--page-size",
    "--kv-offloading-size": "--hicache-size",
    "--enable-log-requests": "--log-requests",
}
"""What `serve` has under SGLang's name, by vLLM's and TensorRT-LLM's."""
_OTHERWISE = {
    "--disable-log-requests": _NO_LINES,
    "--disable-uvicorn-access-log": _NO_LINES,
    "--enable-cache-report": _CACHED_TOKENS,
    "--enable-prefix-caching": "prefixes are found in the cache by themselves: leave it out",
    "--enable-prompt-tokens-details": _CACHED_TOKENS,
    "--hf-token": _DOWNLOADS,
    "--hicache-ratio": "here the size itself is given: serve --hicache-size GB",
    "--hicache-write-policy": "pages are saved when they give way: leave it out",
    "--model": _PATH,
    "--model-path": _PATH,
    "--prefix-caching-hash-algo": "pages are always found by SHA-256: leave it out",
    "--quantization": "weights stay as the checkpoint stores them: leave it out",
    "--reasoning-parser": "answers are read as the checkpoint's encoding writes them: leave it out",
    "--ssl-keyfile-password": "take the password off the key: openssl pkey -in KEY -out OTHER",
    "--tokenizer": "the checkpoint's own is used: leave it out",
    "--tokenizer-mode": "the checkpoint's own encoding is used: leave it out",
    "--tool-call-parser": "answers are read as the checkpoint's encoding writes them: leave it out",
    "--trust-remote-code": _DOWNLOADS,
}
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


def hint(option: str, command: str | None) -> str | None:
    """A sentence for an option that `command` does not have, None where nothing is known of it."""
    name = option.partition("=")[0]
    if command == "bench serve" and name in _OF_BENCH:
        return f"unknown option {name}: {_OF_BENCH[name]}"
    if name in _OTHERWISE:
        return f"unknown option {name}: {_OTHERWISE[name].format(command=command or 'COMMAND')}"
    if command == "serve" and name in _OF_SERVE:
        return f"unknown option {name}: here it is {_OF_SERVE[name]}"
    ours = _OURS.get(name, name)
    if ours in _OF_COMPILE and command != "compile":
        return (
            f"unknown option {name}: {ours} is decided when a checkpoint is compiled;"
            f" lostwax compile CHECKPOINT {ours} … -o DIR"
        )
    if ours != name:
        return f"unknown option {name}: here it is {ours}"
    return None
