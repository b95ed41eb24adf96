"""Text in, JSON to a schema out. The schema stands in the system message or in the question."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from recipe.data.document import Document, assistant, user
from recipe.data.words import ADJECTIVES, CITIES, COLORS, FOODS, ITEMS, JOBS, NAMES, NOUNS

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """A property: its names, its schema, a value, and sentences that tell it."""

    names: tuple[str, ...]
    schema: Schema
    value: Callable[[Random], Any]
    tell: tuple[str, ...]


def _words(rng: Random) -> list[str]:
    return rng.sample(ADJECTIVES, rng.randint(1, 3))


def _title(rng: Random) -> str:
    return f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}".title()


def _mail(rng: Random) -> str:
    return f"{rng.choice(NAMES).lower()}{rng.randint(1, 99)}@{rng.choice(NOUNS)}.com"


def _price(rng: Random) -> float:
    return rng.randint(1, 999) + rng.choice((0.5, 0.25, 0.75, 0.1, 0.9))


STRING, INTEGER, NUMBER, BOOLEAN = ({"type": t} for t in ("string", "integer", "number", "boolean"))
FIELDS = (
    Field(("name", "person", "customer"), STRING, lambda r: r.choice(NAMES), ("The {n} is {v}.",)),
    Field(("age", "years"), INTEGER, lambda r: r.randint(3, 99), ("The age is {v}.", "Age: {v}.")),
    Field(("city", "town", "location"), STRING, lambda r: r.choice(CITIES), ("All of it is in {v}.",)),
    Field(("job", "profession"), STRING, lambda r: r.choice(JOBS), ("The {n} is {v}.",)),
    Field(("color", "paint"), STRING, lambda r: r.choice(COLORS), ("The color is {v}.",)),
    Field(("title", "project"), STRING, _title, ('It is called "{v}".', "The {n} is named {v}.")),
    Field(("email", "contact"), STRING, _mail, ("Write to {v}.", "The address is {v}.")),
    Field(("price", "cost"), NUMBER, _price, ("It costs {v} dollars.", "The price is {v}.")),
    Field(("quantity", "count", "amount"), INTEGER, lambda r: r.randint(1, 999), ("The {n} is {v}.",)),
    Field(("food", "dish"), STRING, lambda r: r.choice(FOODS), ("The dish is {v}.",)),
    Field(("tags", "labels"), {"type": "array", "items": STRING}, _words, ("The {n} are {v}.",)),
    Field(("scores", "numbers"), {"type": "array", "items": INTEGER},
          lambda r: [r.randint(0, 99) for _ in range(r.randint(1, 4))], ("The {n} are {v}.",)),
    Field(("status", "state"), {"type": "string", "enum": ["open", "closed", "pending"]},
          lambda r: r.choice(("open", "closed", "pending")), ("It is {v}.", "The {n} is {v}.")),
    Field(("active", "available", "paid"), BOOLEAN, lambda r: r.random() < 0.5, ("It is {y}{n}.",)),
)  # fmt: skip
_ITEM = {"type": "object", "properties": {"product": STRING, "number": INTEGER},
         "required": ["product", "number"]}  # fmt: skip


def json_answer(rng: Random) -> Document:
    """Two to five fields, sometimes a list of objects or an object inside."""
    told, properties, value = list[str](), dict[str, Schema](), dict[str, Any]()
    for field in rng.sample(FIELDS, rng.randint(2, 5)):
        name, content = rng.choice(field.names), field.value(rng)
        properties[name], value[name] = field.schema, content
        told.append(_tell(rng, field, name, content))
    shape = rng.random()
    if shape < 0.2:
        order = {rng.choice(ITEMS): rng.randint(2, 99) for _ in range(rng.randint(1, 3))}
        properties["items"] = {"type": "array", "items": _ITEM}
        value["items"] = [{"product": p, "number": n} for p, n in order.items()]
        told.append("The order: " + ", ".join(f"{n} {p}" for p, n in order.items()) + ".")
    schema = _object(properties)
    if shape > 0.85:
        schema, value = _object({"record": schema}), {"record": value}
    rng.shuffle(told)
    return _ask(rng, schema, " ".join(told), value)


def _object(properties: dict[str, Schema]) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _tell(rng: Random, field: Field, name: str, value: Any) -> str:
    shown = " and ".join(map(str, value)) if isinstance(value, list) else value  # pyright: ignore
    return rng.choice(field.tell).format(n=name, v=shown, y="" if value else "not ")


def _ask(rng: Random, schema: Schema, text: str, value: dict[str, Any]) -> Document:
    answer = assistant(json.dumps(value))
    mode = "chat"
    if rng.random() < 0.2:
        answer, mode = assistant(json.dumps(value), "I fill the schema from the text."), "thinking"
    if rng.random() < 0.7:
        system = {"role": "system", "content": "", "response_format": schema}
        return Document("json", (system, user(f"Extract the data. {text}"), answer), mode)
    question = f"Answer in JSON with this schema: {json.dumps(schema)}\n{text}"
    return Document("json", (user(question), answer), mode)
