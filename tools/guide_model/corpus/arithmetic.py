"""Sums and differences, worked out column by column as on paper, and the times table."""

from random import Random

from tools.guide_model.corpus.exercise import Example, Split, ask, draw

_SUMS = (
    ("{a}+{b}", 6),
    ("{a} + {b}", 4),
    ("{a}+{b}=", 2),
    ("{a} + {b} =", 2),
    ("{a}+{b}?", 1),
    ("What is {a}+{b}?", 2),
    ("What is {a} + {b}?", 2),
    ("what's {a} + {b}", 1),
    ("What is {a} plus {b}?", 2),
    ("{a} plus {b}", 2),
    ("How much is {a} + {b}?", 1),
    ("Add {a} and {b}.", 1),
    ("Compute {a}+{b}.", 1),
    ("What is the sum of {a} and {b}?", 1),
)
_DIFFERENCES = (
    ("{a}-{b}", 6),
    ("{a} - {b}", 4),
    ("{a}-{b}=", 2),
    ("What is {a}-{b}?", 2),
    ("What is {a} - {b}?", 2),
    ("What is {a} minus {b}?", 2),
    ("{a} minus {b}", 2),
    ("How much is {a} - {b}?", 1),
    ("Subtract {b} from {a}.", 1),
    ("Compute {a}-{b}.", 1),
)
_PRODUCTS = (
    ("{a}*{b}", 4),
    ("{a} * {b}", 2),
    ("{a} x {b}", 2),
    ("{a}x{b}", 1),
    ("What is {a} times {b}?", 2),
    ("{a} times {b}", 2),
    ("What is {a} * {b}?", 1),
    ("Multiply {a} by {b}.", 1),
)


def sums(random: Random, split: Split) -> Example:
    """Returns a sum of two numbers, of two or three digits where it is held out."""

    def make() -> tuple[int, int]:
        return _number(random, split), _number(random, split)

    # The order of the two doesn't matter, so that 48+37 is no hint to 37+48.
    a, b = draw(make, lambda pair: ("sum", min(pair), max(pair)), split)
    return ask(_worded(random, _SUMS, a, b), worked_sum(a, b))


def differences(random: Random, split: Split) -> Example:
    """Returns a difference that isn't negative."""

    def make() -> tuple[int, int]:
        a, b = _number(random, split), _number(random, split)
        return max(a, b), min(a, b)

    a, b = draw(make, lambda pair: ("difference", *pair), split)
    return ask(_worded(random, _DIFFERENCES, a, b), worked_difference(a, b))


def products(random: Random, split: Split) -> Example:
    """Returns a product of the times table; its wording is what is held out."""

    def make() -> tuple[int, int, str]:
        a, b = random.randint(0, 12), random.randint(0, 12)
        return a, b, _worded(random, _PRODUCTS, a, b)

    a, b, question = draw(make, lambda made: ("product", made[2].lower()), split)
    return ask(question, str(a * b))


def worked_sum(a: int, b: int) -> str:
    """Returns the columns from the right with what is carried, then the sum.

    37 and 48 give "7+8=15, 3+4+1=8: 85".
    """
    if a < 10 and b < 10:
        return str(a + b)
    columns: list[str] = []
    carried, rest = 0, (a, b)
    while any(rest):
        terms = [number % 10 for number in rest if number or not columns]
        rest = rest[0] // 10, rest[1] // 10
        terms += [carried] * carried
        columns.append("+".join(map(str, terms)) + f"={sum(terms)}")
        carried = sum(terms) // 10
    return ", ".join(columns) + f": {a + b}"


def worked_difference(a: int, b: int) -> str:
    """Returns the columns from the right, ten borrowed where needed, then the difference.

    85 and 48 give "15-8=7, 8-4-1=3: 37".
    """
    if a < 10:
        return str(a - b)
    columns: list[str] = []
    borrowed, rest = 0, (a, b)
    while rest[0]:
        above = rest[0] % 10
        terms = [rest[1] % 10] if rest[1] or not columns else []
        terms += [borrowed] * borrowed
        borrowed = int(sum(terms) > above)
        above += 10 * borrowed
        columns.append("-".join(map(str, (above, *terms))) + f"={above - sum(terms)}")
        rest = rest[0] // 10, rest[1] // 10
    return ", ".join(columns) + f": {a - b}"


def _number(random: Random, split: Split) -> int:
    n_digits = random.choice((2, 3) if split == "held_out" else (1, 2, 2, 3, 3))
    return random.randrange(10 ** (n_digits - 1) if n_digits > 1 else 0, 10**n_digits)


def _worded(random: Random, wordings: tuple[tuple[str, int], ...], a: int, b: int) -> str:
    texts, weights = zip(*wordings, strict=True)
    text: str = random.choices(texts, weights)[0]
    if random.random() < 0.2:
        text = text.lower()
    return text.format(a=a, b=b)
