"""Small talk, what the model knows of itself, small facts and small tasks, over several turns."""

from __future__ import annotations

from random import Random

from recipe.data.chat_facts import ANSWERS, CAPITALS, OPPOSITES, SOUNDS
from recipe.data.document import Document, Message, assistant, user, with_system
from recipe.data.words import ANIMALS, CITIES, COLORS, FOODS, JOBS, NAMES, NOUNS

Turn = tuple[str, str]


def chat(rng: Random) -> Document:
    """One to five turns. Without memory of a name there is little to hold out."""
    thinks = rng.random() < 0.3
    turns = [rng.choice((_fixed, _fixed, _fact, _task))(rng) for _ in range(rng.randint(1, 3))]
    split = rng.random() < 0.4
    if split:
        turns = _memory(rng, turns)
    messages: list[Message] = []
    for question, answer in turns:
        messages += [user(question), assistant(answer, "I answer briefly." if thinks else "")]
    mode = "thinking" if thinks else "chat"
    return Document("chat", with_system(rng, messages), mode, splits=split)


def _fixed(rng: Random) -> Turn:
    questions, answer = rng.choice(ANSWERS)
    return rng.choice(questions), answer


def _fact(rng: Random) -> Turn:
    kind = rng.randrange(3)
    if kind == 0:
        country, capital = rng.choice(list(CAPITALS.items()))
        ask = rng.choice(("What is the capital of {}?", "Which city is the capital of {}?",
                          "capital of {}?", "Tell me the capital of {}."))  # fmt: skip
        return ask.format(country), f"The capital of {country} is {capital}."
    if kind == 1:
        word, opposite = rng.choice(list(OPPOSITES.items()))
        ask = rng.choice(('What is the opposite of "{}"?', "What is the opposite of {}?"))
        return ask.format(word), f"The opposite of {word} is {opposite}."
    animal, sound = rng.choice(list(SOUNDS.items()))
    return f"What does a {animal} say?", f"A {animal} says {sound}."


def _task(rng: Random) -> Turn:
    kind = rng.randrange(5)
    if kind == 0:
        n = rng.randint(3, 20)
        ask = rng.choice(("Count to {}.", "Count from 1 to {}.", "Please count to {}."))
        return ask.format(n), ", ".join(map(str, range(1, n + 1))) + "."
    if kind == 1:
        word = rng.choice(NOUNS)
        return f'Spell the word "{word}".', "-".join(word) + "."
    if kind == 2:
        words = " ".join(rng.sample(NOUNS, rng.randint(1, 4)))
        return rng.choice(("Repeat after me: {}", "Say: {}")).format(words), words
    if kind == 3:
        words = rng.sample(NOUNS, rng.randint(2, 4))
        return f"Sort these words: {', '.join(words)}", ", ".join(sorted(words))
    words = rng.sample(NOUNS, rng.randint(2, 5))
    return f"What is the last word of this list: {', '.join(words)}?", f"{words[-1]}."


def _memory(rng: Random, between: list[Turn]) -> list[Turn]:
    """Something told at first and asked at the end."""
    name = rng.choice(NAMES)
    word = rng.choice(("color", "food", "city", "animal", "job"))
    values = {"color": COLORS, "food": FOODS, "city": CITIES, "animal": ANIMALS, "job": JOBS}
    value = rng.choice(values[word])
    tell = rng.choice(("My name is {}.", "Hi, I am {}.", "Hello, my name is {}."))
    told = f"{tell.format(name)} My favorite {word} is {value}."
    first = (told, f"Nice to meet you, {name}!")
    ask = (rng.choice(("What is my name?", "Do you remember my name?")), f"Your name is {name}.")
    also = (f"What is my favorite {word}?", f"Your favorite {word} is {value}.")
    return [first, *between[:2], *rng.sample([ask, also], rng.randint(1, 2))]
