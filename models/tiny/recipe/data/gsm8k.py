"""GSM8K's training questions (MIT, openai/grade-school-math) with their worked answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random

from recipe.data.document import Document, assistant, user

_MARK = re.compile(r"<<[^>]*>>")  # calculator annotations


class Gsm8k:
    """Draws questions from a file in JSON Lines. The test set is another file, never read here."""

    def __init__(self, path: Path) -> None:
        lines = path.read_text(encoding="utf-8").splitlines()
        self._rows = [json.loads(line) for line in lines]

    def __call__(self, rng: Random) -> Document:
        """One question, reasoning in `<think>`."""
        row = rng.choice(self._rows)
        steps, answer = _MARK.sub("", row["answer"]).split("\n#### ")
        turns = (user(row["question"]), assistant(f"The answer is {answer.strip()}.", steps))
        return Document("gsm8k", turns, "thinking", splits=False)
