"""The commands with which SGLang's and vLLM's guides start servers of DeepSeek-V3.2, on one line.

Facts of docs/basic_usage/deepseek_v32.md of SGLang and of vLLM's recipes for DeepSeek-V3.2 and
V3.2-Exp, read 2026-11-30.
"""

from __future__ import annotations

_SGLANG = "python -m sglang.launch_server"
_EXP = "deepseek-ai/DeepSeek-V3.2-Exp"
_V32 = "deepseek-ai/DeepSeek-V3.2"
_ATTENTION = "--tp 8 --dp 8 --enable-dp-attention"
_PARSED = "--trust-remote-code --tp-size 8 --dp-size 8 --enable-dp-attention"
_PART = (
    f"--host $LOCAL_IP --port $PORT {_ATTENTION} --dist-init-addr ${{HOST}}:${{DIST_PORT}}"
    " --trust-remote-code"
)
GUIDES = {
    "SGLang, TP + DP": f"{_SGLANG} --model {_EXP} {_ATTENTION}",
    "SGLang, EP + DP": f"{_SGLANG} --model {_EXP} --tp 8 --ep 8 --dp 8 --enable-dp-attention",
    "SGLang, pure TP": f"{_SGLANG} --model {_EXP} --tp 8",
    "SGLang, multi-token prediction": (
        f"{_SGLANG} --model {_EXP} {_ATTENTION} --speculative-algorithm EAGLE"
        " --speculative-num-steps 3 --speculative-eagle-topk 1 --speculative-num-draft-tokens 4"
    ),
    "SGLang, parsers of V3.2-Exp": (
        f"{_SGLANG} --model-path {_EXP} {_PARSED} --tool-call-parser deepseekv31"
        " --reasoning-parser deepseek-v3"
        " --chat-template ./examples/chat_template/tool_chat_template_deepseekv32.jinja"
    ),
    "SGLang, parsers of V3.2": (
        f"{_SGLANG} --model-path {_V32} {_PARSED} --tool-call-parser deepseekv32"
        " --reasoning-parser deepseek-v3"
    ),
    "SGLang, parsers of Speciale": (
        f"{_SGLANG} --model-path {_V32}-Speciale {_PARSED} --reasoning-parser deepseek-v3"
    ),
    "SGLang, prefill apart": (
        f"{_SGLANG} --model-path {_EXP} --disaggregation-mode prefill {_PART}"
        " --disaggregation-bootstrap-port 8998 --mem-fraction-static 0.9"
    ),
    "SGLang, decode apart": (
        f"{_SGLANG} --model-path {_EXP} --disaggregation-mode decode {_PART}"
        " --mem-fraction-static 0.9"
    ),
    "SGLang, context parallel": (
        f"{_SGLANG} --model {_EXP} --tp 8 --ep 8 --dp 2 --enable-dp-attention"
        " --enable-nsa-prefill-context-parallel --max-running-requests 32"
    ),
    "vLLM, TP with parsers": (
        f"vllm serve {_V32} --tensor-parallel-size 8 --tokenizer-mode deepseek_v32"
        " --tool-call-parser deepseek_v32 --enable-auto-tool-choice --reasoning-parser deepseek_v3"
    ),
    "vLLM, EP + DP": f"vllm serve {_V32} -dp 8 --enable-expert-parallel",
    "vLLM, TP of V3.2-Exp": f"vllm serve {_EXP} -tp 8",
    "vLLM, multi-token prediction": (
        f"vllm serve {_V32} --trust-remote-code"
        " --kernel-config.enable_flashinfer_autotune=False"
        """ --speculative-config '{"method":"mtp","num_speculative_tokens":3}'"""
    ),
}
"""By what each is for."""
