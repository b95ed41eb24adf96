"""What an answer's scores become on their way to a client."""

from __future__ import annotations

import json
import math

from scripted_runtime import CODEC

from lostwax.server.engine.messages import Output, TokenScore
from lostwax.server.gateway.transcript import LOWEST_LOGPROB, Transcript


def test_no_score_is_infinite() -> None:
    """JSON has no such number: a client's parser would refuse the answer."""
    transcript = Transcript([5, 6], CODEC, stops=[], with_scores=True, echo=True)
    never = TokenScore(6, -math.inf, [(6, -math.inf), (7, -0.5)])
    delta = transcript.feed(Output(request="a", prompt_scores=[never], tokens=[never]))
    assert [scored.logprob for scored in delta.scored] == [None, LOWEST_LOGPROB, LOWEST_LOGPROB]
    for scored in delta.scored[1:]:
        assert scored.top == [(6, LOWEST_LOGPROB), (7, -0.5)]
        json.dumps([scored.logprob, scored.top], allow_nan=False)
