"""All tasks with their shares of the training examples, and documents made of them."""

from collections.abc import Iterator
from random import Random

from tools.guide_model.corpus import (
    about_edgeqwen,
    arithmetic,
    calls,
    fill,
    json_answers,
    small_talk,
    strings,
    units,
)
from tools.guide_model.corpus.exercise import Example, Fill, Split, Task

TASKS = (
    Task("topics", "Questions about edgeqwen, recombined", 14, about_edgeqwen.topics),
    Task("wordings", "Questions about edgeqwen, in other words", 0, about_edgeqwen.wordings),
    Task("options", "Questions about options, recombined", 6, about_edgeqwen.options),
    Task("small_talk", "Small talk, in other words", 7, small_talk.small_talk),
    Task("sums", "Sums of two and three digits", 11, arithmetic.sums),
    Task("differences", "Differences of two and three digits", 11, arithmetic.differences),
    Task("products", "Times table, in other words", 6, arithmetic.products),
    Task("repeat", "Repeat what is said", 8, strings.repeat),
    Task("reverse", "Reverse a list", 7, strings.reverse),
    Task("sort", "Sort a list", 11, strings.sort),
    Task("count", "Count items", 10, strings.count),
    Task("units", "Conversions of units", 10, units.units),
    Task("json", "Facts as JSON", 5, json_answers.json_answers),
    Task("fill", "Holes in lines of Python", 5, fill.fill, begins=True),
    Task("calls", "Function calls", 3, calls.calls, begins=True),
    Task("replies", "Answers from a function's result", 2.5, calls.replies, begins=True),
)

# A conversation goes on with this probability after every answer.
_GOES_ON = 0.7
_SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are the guide of edgeqwen.",
    "Answer briefly.",
    "You are a friendly assistant.",
)

Document = Example | Fill


def task(name: str) -> Task:
    """Returns the task of this name."""
    return next(task for task in TASKS if task.name == name)


def documents(random: Random, split: Split = "train") -> Iterator[Document]:
    """Yields conversations and holes of one side of the split, without end."""
    # Some can only begin a document; this evens out that they have fewer occasions.
    firsts = [task.share / (1 - _GOES_ON) if task.begins else task.share for task in TASKS]
    others = [0 if task.begins else task.share for task in TASKS]

    def example(shares: list[float]) -> Document:
        return random.choices(TASKS, shares)[0].make(random, split)

    while True:
        first = example(firsts)
        if isinstance(first, Fill):
            yield first
            continue
        messages = list(first.messages)
        if not first.tools and random.random() < 0.1:
            messages.insert(0, {"role": "system", "content": random.choice(_SYSTEM_PROMPTS)})
        # A person goes from one thing to another.
        while random.random() < _GOES_ON:
            following = example(others)
            assert isinstance(following, Example), "holes only begin a document"
            messages += following.messages
        yield Example(tuple(messages), first.tools)
