"""Checks a request against what the engine can do and forms what it is sent. Knows no text form."""

from __future__ import annotations

import secrets

from lostwax.server.engine.messages import INVALID_GRAMMAR, EngineInfo, Submit
from lostwax.server.gateway.errors import ApiError, Way
from lostwax.server.gateway.models import (
    MAX_BIASES,
    MAX_CHOICES_TOGETHER,
    GenerationRequest,
)
from lostwax.server.gateway.prepared import AnswerOptions, Job
from lostwax.server.gateway.response_format import Asked
from lostwax.server.gateway.tokenizer import Codec
from lostwax.server.grammar.grammar import BadGrammar

MAX_PROMPT_TOKENS = 2_000_000
"""Of all prompts of a request, each as often as it has answers: each keeps the ids."""
MAX_BIASES_TOGETHER = 4 * MAX_BIASES
"""Of all choices of a request: each goes to the engine with its own."""


def require_few_choices(request: GenerationRequest, num_prompts: int = 1) -> None:
    """ApiError where so many prompts have more choices, or biases of these, than are taken."""
    num_choices = num_prompts * request.num_choices
    if num_choices > MAX_CHOICES_TOGETHER:
        message = (
            f"{request.num_choices} answers to each of {num_prompts} prompts are more than"
            f" {MAX_CHOICES_TOGETHER}; lower n or send fewer prompts"
        )
        raise ApiError(400, message, code="invalid_value", param="n")
    num_biases = len(request.logit_bias or ())
    if num_choices > 1 and num_choices * num_biases > MAX_BIASES_TOGETHER:
        message = f"{num_biases} biases for each answer are more than {MAX_BIASES_TOGETHER}"
        message += " together; send fewer prompts or lower n"
        raise ApiError(400, message, code="invalid_value", param="logit_bias")


def require_few_tokens(request: GenerationRequest, num_prompt: int, job: Job, param: str) -> None:
    """ApiError where the prompts of all choices hold more tokens than are taken at once."""
    if num_prompt * request.num_choices <= job.max_tokens:
        return
    many = f", each for {request.num_choices} answers" if request.num_choices > 1 else ""
    remedy = "lower n or send fewer" if many else "send fewer"
    message = f"the prompts hold more than {job.max_tokens} tokens together{many}; {remedy}"
    raise ApiError(400, message, code="invalid_value", param=param)


def prompt_runs(request: GenerationRequest, info: EngineInfo, *, is_scored: bool = False) -> int:
    """How often the engine runs each prompt for its answers."""
    return 1 if info.shares_prompts and not is_scored else request.num_choices


def require_stops(request: GenerationRequest, codec: Codec) -> None:
    """ApiError where stop strings are asked for and no tokenizer gives text."""
    if request.stops and not codec.can_encode:
        message = "this checkpoint has no tokenizer: stop strings need one; use stop_token_ids"
        raise ApiError(400, message, code="unsupported_value", param="stop")


def require_format(asked: Asked | None, codec: Codec) -> None:
    """ApiError where the answer is to follow a grammar that is too large, or that no tokenizer is
    there for."""
    if asked is None:
        return
    if not codec.can_encode:
        message = "this checkpoint has no tokenizer, which formats of answers need; leave it out"
        raise ApiError(400, message, code="unsupported_value", param=asked.param)
    try:
        asked.grammar.require_small()
    except BadGrammar as error:
        message = f"{asked.param!r}: {error}"
        raise ApiError(400, message, code=INVALID_GRAMMAR, param=asked.param) from error


def require_ranks(num_top: int, info: EngineInfo, param: str) -> None:
    """ApiError where more alternatives a token are asked for than the artifact ranks."""
    if num_top > info.max_top_logprobs:
        message = f"this artifact ranks at most {info.max_top_logprobs} logprobs"
        raise ApiError(400, message, code="unsupported_value", param=param)


def require_prompt(
    ids: list[int], max_tokens: int, info: EngineInfo, param: str, longest: str | None
) -> None:
    """ApiError where the engine cannot run a prompt with so long an answer. `longest` is the field
    that says how long, None where the client has not."""
    if not ids:
        raise ApiError(400, "a prompt is empty", code="invalid_value", param=param)
    if max(ids) >= info.vocab_size:
        message = f"{param}: token id {max(ids)} lies outside 0..{info.vocab_size - 1}"
        raise ApiError(400, message, code="invalid_value", param=param)
    if len(ids) + max_tokens > info.max_context:
        message = (
            f"this model's maximum context length is {info.max_context} tokens, but"
            f" {len(ids) + max_tokens} were requested ({len(ids)} in the prompt, {max_tokens} for"
            f" the completion); shorten the prompt"
        )
        way = None if longest is None else Way("lower", longest)
        raise ApiError(400, message, code="context_length_exceeded", param=param, way=way)


def form_submit(
    request: GenerationRequest,
    name: str,
    prompt: list[int],
    max_tokens: int,
    info: EngineInfo,
    *,
    stop_ids: tuple[int, ...] = (),
    top_logprobs: int = 0,
    score_prompt: bool = False,
    asked: Asked | None = None,
    grammar_after: int | None = None,
) -> Submit:
    """What the engine is asked of a prompt. `stop_ids` end it beside those that the client names.
    The format `asked` for begins behind the first token `grammar_after`, if there is one.

    ApiError where a bias names no id of the model, or more tokens are wanted than may come.
    """
    bias, least = request.logit_bias or {}, request.min_tokens or 0
    if bias and max(bias) >= info.vocab_size:
        message = f"token id {max(bias)} lies outside 0..{info.vocab_size - 1}"
        raise ApiError(400, message, code="invalid_value", param="logit_bias")
    if least > max_tokens:
        message = f"{least} tokens at least are more than {max_tokens} at most; lower min_tokens"
        raise ApiError(400, message, code="invalid_value", param="min_tokens")
    all_stops = [*(request.stop_token_ids or ()), *stop_ids]
    ends = all_stops if request.ignore_eos else [*all_stops, *info.eos_token_ids]
    held = sorted({token for token in ends if token < info.vocab_size}) if least else []
    return Submit(
        request=name,
        prompt=prompt,
        max_tokens=max_tokens,
        temperature=1.0 if request.temperature is None else request.temperature,
        top_k=max(request.top_k or 0, 0),  # -1 is another way to say all
        top_p=1.0 if request.top_p is None else request.top_p,
        min_p=request.min_p or 0.0,
        repetition_penalty=(
            1.0 if request.repetition_penalty is None else request.repetition_penalty
        ),
        frequency_penalty=request.frequency_penalty or 0.0,
        presence_penalty=request.presence_penalty or 0.0,
        logit_bias={token: added for token, added in bias.items() if added},
        held_ids=held,
        min_tokens=least if held else 0,
        seed=secrets.randbits(31) if request.seed is None else request.seed % 2**32,
        stop_ids=all_stops,
        ignore_eos=bool(request.ignore_eos),
        top_logprobs=top_logprobs,
        score_prompt=score_prompt,
        grammar=None if asked is None else asked.grammar,
        grammar_after=None if asked is None else grammar_after,
    )


def answer_options(
    request: GenerationRequest,
    *,
    scored: bool,
    echo: bool = False,
    asked: Asked | None = None,
) -> AnswerOptions:
    """What the request asks for of its answer."""
    return AnswerOptions(
        stops=request.stops,
        num_choices=request.num_choices,
        stream=bool(request.stream),
        streams_usage=request.streams_usage,
        token_ids=bool(request.return_token_ids),
        scored=scored,
        echo=echo,
        format_param=None if asked is None else asked.param,
    )
