"""Function calls in the Hermes form, and answers from what the functions returned."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from tools.guide_model.corpus.exercise import Example, Split, draw
from tools.guide_model.corpus.names import PEOPLE, TOWNS

_TEXTS = ("I am late", "call me", "dinner is ready", "see you soon", "happy birthday", "thank you")


@dataclass(frozen=True, slots=True)
class _Function:
    """A function on offer: how people ask for it, what it returns and what is then said."""

    name: str
    description: str
    parameters: dict[str, str]
    arguments: Callable[[Random], dict[str, Any]]
    requests: tuple[str, ...]
    result: Callable[[Random, dict[str, Any]], dict[str, Any]]
    reply: str


_FUNCTIONS = (
    _Function(
        "get_weather",
        "Weather of a city",
        {"city": "string"},
        lambda random: {"city": random.choice(TOWNS)},
        ("What is the weather in {city}?", "How warm is it in {city}?", "Weather in {city}"),
        lambda random, _: {"temperature": random.randint(0, 35)},
        "It is {temperature} degrees in {city}.",
    ),
    _Function(
        "get_time",
        "Local time of a city",
        {"city": "string"},
        lambda random: {"city": random.choice(TOWNS)},
        ("What time is it in {city}?", "Time in {city}", "Tell me the time in {city}."),
        lambda random, _: {"time": f"{random.randint(0, 23)}:{random.randint(10, 59)}"},
        "It is {time} in {city}.",
    ),
    _Function(
        "set_timer",
        "Start a timer",
        {"minutes": "integer"},
        lambda random: {"minutes": random.randint(2, 90)},
        (
            "Set a timer for {minutes} minutes.",
            "Timer: {minutes} minutes",
            "Wake me in {minutes} minutes.",
        ),
        lambda *_: {"ok": True},
        "The timer is set for {minutes} minutes.",
    ),
    _Function(
        "send_message",
        "Send a message to a person",
        {"to": "string", "text": "string"},
        lambda random: {"to": random.choice(PEOPLE), "text": random.choice(_TEXTS)},
        ("Tell {to}: {text}", "Send {to} the message: {text}", "Write to {to}: {text}"),
        lambda *_: {"ok": True},
        "I sent the message to {to}.",
    ),
    _Function(
        "multiply",
        "Multiply two numbers",
        {"a": "integer", "b": "integer"},
        lambda random: {"a": random.randint(13, 99), "b": random.randint(13, 99)},
        ("What is {a} times {b}?", "Multiply {a} by {b}.", "{a} * {b}"),
        lambda _, arguments: {"product": arguments["a"] * arguments["b"]},
        "{a} times {b} is {product}.",
    ),
    _Function(
        "find_file",
        "Find a file by its name",
        {"name": "string"},
        lambda random: {"name": random.choice(PEOPLE).lower() + random.choice((".txt", ".pdf"))},
        ("Where is {name}?", "Find the file {name}", "Look for {name}."),
        lambda random, arguments: {"path": f"{random.choice(TOWNS).lower()}/{arguments['name']}"},
        "It is at {path}.",
    ),
)


def calls(random: Random, split: Split) -> Example:
    """Returns a request that one of the functions on offer answers, and the call."""
    return _conversation(random, split)[0]


def replies(random: Random, split: Split) -> Example:
    """Returns a conversation that ends with what a called function returned, put into words."""
    example, function, arguments = _conversation(random, split)
    result = function.result(random, arguments)
    response = f"<tool_response>\n{json.dumps(result)}\n</tool_response>"
    return Example(
        (
            *example.messages,
            {"role": "user", "content": response},
            {"role": "assistant", "content": function.reply.format(**arguments, **result)},
        ),
        example.tools,
    )


def _conversation(random: Random, split: Split) -> tuple[Example, _Function, dict[str, Any]]:
    def make() -> tuple[list[_Function], _Function, dict[str, Any]]:
        offered = random.sample(_FUNCTIONS, random.choice((1, 2, 2)))
        function = random.choice(offered)
        return offered, function, function.arguments(random)

    offered, function, arguments = draw(
        make, lambda made: ("call", made[1].name, *made[2].values()), split
    )
    call = json.dumps({"name": function.name, "arguments": arguments})
    question = random.choice(function.requests).format(**arguments)
    messages = (
        {"role": "user", "content": question},
        {"role": "assistant", "content": f"<tool_call>\n{call}\n</tool_call>"},
    )
    return Example(messages, tuple(map(_schema, offered))), function, arguments


def _schema(function: _Function) -> dict[str, Any]:
    """Returns the function as chat templates take it."""
    return {
        "type": "function",
        "function": {
            "name": function.name,
            "description": function.description,
            "parameters": {
                "type": "object",
                "properties": {name: {"type": type} for name, type in function.parameters.items()},
                "required": list(function.parameters),
            },
        },
    }
