"""Weekdays, dates, clock times and units, with the steps written out."""

from __future__ import annotations

from calendar import isleap, monthrange
from random import Random

from recipe.data.document import Document, worked
from recipe.data.working import work_out

_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_MONTHS = (
    "January February March April May June July August September October November December"
).split()
_UNITS = (
    ("hours", "minutes", 60), ("minutes", "seconds", 60), ("days", "hours", 24),
    ("weeks", "days", 7), ("years", "months", 12), ("kilometers", "meters", 1000),
    ("meters", "centimeters", 100), ("kilograms", "grams", 1000), ("liters", "milliliters", 1000),
    ("feet", "inches", 12), ("yards", "feet", 3), ("dozens", "pieces", 12),
)  # fmt: skip


def dates_units(rng: Random) -> Document:
    """One question of any kind."""
    return rng.choice((_weekday, _date, _month, _leap, _clock, _clock, _unit, _unit, _unit))(rng)


def _weekday(rng: Random) -> Document:
    start, n = rng.randrange(7), rng.randint(2, 99)
    after = rng.random() < 0.6
    rest = n % 7
    end = _DAYS[(start + rest if after else start - rest) % 7]
    word = "after" if after else "before"
    passed = [_DAYS[(start + (d if after else -d)) % 7] for d in range(1, rest + 1)]
    counted = "".join(f" {number} {day}," for number, day in enumerate(passed, start=1))
    steps = [f"{n} = 7 * {n // 7} + {rest}."]
    steps.append(f"From {_DAYS[start]}:{counted} so {rest} days {word} is {end}.")
    return worked(
        rng, "dates", f"What day is {n} days {word} {_DAYS[start]}?", steps, f"It is {end}."
    )


def _date(rng: Random) -> Document:
    year, month = rng.randint(1990, 2040), rng.randint(1, 12)
    length = monthrange(year, month)[1]
    day, n = rng.randint(1, length), rng.randint(1, 27)
    name, total = _MONTHS[month - 1], day + n
    steps = [f"{name} {year} has {length} days.", f"{work_out(day, '+', n)}."]
    end = f"{total} {name} {year}"
    if total > length:
        steps.append(f"{work_out(total, '-', length)}.")
        end = f"{total - length} {_MONTHS[month % 12]} {year + month // 12}"
    question = f"Which date is {n} days after {day} {name} {year}?"
    return worked(rng, "dates", question, steps, f"It is {end}.")


def _month(rng: Random) -> Document:
    year, month = rng.randint(1990, 2040), rng.randint(1, 12)
    name, length = _MONTHS[month - 1], monthrange(year, month)[1]
    steps = [_leap_step(year)] if month == 2 else []
    question = f"How many days does {name} {year} have?"
    return worked(rng, "dates", question, [*steps, f"{name} has {length} days."], f"{length} days.")


def _leap_step(year: int) -> str:
    last, rest = year % 100, year % 4  # 2000 is the only full century in the data: a leap year
    kind = "a leap year" if isleap(year) else "no leap year"
    return f"{last} = 4 * {last // 4} + {rest}, so {year} is {kind}."


def _leap(rng: Random) -> Document:
    year = rng.choice((rng.randint(1901, 2099), 4 * rng.randint(476, 524)))
    steps = [_leap_step(year)]
    verdict = f"Yes, {year} is" if isleap(year) else f"No, {year} is not"
    return worked(rng, "dates", f"Is {year} a leap year?", steps, f"{verdict} a leap year.")


def _clock(rng: Random) -> Document:
    hour, minute, length = rng.randint(0, 20), 5 * rng.randrange(12), 5 * rng.randint(2, 35)
    thing = rng.choice(("film", "lesson", "concert", "meeting", "match", "flight", "show"))
    total = minute + length
    hours, rest = divmod(total, 60)
    steps = [f"{work_out(minute, '+', length)} minutes.", f"{total} = 60 * {hours} + {rest}."]
    steps.append(f"{work_out(hour, '+', hours)}.")
    end = f"{(hour + hours) % 24:02}:{rest:02}"
    question = (
        f"A {thing} starts at {hour:02}:{minute:02} and lasts {length} minutes. When does it end?"
    )
    return worked(rng, "dates", question, steps, f"It ends at {end}.")


def _unit(rng: Random) -> Document:
    big, small, factor = rng.choice(_UNITS)
    n = rng.randint(2, 12 if factor in (60, 24) else 90)
    if rng.random() < 0.35 and factor > 3:
        rest = rng.randint(1, factor - 1)
        total = n * factor + rest
        steps = [f"{work_out(n, '*', factor)}.", f"{work_out(n * factor, '+', rest)}."]
        question = f"How many {small} are {n} {big} and {rest} {small}?"
        return worked(rng, "units", question, steps, f"It is {total} {small}.")
    if rng.random() < 0.5:
        steps = [f"{work_out(n, '*', factor)}."]
        question = rng.choice(("How many {1} are {2} {0}?", "Convert {2} {0} to {1}."))
        question = question.format(big, small, n)
        return worked(rng, "units", question, steps, f"It is {n * factor} {small}.")
    steps = [f"{work_out(n * factor, '/', factor)}."]
    question = f"Convert {n * factor} {small} to {big}."
    return worked(rng, "units", question, steps, f"It is {n} {big}.")
