"""What a completion request asks of the engine, and the form of its answer. Knows no HTTP."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from lostwax.server.engine.messages import EngineInfo, Submit
from lostwax.server.gateway.choices import ChoicesWire
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.fitting import require_fitting
from lostwax.server.gateway.generation import Head, Usage
from lostwax.server.gateway.long_json import long_list
from lostwax.server.gateway.models import CompletionRequest
from lostwax.server.gateway.prepared import AnswerOptions, Job, Prepared
from lostwax.server.gateway.prompts import Prompt, read_prompts
from lostwax.server.gateway.submits import (
    answer_options,
    form_submit,
    prompt_runs,
    require_few_choices,
    require_few_tokens,
    require_format,
    require_prompt,
    require_ranks,
    require_stops,
)
from lostwax.server.gateway.tokenizer import Codec
from lostwax.server.gateway.transcript import Delta, Scored, Transcript


def prepare_completion(request: CompletionRequest, job: Job, codec: Codec) -> Prepared:
    """What the engine is asked of each prompt, checked against what it can do."""
    info, most_tokens = job.info, request.most_tokens
    require_stops(request, codec)
    asked = request.format
    require_format(asked, codec)
    num_top = request.logprobs or 0
    score_prompt = bool(request.echo) and request.logprobs is not None
    require_ranks(num_top, info, "logprobs")
    name = uuid.uuid4().hex
    submits: list[Submit] = []
    num_tokens = 0
    prompts = read_prompts(request.prompt, info.max_context, job.max_tokens)
    require_few_choices(request, len(prompts))
    for index, prompt in enumerate(prompts):
        ids = _prompt_ids(prompt, info, codec)
        require_prompt(ids, most_tokens, info, "prompt", "max_tokens")
        num_tokens += len(ids)
        require_few_tokens(request, num_tokens, job, "prompt")
        submits.append(
            form_submit(
                request,
                f"{name}-{index}",
                ids,
                most_tokens,
                info,
                top_logprobs=num_top,
                score_prompt=score_prompt,
                asked=asked,
            )
        )
    options = answer_options(
        request, scored=request.logprobs is not None, echo=bool(request.echo), asked=asked
    )
    return Prepared(
        options=options,
        submits=submits,
        prompt_runs=prompt_runs(request, info, is_scored=score_prompt),
        asked_tokens=most_tokens,
    )


def _prompt_ids(prompt: Prompt, info: EngineInfo, codec: Codec) -> list[int]:
    if not isinstance(prompt, str):
        return prompt
    if not codec.can_encode:
        message = "this checkpoint has no tokenizer; send the prompt as a list of token ids"
        raise ApiError(400, message, code="unsupported_value", param="prompt")
    require_fitting(prompt, info.max_context, codec, "prompt")
    return codec.encode(prompt)


class CompletionForm:
    """Choices as `/v1/completions` has them."""

    id_prefix = "cmpl-"
    kinds = ("text_completion", "text_completion")

    def __init__(self, options: AnswerOptions, submits: list[Submit], codec: Codec) -> None:
        self._options = options
        self._codec = codec
        self.readers = [
            Transcript(
                submit.prompt,
                codec,
                stops=options.stops,
                with_scores=options.scored,
                echo=options.echo,
            )
            for submit in submits
            for _ in range(options.num_choices)
        ]

    def wire(self, head: Head, usage: Callable[[], Usage]) -> ChoicesWire[Delta]:
        """The choices' JSON."""
        return ChoicesWire(self, head, usage, streams_usage=self._options.streams_usage)

    def whole(self, index: int, answer: Delta) -> dict[str, Any]:
        """A choice."""
        choice = {
            "index": index,
            "text": answer.text,
            "logprobs": self._logprobs(answer.scored) if self._options.scored else None,
            "finish_reason": answer.finish,
        }
        return choice | ({"token_ids": answer.token_ids} if self._options.token_ids else {})

    def parts(self, index: int, delta: Delta) -> list[dict[str, Any]]:
        """A choice's streamed part, if the client asked for what the delta holds."""
        has_ids = self._options.token_ids and delta.token_ids
        is_news = delta.text or delta.finish or delta.scored or has_ids
        return [self.whole(index, delta)] if is_news else []

    def usage_details(self) -> dict[str, Any]:
        """Nothing beside the sums."""
        return {}

    def _logprobs(self, scored: list[Scored]) -> dict[str, Any]:
        """The four parallel lists of an OpenAI completion."""
        return {
            "tokens": long_list(self._codec.piece(each.token) for each in scored),
            "token_logprobs": long_list(each.logprob for each in scored),
            "top_logprobs": long_list(map(self._top, scored)),
            "text_offset": long_list(each.offset for each in scored),
        }

    def _top(self, scored: Scored) -> dict[str, float] | None:
        if scored.logprob is None:
            return None
        top = dict[str, float]()
        for token, logprob in scored.top or ():
            top.setdefault(self._codec.piece(token), logprob)
        return top | {self._codec.piece(scored.token): scored.logprob}
