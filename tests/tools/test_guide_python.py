"""The Python that the guide shows exists: modules, attributes, arguments, exceptions."""

import ast
import builtins
import importlib
import inspect
import re
import typing
from types import ModuleType
from typing import Any

import pytest

import edgeqwen
from edgeqwen import Chat, Generation, GenerationStats, Model, errors
from edgeqwen.config import ModelConfig
from edgeqwen.quant import QuantizePlan, QuantizeReport, plan, quantize
from edgeqwen.sampling import SamplingOptions
from edgeqwen.text.chat_template import ChatTemplate
from edgeqwen.text.tokenizer import Tokenizer
from tests.tools.command_line import code_spans
from tools.guide_model.guide import read_guide

# What the names in the answers stand for, and the attributes whose own attributes are shown.
NAMES: dict[str, Any] = {
    "edgeqwen": edgeqwen,
    "model": Model,
    "chat": Chat,
    "answer": Generation,
    "generation": Generation,
    "tokenizer": Tokenizer,
    "report": QuantizeReport,
    "quantize": quantize,
    "plan": plan,
    "found": QuantizePlan,
}
TYPES = {
    (Model, "config"): ModelConfig,
    (Model, "tokenizer"): Tokenizer,
    (Model, "sampling"): SamplingOptions,
    (Model, "chat_template"): ChatTemplate,
    (Generation, "stats"): GenerationStats,
}
# Calls whose value has attributes that are shown.
RESULTS = {Model.generate: Generation, Model.chat: Chat, Chat.send: Generation}


def attribute(owner: Any, name: str) -> Any:
    """Returns an attribute's type or value, None for one that only instances have.

    Raises AssertionError or ImportError where there is none.
    """
    if (owner, name) in TYPES:
        return TYPES[owner, name]
    if hasattr(owner, name):
        return getattr(owner, name)
    if isinstance(owner, ModuleType):
        return importlib.import_module(f"{owner.__name__}.{name}")
    assert re.search(rf"self\.{name}(:.*)? = ", inspect.getsource(owner)), (owner, name)
    return None


def meaning(node: ast.expr) -> Any:
    """Returns what an expression stands for, None where that isn't known; checks it on the way."""
    match node:
        case ast.Name(name):
            return NAMES.get(name)
        case ast.Attribute(value, name):
            owner = meaning(value)
            return None if owner is None else attribute(owner, name)
        case ast.Call(function):
            called = meaning(function)
            if called is not None:
                check_call(called, node)
            return RESULTS.get(called)
    return None


def check_call(called: Any, call: ast.Call) -> None:
    """Raises TypeError or AssertionError for arguments that don't fit."""
    signature = inspect.signature(called)
    itself = [None] if "." in called.__qualname__ else []
    named = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg is not None}
    bound = signature.bind(*itself, *call.args, **named).arguments
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            keywords = typing.get_args(parameter.annotation)[0]
            assert set(bound.get(parameter.name, ())) <= set(typing.get_type_hints(keywords))


def check(code: str) -> None:
    """Raises an error where code shows what doesn't exist."""
    for node in ast.walk(ast.parse(code + (" pass" if code.endswith(":") else ""))):
        if isinstance(node, ast.expr):
            meaning(node)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name), code
        elif isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)


# What begins like Python that NAMES can tell something about.
PYTHON = re.compile(rf"(import|from|for|with) |\w+ = |({'|'.join(NAMES)})[.(]")
SPANS = [(topic, span) for topic, span in code_spans(read_guide()) if PYTHON.match(span)]


@pytest.mark.parametrize("code", [span for _, span in SPANS], ids=[t.id for t, _ in SPANS])
def test_the_python_that_is_shown_exists(code: str) -> None:
    check(code)


def test_exceptions_that_are_shown_exist() -> None:
    shown = {span for _, span in code_spans(read_guide()) if span.endswith("Error")}
    known = {name for name in dir(errors) if name.endswith("Error")}
    assert known <= shown
    assert all(name in known or hasattr(builtins, name) for name in shown)


@pytest.mark.parametrize(
    "code",
    [
        "model.generates(prompt)",
        "model.generate(prompt, max_token=3)",
        "model.generate(prompt).texts",
        "edgeqwen.loads",
        "model.generate()",
        "edgeqwen.load('model.gguf', 2)",
        "answer.stats.tps",
        "chat = model.chat(sytem='x')",
        "from edgeqwen.quant import quantise",
        "for piece in model.stream(prompt): print(piece)",
    ],
)
def test_what_does_not_exist_would_be_noticed(code: str) -> None:
    with pytest.raises((AssertionError, ImportError, TypeError)):
        check(code)
