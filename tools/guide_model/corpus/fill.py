"""Lines of Python with a hole that only one text fits."""

from random import Random

from tools.guide_model.corpus.exercise import Fill, Split, draw

_NAMES = (
    "a", "b", "c", "x", "y", "z", "n", "i", "k", "total", "count", "value", "item", "name",
    "left", "right", "first", "last", "width", "height", "price", "size", "text", "line",
)  # fmt: skip
_LISTS = ("items", "values", "names", "lines", "words", "numbers", "rows", "files")
_FUNCTIONS = ("add", "compute", "combine", "work", "run", "load", "check", "show", "update")

# What stands before the hole, in it and after it; {a} {b} are names, {l} a list, {f} a function.
_HOLES = (
    ("def {f}({a}, {b}):\n    # sum\n    return ", "{a} + {b}", "\n"),
    ("def {f}({a}, {b}):\n    # product\n    return ", "{a} * {b}", "\n"),
    ("def {f}({a}, {b}):\n    # difference\n    return ", "{a} - {b}", "\n"),
    ("def {f}({a}, {b}):\n    # the larger one\n    return ", "max({a}, {b})", "\n"),
    ("def {f}({a}, {b}):\n    # the smaller one\n    return ", "min({a}, {b})", "\n"),
    ("for {a} in ", "{l}", ":\n    print({a})  # every one of {l}\n"),
    ("for ", "{a}", " in {l}:\n    {f}({a})\n"),
    ("{l} = []\n{l}.", "append({a})", "  # add {a}\n"),
    ("# how many {l}\n{a} = ", "len({l})", "\n"),
    ("# the sum of {l}\n{a} = ", "sum({l})", "\n"),
    ("# {l} in order\n{a} = ", "sorted({l})", "\n"),
    ("# the first of {l}\n{a} = ", "{l}[0]", "\n"),
    ("# the last of {l}\n{a} = ", "{l}[-1]", "\n"),
    ("if {a} ", "is None", ":\n    # {a} is missing\n    return\n"),
    ("if {a} > {b}:\n    {a}, {b} = ", "{b}, {a}", "  # swap\n"),
    ("import ", "json", "\n{a} = json.loads({b})\n"),
    ("import ", "math", "\n{a} = math.sqrt({b})\n"),
    ("with open({a}) as ", "{b}", ":\n    print({b}.read())\n"),
    ("{a} = {f}({b})\nprint(", "{a}", ")  # what {f} returned\n"),
    ("class Box:\n    def __init__(self, {a}):\n        self.{a} = ", "{a}", "\n"),
    ("{l} = [{a} * 2 for ", "{a}", " in range({b})]\n"),
    ("while {a} < {b}:\n    {a} ", "+= 1", "  # next\n"),
)


def fill(random: Random, split: Split) -> Fill:
    """Returns a few lines with a hole; which names stand in them is held out."""

    def make() -> Fill:
        a, b = random.sample(_NAMES, 2)
        names = {"a": a, "b": b, "l": random.choice(_LISTS), "f": random.choice(_FUNCTIONS)}
        prefix, answer, suffix = (part.format(**names) for part in random.choice(_HOLES))
        return Fill(prefix, suffix, answer)

    return draw(make, lambda made: ("fill", made.prefix, made.suffix), split)
