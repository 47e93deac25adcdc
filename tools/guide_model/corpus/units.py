"""Conversions of units, from whole numbers to whole numbers."""

from dataclasses import dataclass
from random import Random

from tools.guide_model.corpus.exercise import Example, Split, ask, draw


@dataclass(frozen=True, slots=True)
class _Conversion:
    """How many of the small unit make one of the large."""

    large: tuple[str, ...]
    small: tuple[str, ...]
    factor: int
    largest: int


# Powers of ten go far; the others are tables to know.
CONVERSIONS = (
    _Conversion(("kilometers", "km"), ("meters", "m"), 1000, 999),
    _Conversion(("meters", "m"), ("centimeters", "cm"), 100, 999),
    _Conversion(("centimeters", "cm"), ("millimeters", "mm"), 10, 999),
    _Conversion(("kilograms", "kg"), ("grams", "g"), 1000, 999),
    _Conversion(("tons", "t"), ("kilograms", "kg"), 1000, 999),
    _Conversion(("liters", "l"), ("milliliters", "ml"), 1000, 999),
    _Conversion(("gigabytes", "GB"), ("megabytes", "MB"), 1000, 999),
    _Conversion(("seconds", "s"), ("milliseconds", "ms"), 1000, 999),
    _Conversion(("euros",), ("cents",), 100, 999),
    _Conversion(("hours", "h"), ("minutes", "min"), 60, 12),
    _Conversion(("minutes", "min"), ("seconds", "s"), 60, 12),
    _Conversion(("days",), ("hours", "h"), 24, 10),
    _Conversion(("weeks",), ("days",), 7, 12),
    _Conversion(("years",), ("months",), 12, 12),
    _Conversion(("feet", "ft"), ("inches", "in"), 12, 12),
    _Conversion(("dozens",), ("pieces",), 12, 12),
)
_WORDINGS = (
    "How many {to} are {n} {unit}?",
    "Convert {n} {unit} to {to}.",
    "{n} {unit} in {to}",
    "What is {n} {unit} in {to}?",
    "{n} {unit} to {to}",
    "How many {to} are in {n} {unit}?",
    "{n} {unit} = ? {to}",
    "Change {n} {unit} into {to}",
)


def units(random: Random, split: Split) -> Example:
    """Returns a conversion to the smaller unit, or back to the larger one.

    Of the powers of ten the number is held out; of the others, whose table is short, the wording.
    """

    def make() -> tuple[_Conversion, int, str, bool]:
        conversion = random.choice(CONVERSIONS)
        digits = random.choice((1, 2, 2, 3))
        n = random.randint(1, min(conversion.largest, 10**digits - 1))
        wording = random.choice(_WORDINGS)
        return conversion, n, wording, random.random() < 0.3

    def key(made: tuple[_Conversion, int, str, bool]) -> tuple[object, ...]:
        conversion, n, wording, back = made
        name = "units", conversion.large[0], conversion.small[0], n
        return name if conversion.largest > 100 else (*name, wording, back)

    conversion, n, wording, back = draw(make, key, split)
    small = n * conversion.factor
    unit, to = random.choice(conversion.large), random.choice(conversion.small)
    number, result = n, small
    if back:
        unit, to = to, unit
        number, result = small, n
    text = wording.format(n=number, unit=unit, to=to)
    if random.random() < 0.3:
        text = text[:1].lower() + text[1:]
    return ask(text, f"{result} {to}")
