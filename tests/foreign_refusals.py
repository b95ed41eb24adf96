"""Options of other servers that cannot be, by what is said of them. As in `cli/test_refusals.py`
ART, CKPT and OUT are an artifact, a checkpoint and nothing yet.
"""

from __future__ import annotations

_DRAFTING = "--speculative-algorithm"
ILLEGAL = {
    "serve --tp 2": "compile it first: lostwax compile CHECKPOINT --tp 2 -o",
    "serve CKPT --tensor-parallel-size=2": "compile it first: lostwax compile CKPT --tp 2 -o",
    "serve CKPT -tp 0": "-tp must be in 1..1024, not 0",
    "serve CKPT --cuda-graph-max-bs 9": "--max-reqs 9 is decided when a checkpoint is compiled",
    "serve --model-path OUT": "OUT does not exist; give the folder of an artifact",
    "serve ART --model CKPT": "PATH (ART) and --model-path (CKPT) name the model; give one",
    "serve --max-model-len 0": "--max-model-len must be in 1..",
    "serve --gpu-memory-utilization 2": "--gpu-memory-utilization must be above 0 and at most 1",
    "serve --dp 8": (
        "--dp 8: ranks have a slice of every head and expert, and none can run attention"
    ),
    "serve --tp 8 --dp 8 --enable-dp-attention": "nearest: --tp 8 without --dp",
    "serve --enable-dp-attention": "goes with --dp N; nearest: leave it out",
    "serve --ep 4": "none can hold whole experts; nearest: --tp 4 without --ep",
    "serve --kv-cache-dtype fp8_e5m2": "in 8 bits as e4m3; give one of auto, bf16,",
    "serve --kv-cache-dtype fp8 --nsa-decode-backend flashmla_sparse": (
        "reads a cache in bf16 and this one is in fp8_656; nearest: --dsa-decode-backend"
        " flashmla_kv, or --kv-layout bf16"
    ),
    "serve --dsa-prefill-backend fa3": "--dsa-prefill-backend fa3 is FlashAttention 3",
    "serve --nsa-prefill-backend flashmla_auto": "is SGLang's rule and no kernel",
    "serve --speculative-algorithm NGRAM": "own MTP layer; nearest: --speculative-algorithm EAGLE",
    "serve --speculative-num-steps 3": "add --speculative-algorithm EAGLE",
    "serve --speculative-algorithm EAGLE --speculative-num-steps 4": (
        "model verifies them; nearest: 3"
    ),
    "serve --speculative-algorithm EAGLE --speculative-eagle-topk 4": "no tree; nearest: --spec",
    "serve --speculative-algorithm EAGLE --speculative-num-draft-tokens 3": (
        "add --speculative-num-steps 2"
    ),
    f"serve {_DRAFTING} NEXTN --speculative-num-steps 1 --speculative-num-draft-tokens 4": (
        "a chain of 1 steps has 2 tokens; nearest: --speculative-num-draft-tokens 2"
    ),
    "serve --speculative-algorithm EAGLE --speculative-num-steps 1 --drafts 2": (
        "--drafts 2 and the --speculative options (1) say different things"
    ),
    "serve --speculative-config x": '--speculative-config \'{"method": "mtp",',
    'serve --speculative-config {"method":"eagle","num_speculative_tokens":1}': "method mtp and",
    'serve --speculative-config {"method":"mtp","num_speculative_tokens":9}': "nearest: 3",
    'serve --speculative-config {"method":"mtp","num_speculative_tokens":1,"quantization":"x"}': (
        "unknown field"
    ),
    "migrate sglang": "the text starts no server that is known here; give a command like",
    "migrate 'vllm": "a shell could not read this: no closing quotation",
}
"""Command lines, and a part of the sentence that refuses them."""
