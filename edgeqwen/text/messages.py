"""Conversations and tools as plain lists and mappings, checked before a template sees them."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgeqwen.errors import TemplateError
from edgeqwen.text.template_budget import MAX_BITS

_MAX_DEPTH = 64


def plain_messages(messages: object) -> list[dict[str, Any]]:
    """Returns a copy of the messages in Python's own types.

    Raises TemplateError unless it is a non-empty list of mappings, each with a ``role``.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise TemplateError(
            f"messages is {_kind(messages)}, expected a list of "
            "{'role': 'user', 'content': 'text'}"
        )
    if not messages:
        raise TemplateError("messages is empty, expected at least one message")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise TemplateError(
                f"messages[{i}] is {_kind(message)}, expected {{'role': ..., 'content': ...}}"
            )
        if not isinstance(message.get("role"), str):
            raise TemplateError(
                f"messages[{i}] has no role, expected 'system', 'user', 'assistant' or 'tool'"
            )
    return [_plain(message, f"messages[{i}]", 0) for i, message in enumerate(messages)]


def plain_tools(tools: object) -> list[Any] | None:
    """Returns a copy of the tools in Python's own types, None for no tools."""
    if tools is None:
        return None
    if not isinstance(tools, Sequence) or isinstance(tools, str | bytes):
        raise TemplateError(
            f"tools is {_kind(tools)}, expected a list of JSON schemas of functions"
        )
    for i, tool in enumerate(tools):
        if not isinstance(tool, Mapping):
            raise TemplateError(
                f"tools[{i}] is {_kind(tool)}, expected the JSON schema of a function"
            )
    return [_plain(tool, f"tools[{i}]", 0) for i, tool in enumerate(tools)]


def _plain(value: object, place: str, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        if value.bit_length() > MAX_BITS:
            raise TemplateError(
                f"{place} is a number of {value.bit_length()} bits, expected at most {MAX_BITS}"
            )
        return int(value)
    if depth == _MAX_DEPTH:
        raise TemplateError(f"{place} is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        result = {}
        for key, element in value.items():
            if not isinstance(key, str):
                raise TemplateError(f"{place} has the key {key!r}, expected strings as keys")
            result[str(key)] = _plain(element, f"{place}.{key}", depth + 1)
        return result
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [_plain(item, f"{place}[{i}]", depth + 1) for i, item in enumerate(value)]
    raise TemplateError(
        f"{place} is {_kind(value)}, expected text, numbers, lists and mappings only"
    )


def _kind(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
