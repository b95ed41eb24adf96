"""SGLang's `/generate`: what a request is as completions, and its answers. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from lostwax.server.engine.messages import Output, Submit
from lostwax.server.gateway.completions import prepare_completion
from lostwax.server.gateway.generate_models import GenerateRequest
from lostwax.server.gateway.generation import Head, Usage
from lostwax.server.gateway.history import named
from lostwax.server.gateway.prepared import AnswerOptions, Job, Prepared
from lostwax.server.gateway.stream import UNNAMED, Framing
from lostwax.server.gateway.tokenizer import Codec
from lostwax.server.gateway.transcript import Delta, Transcript

GROWTH = 64
"""A part of a stream repeats the answer so far: one is sent when that has grown by this part of
itself, so that all of them together have at most some 64 times the answer's size."""

_SAME_NAMES = ("n", "stop", "logit_bias", "ignore_eos", "stop_token_ids", "json_schema")
"""Of fields that stand in `sampling_params` here."""


def prepare_generate(request: GenerateRequest, job: Job, codec: Codec) -> Prepared:
    """What the engine is asked of each prompt, checked against what it can do."""
    names = {
        "prompt": request.name,
        "min_tokens": "sampling_params.min_new_tokens",
        "max_tokens": "sampling_params.max_new_tokens",
        **{name: f"sampling_params.{name}" for name in _SAME_NAMES},
    }
    with named(names):
        prepared = prepare_completion(request.completion, job, codec)
    options = msgspec.structs.replace(prepared.options, is_list=request.is_list)
    return msgspec.structs.replace(prepared, interface="generate", options=options)


class GenerateReader(Transcript):
    """A transcript that keeps how many tokens of its prompt were cached."""

    num_cached = 0

    def feed(self, output: Output) -> Delta:
        """What an output adds."""
        self.num_cached = output.cached_tokens or self.num_cached
        return super().feed(output)


class GenerateForm:
    """Answers as `/generate` has them: one, or a list."""

    id_prefix = ""

    def __init__(self, options: AnswerOptions, submits: list[Submit], codec: Codec) -> None:
        self.is_list = options.is_list
        self.submits = [submit for submit in submits for _ in range(options.num_choices)]
        self.readers = [
            GenerateReader(submit.prompt, codec, stops=options.stops, with_scores=False)
            for submit in self.submits
        ]

    def wire(self, head: Head, usage: Callable[[], Usage]) -> GenerateWire:
        """The answers' JSON, in which each has sums of its own."""
        return GenerateWire(self, head)


class GenerateWire:
    """The JSON of answers; in a stream each part has the whole answer so far."""

    framing: Framing = UNNAMED

    def __init__(self, form: GenerateForm, head: Head) -> None:
        self._form = form
        self._id = head.id
        self._so_far = [Delta() for _ in form.readers]
        self._num_sent = [0] * len(form.readers)

    def whole(self, wholes: Mapping[int, Delta]) -> Any:
        """One answer, or a list of them."""
        answers = [self._answer(index, whole) for index, whole in wholes.items()]
        return answers if self._form.is_list else answers[0]

    def events(self, index: int, delta: Delta) -> list[bytes]:
        """The answer so far, where it has grown enough or is at its end."""
        whole = self._so_far[index]
        whole.extend(delta)
        size = len(whole.token_ids)
        if not delta.finish and (size - self._num_sent[index]) * GROWTH <= self._num_sent[index]:
            return []
        self._num_sent[index] = size
        place = {"index": index} if self._form.is_list else {}
        return [msgspec.json.encode(self._answer(index, whole) | place)]

    def last(self) -> Iterable[bytes]:
        """Nothing: each answer has said all."""
        return ()

    def _answer(self, index: int, answer: Delta) -> dict[str, Any]:
        reader, name = self._form.readers[index], self._id
        meta = {
            "id": f"{name}-{index}" if self._form.is_list else name,
            "finish_reason": _reason(reader, answer),
            "prompt_tokens": len(self._form.submits[index].prompt),
            "completion_tokens": reader.num_output,
            "cached_tokens": reader.num_cached,
        }
        return {"text": answer.text, "output_ids": answer.token_ids, "meta_info": meta}


def _reason(reader: Transcript, answer: Delta) -> dict[str, Any] | None:
    """Why an answer ended: at its bound, at a stop string, or at a token."""
    if answer.finish is None:
        return None
    if answer.finish == "length":
        return {"type": "length", "length": reader.num_output}
    last = answer.token_ids[-1] if answer.token_ids else None
    return {"type": "stop", "matched": last if reader.stop is None else reader.stop}
