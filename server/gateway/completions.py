"""Answers completion requests: checks, forwards, gathers what comes back. Knows no HTTP."""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from lostwax.server.engine.messages import EngineInfo, Submit
from lostwax.server.gateway.engine_client import EngineClient, EngineLost, RequestFailed
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.models import CompletionRequest
from lostwax.server.gateway.tokenizer import Codec
from lostwax.server.gateway.transcript import Delta, Transcript

_REFUSALS = ("context_length_exceeded", "invalid_value", "unsupported_value")


def build_submits(request: CompletionRequest, info: EngineInfo, codec: Codec) -> list[Submit]:
    """One engine request a prompt, checked against what the engine can do."""
    if request.stops and not codec.can_encode:
        message = "this checkpoint has no tokenizer: stop strings need one; use stop_token_ids"
        raise ApiError(400, message, code="unsupported_value", param="stop")
    num_top = request.logprobs or 0
    score_prompt = request.echo and request.logprobs is not None
    if (num_top or score_prompt) and num_top >= info.max_top_logprobs + 1:
        message = f"this artifact ranks at most {info.max_top_logprobs} logprobs"
        raise ApiError(400, message, code="unsupported_value", param="logprobs")
    if score_prompt and not info.max_top_logprobs:
        message = "this artifact was compiled without scores: echo with logprobs needs them"
        raise ApiError(400, message, code="unsupported_value", param="logprobs")
    name = uuid.uuid4().hex
    return [
        Submit(
            request=f"{name}-{index}",
            prompt=_prompt_ids(prompt, request.max_tokens, info, codec),
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            seed=secrets.randbits(31) if request.seed is None else request.seed % 2**32,
            stop_ids=list(request.stop_token_ids),
            ignore_eos=request.ignore_eos,
            top_logprobs=num_top,
            score_prompt=score_prompt,
        )
        for index, prompt in enumerate(request.prompts)
    ]


def _prompt_ids(
    prompt: str | list[int], max_tokens: int, info: EngineInfo, codec: Codec
) -> list[int]:
    if isinstance(prompt, str):
        if not codec.can_encode:
            message = "this checkpoint has no tokenizer; send the prompt as a list of token ids"
            raise ApiError(400, message, code="unsupported_value", param="prompt")
        ids = codec.encode(prompt)
    else:
        ids = prompt
    if not ids:
        raise ApiError(400, "a prompt is empty", code="invalid_value", param="prompt")
    if max(ids) >= info.vocab_size:
        message = f"prompt: token id {max(ids)} lies outside 0..{info.vocab_size - 1}"
        raise ApiError(400, message, code="invalid_value", param="prompt")
    if len(ids) + max_tokens > info.max_context:
        message = (
            f"this model's maximum context length is {info.max_context} tokens, but"
            f" {len(ids) + max_tokens} were requested ({len(ids)} in the prompt, {max_tokens} for"
            f" the completion); shorten the prompt or lower max_tokens"
        )
        raise ApiError(400, message, code="context_length_exceeded", param="prompt")
    return ids


class Completion:
    """One HTTP request on its way through the engine."""

    def __init__(
        self,
        request: CompletionRequest,
        submits: list[Submit],
        client: EngineClient,
        codec: Codec,
        model: str,
    ) -> None:
        self._request = request
        self._submits = submits
        self._client = client
        self._transcripts = [Transcript(request, s.prompt, codec) for s in submits]
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }

    async def answer(self) -> dict[str, Any]:
        """The whole answer."""
        wholes = [Delta() for _ in self._submits]
        async with aclosing(self._deltas()) as deltas:
            async for index, delta in deltas:
                wholes[index].extend(delta)
        choices = [whole.choice(i, self._request) for i, whole in enumerate(wholes)]
        return self._head | {"choices": choices, "usage": self._usage()}

    async def chunks(self) -> AsyncGenerator[dict[str, Any], None]:
        """The answer in parts, as they come; the usage last, if it was asked for."""
        options = self._request.stream_options
        with_usage = options is not None and options.include_usage
        no_usage = {"usage": None} if with_usage else {}
        async with aclosing(self._deltas()) as deltas:
            async for index, delta in deltas:
                if self._is_news(delta):
                    choice = delta.choice(index, self._request)
                    yield self._head | {"choices": [choice]} | no_usage
        if with_usage:
            yield self._head | {"choices": [], "usage": self._usage()}

    async def _deltas(self) -> AsyncGenerator[tuple[int, Delta], None]:
        indices = {submit.request: i for i, submit in enumerate(self._submits)}
        try:
            async with aclosing(self._client.stream(self._submits)) as outputs:
                async for output in outputs:
                    index = indices[output.request]
                    transcript = self._transcripts[index]
                    if transcript.finished:
                        continue
                    delta = transcript.feed(output)
                    if transcript.finished and output.finish is None:
                        self._client.cancel(output.request)
                    yield index, delta
        except EngineLost as error:
            raise ApiError(503, str(error), code="engine_unavailable") from error
        except RequestFailed as error:
            status = 400 if error.code in _REFUSALS else 500
            raise ApiError(status, str(error), code=error.code) from error

    def _is_news(self, delta: Delta) -> bool:
        has_logprobs = self._request.logprobs is not None and delta.logprobs.tokens
        has_ids = self._request.return_token_ids and delta.token_ids
        return bool(delta.text or delta.finish or has_logprobs or has_ids)

    def _usage(self) -> dict[str, int]:
        num_prompt = sum(len(submit.prompt) for submit in self._submits)
        num_output = sum(transcript.num_output for transcript in self._transcripts)
        return {
            "prompt_tokens": num_prompt,
            "completion_tokens": num_output,
            "total_tokens": num_prompt + num_output,
        }
