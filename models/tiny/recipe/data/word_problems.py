"""Stories that take one to four steps of arithmetic. Every step is written out in the answer."""

from __future__ import annotations

from random import Random

from recipe.data.document import Document, worked
from recipe.data.words import BOXES, CITIES, ITEMS, JOBS, NAMES, pronoun
from recipe.data.working import work_out


def word_problem(rng: Random) -> Document:
    """One story of any kind; `kind` says how many steps it takes."""
    story = rng.choice((_running, _running, _running, _boxes, _shopping, _compare, _trip, _work))
    question, steps, answer = story(rng)
    return worked(rng, f"story-{min(len(steps), 4)}", question, steps, answer)


_MORE = (
    ("{p} buys {n} more {i}.", "buys {n} more"),
    ("{p} finds {n} {i}.", "finds {n}"),
    ("{o} gives {n} {i} to {w}.", "gets {n} from {o}"),
    ("Then {w} gets {n} more {i} as a gift.", "gets {n} as a gift"),
)
_FEWER = (
    ("{p} gives {n} {i} to {o}.", "gives {n} away"),
    ("{p} loses {n} {i}.", "loses {n}"),
    ("Then {w} sells {n} {i}.", "sells {n}"),
    ("{n} of the {i} are broken and thrown away.", "loses {n} broken ones"),
)


def _running(rng: Random) -> tuple[str, list[str], str]:
    who, other = rng.sample(NAMES, 2)
    item, total = rng.choice(ITEMS), rng.randint(5, rng.choice((50, 200, 600)))
    text, steps = [f"{who} has {total} {item}."], list[str]()
    for _ in range(rng.randint(1, 4)):
        fewer = total > 4 and rng.random() < 0.5
        if total < 200 and rng.random() < 0.12:
            text.append(f"Then the number of {item} that {who} has doubles.")
            steps.append(f"{who} doubles them: {work_out(total, '*', 2)}.")
            total *= 2
            continue
        n = rng.randint(2, total - 1) if fewer else rng.randint(2, rng.choice((50, 300)))
        story, reason = rng.choice(_FEWER if fewer else _MORE)
        result = total - n if fewer else total + n
        fill = {"p": pronoun(who), "n": n, "i": item, "o": other, "w": who}
        text.append(story.format(**fill))
        sign = "-" if fewer else "+"
        steps.append(f"{who} {reason.format(**fill)}: {work_out(total, sign, n)}.")
        total = result
    text.append(f"How many {item} does {who} have now?")
    return " ".join(text), steps, f"{who} has {total} {item} now."


def _boxes(rng: Random) -> tuple[str, list[str], str]:
    item, box = rng.choice(ITEMS), rng.choice(BOXES)
    a, b = rng.randint(2, 12), rng.randint(3, 60)
    text = [f"There are {a} {box} with {b} {item} each."]
    steps = [f"The {box} hold {work_out(a, '*', b)} {item}."]
    total = a * b
    if rng.random() < 0.6:
        n = rng.randint(2, total - 1)
        text.append(rng.choice(("{} {} are taken out.", "{} {} are given away.")).format(n, item))
        steps.append(f"{work_out(total, '-', n)} {item} are left.")
        total -= n
    if rng.random() < 0.5:
        n = rng.randint(2, 200)
        text.append(f"Then {n} {item} are added.")
        steps.append(f"{work_out(total, '+', n)} {item} are there then.")
        total += n
    divisors = [d for d in range(2, 13) if total % d == 0]
    if divisors and rng.random() < 0.5:
        d = rng.choice(divisors)
        text.append(
            f"All {item} are shared equally among {d} children. How many does each child get?"
        )
        steps.append(f"Each child gets {work_out(total, '/', d)}.")
        return " ".join(text), steps, f"Each child gets {total // d} {item}."
    text.append(f"How many {item} are there in the end?")
    return " ".join(text), steps, f"There are {total} {item} in the end."


def _shopping(rng: Random) -> tuple[str, list[str], str]:
    who = rng.choice(NAMES)
    goods = rng.sample(ITEMS, rng.randint(1, 2))
    text, steps, sums = list[str](), list[str](), list[int]()
    for item in goods:
        count, price = rng.randint(2, 12), rng.randint(2, 30)
        text.append(f"{who} buys {count} {item} for ${price} each.")
        steps.append(f"The {item} cost {work_out(count, '*', price)} dollars.")
        sums.append(count * price)
    total = sum(sums)
    if len(sums) == 2:
        steps.append(f"Together they cost {work_out(sums[0], '+', sums[1])} dollars.")
    if rng.random() < 0.5:
        paid = total + rng.randint(1, 99)
        text.append(f"{pronoun(who)} pays with ${paid}. How much change does {who} get?")
        steps.append(f"The change is {work_out(paid, '-', total)} dollars.")
        return " ".join(text), steps, f"{who} gets ${paid - total} back."
    text.append(f"How much does {who} pay?")
    return " ".join(text), steps, f"{who} pays ${total}."


def _compare(rng: Random) -> tuple[str, list[str], str]:
    a, b, c = rng.sample(NAMES, 3)
    item, n = rng.choice(ITEMS), rng.randint(4, 90)
    k, word = rng.choice(((2, "twice"), (3, "three times"), (4, "four times")))
    m = n * k
    text = [f"{a} has {n} {item}. {b} has {word} as many {item} as {a}."]
    steps = [f"{b} has {work_out(n, '*', k)} {item}."]
    if rng.random() < 0.35:
        text.append(f"How many {item} do {a} and {b} have together?")
        steps.append(f"Together they have {work_out(n, '+', m)}.")
        return " ".join(text), steps, f"Together they have {n + m} {item}."
    d = rng.randint(2, m - 1)
    fewer = rng.random() < 0.5
    last = m - d if fewer else m + d
    text.append(f"{c} has {d} {'fewer' if fewer else 'more'} {item} than {b}.")
    steps.append(f"{c} has {work_out(m, '-' if fewer else '+', d)} {item}.")
    if rng.random() < 0.5:
        text.append(f"How many {item} does {c} have?")
        return " ".join(text), steps, f"{c} has {last} {item}."
    text.append(f"How many {item} do all three have together?")
    steps += [f"{work_out(n, '+', m)}.", f"{work_out(n + m, '+', last)}."]
    return " ".join(text), steps, f"All three have {n + m + last} {item} together."


def _trip(rng: Random) -> tuple[str, list[str], str]:
    start, end = rng.sample(CITIES, 2)
    speed, hours = rng.randint(20, 120), rng.randint(2, 9)
    vehicle = rng.choice(("train", "car", "bus", "truck"))
    way = speed * hours
    text = f"A {vehicle} leaves {start} for {end} and drives {hours} hours at {speed} km per hour."
    steps = [f"In {hours} hours it drives {work_out(speed, '*', hours)} km."]
    if rng.random() < 0.4:
        return f"{text} How far does it drive?", steps, f"It drives {way} km."
    more = rng.randint(5, 300)
    whole = way + more
    steps.append(f"{work_out(whole, '-', way)} km are left.")
    question = f"{text} The whole way is {whole} km long. How many km are left?"
    return question, steps, f"There are {more} km left."


def _work(rng: Random) -> tuple[str, list[str], str]:
    who, job = rng.choice(NAMES), rng.choice(JOBS)
    wage, hours, days = rng.randint(8, 40), rng.randint(2, 9), rng.randint(2, 6)
    daily = wage * hours
    text = [
        f"{who} is a {job} and earns ${wage} per hour. {pronoun(who)} works {hours} hours a day."
    ]
    steps = [f"In one day {who} earns {work_out(wage, '*', hours)} dollars."]
    total = daily * days
    steps.append(f"In {days} days that is {work_out(daily, '*', days)} dollars.")
    if rng.random() < 0.5:
        text.append(f"How much does {who} earn in {days} days?")
        return " ".join(text), steps, f"{who} earns ${total} in {days} days."
    spent = rng.randint(5, total - 1)
    text.append(f"After {days} days {who} spends ${spent}. How much money is left?")
    steps.append(f"{work_out(total, '-', spent)} dollars are left.")
    return " ".join(text), steps, f"{who} has ${total - spent} left."
