"""Facts in a sentence, to be answered as JSON."""

import json
from random import Random

from tools.guide_model.corpus.exercise import Example, Split, ask, draw
from tools.guide_model.corpus.names import ANIMALS, COLOURS, FRUITS, PEOPLE, TOWNS

_REQUESTS = (
    "{} Answer in JSON.",
    "{} Write it as JSON.",
    "Write as JSON: {}",
    "JSON: {}",
    "{} Give me that as a JSON object.",
    "Turn this into JSON: {}",
)
_LIST_REQUESTS = (
    "Write {} as a JSON list.",
    "Give me a JSON array of {}.",
    "JSON list: {}",
    "Turn {} into a JSON array.",
)


def json_answers(random: Random, split: Split) -> Example:
    """Returns a sentence or a list, and the JSON that says the same."""
    text, value = draw(lambda: _fact(random), lambda made: ("json", json.dumps(made[1])), split)
    request = random.choice(_LIST_REQUESTS if isinstance(value, list) else _REQUESTS)
    return ask(request.format(text), json.dumps(value))


def _fact(random: Random) -> tuple[str, object]:
    """Returns words, and the object or list that they describe."""
    name, age, town = random.choice(PEOPLE), random.randint(5, 99), random.choice(TOWNS)
    match random.randrange(6):
        case 0:
            return f"{name} is {age} years old.", {"name": name, "age": age}
        case 1:
            text = f"{name} is {age} years old and lives in {town}."
            return text, {"name": name, "age": age, "city": town}
        case 2:
            return f"{name} lives in {town}.", {"name": name, "city": town}
        case 3:
            animal, colour = random.choice(ANIMALS), random.choice(COLOURS)
            text = f"{name} has a {colour} {animal}."
            return text, {"name": name, "animal": animal, "color": colour}
        case 4:
            n, fruit = random.randint(2, 60), random.choice(FRUITS)
            return f"{name} buys {n} {fruit}.", {"name": name, "item": fruit, "count": n}
        case _:
            pool = random.choice((COLOURS, FRUITS, TOWNS, PEOPLE))
            items = random.sample(pool, random.randint(2, 5))
            return ", ".join(items), items
