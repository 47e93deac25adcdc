"""Chat templates: the same text as Hugging Face's rendering, and what is said of broken ones."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeqwen.errors import TemplateError
from edgeqwen.gguf_file import GgufFile
from edgeqwen.text.chat_template import CHATML, MAX_SOURCE, ChatTemplate
from tests.oracles import chat_template as oracle
from tests.text import templates
from tests.text.vocabularies import write_vocab_gguf

VARIABLES = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "You are Qwen."},
    {"role": "user", "content": "Wie wird das Wetter\n in Köln? "},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"type": "function", "function": {"name": "weather", "arguments": {"ort": "Köln"}}},
            {"name": "time", "arguments": {"zone": "<&>'", "n": [1, 2.5, None, True]}},
        ],
    },
    {"role": "tool", "content": "{'sun': 1}"},
    {"role": "tool", "content": "12:00"},
    {"role": "assistant", "content": "<tool_call>hmm</tool_call>\n\nSunny."},
    {"role": "user", "content": "Thanks {{ 7 * 7 }} {% if x %}"},
]
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Übersicht <b>"}}]


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, variables=VARIABLES)


def test_chatml() -> None:
    assert template(CHATML).render(CONVERSATION[:2]) == (
        "<|im_start|>system\nYou are Qwen.<|im_end|>\n"
        "<|im_start|>user\nWie wird das Wetter\n in Köln? <|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    without = template(CHATML).render(CONVERSATION[:1], add_generation_prompt=False)
    assert without == "<|im_start|>system\nYou are Qwen.<|im_end|>\n"


@pytest.mark.parametrize("name", templates.ALL)
@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.parametrize("first", range(3))
def test_same_as_hugging_face(name: str, tools: Any, prompt: bool, first: int) -> None:
    source = templates.ALL[name]
    messages = CONVERSATION[first:]
    expected = oracle.render(source, messages, tools, prompt, VARIABLES)
    rendered = template(source).render(messages, tools=tools, add_generation_prompt=prompt)
    assert rendered == expected


def test_every_construct() -> None:
    source = templates.EVERYTHING
    plain = source.replace("{%- generation %}", "{%- if true %}")
    plain = plain.replace("{%- endgeneration %}", "{%- endif %}")
    for first in range(3):
        expected = oracle.render(plain, CONVERSATION[first:])
        assert template(source).render(CONVERSATION[first:]) == expected


TEXT = st.text(max_size=12)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": TEXT},
        optional={"name": TEXT},
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, max_examples=60)
@given(MESSAGES, st.sampled_from([*templates.ALL]), st.booleans())
def test_same_for_any_conversation(messages: list[dict[str, Any]], name: str, prompt: bool) -> None:
    expected = oracle.render(templates.ALL[name], messages, None, prompt, VARIABLES)
    rendered = COMPILED[name].render(messages, add_generation_prompt=prompt)
    assert rendered == expected


COMPILED = {name: template(source) for name, source in templates.ALL.items()}


def test_the_published_template(shared_data: Path) -> None:
    source = (shared_data / "qwen2.5-instruct.jinja").read_text(encoding="utf-8")
    for messages in (CONVERSATION, CONVERSATION[1:], CONVERSATION[2:]):
        for tools in (None, TOOLS):
            expected = oracle.render(source, messages, tools)
            assert template(source).render(messages, tools=tools) == expected


def test_json_as_hugging_face_writes_it() -> None:
    source = (
        "{{ tools[0] | tojson }}{{ tools | tojson(indent=2) }}"
        "{{ tools | tojson(separators=(',', ':'), sort_keys=true, ensure_ascii=true) }}"
    )
    expected = (
        json.dumps(TOOLS[0], ensure_ascii=False)
        + json.dumps(TOOLS, ensure_ascii=False, indent=2)
        + json.dumps(TOOLS, separators=(",", ":"), sort_keys=True)
    )
    assert template(source).render(CONVERSATION, tools=TOOLS) == expected


def test_a_key_that_is_a_methods_name() -> None:
    source = "{{ messages[0].update }}{{ messages[0].copy }}{{ messages[0]['items'] }}"
    message = {"role": "user", "update": "a", "copy": "b", "items": "c"}
    assert template(source).render([message]) == "abc"


def test_date() -> None:
    rendered = template("{{ strftime_now('%Y-%m-%d') }}").render(CONVERSATION)
    assert rendered == oracle.render("{{ strftime_now('%Y-%m-%d') }}", CONVERSATION)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "a\n{% if %}",
            "chat template, line 2: Expected an expression, got 'end of statement block'",
        ),
        ("{{ x | nothing }}", "chat template, line 1: No filter named 'nothing'."),
        (
            "{{ " + "(" * 5000 + " }}",
            "chat template: can't be compiled: maximum recursion depth exceeded",
        ),
        (
            "{% include 'x' %}",
            "chat template: can't be compiled: {% include %} (line 1) needs other templates, and a "
            "model file has none",
        ),
        (
            "{{a}}" * 10_000,
            "chat template: can't be compiled: it has 10001 parts, expected at most 10000",
        ),
        (
            "a" * (MAX_SOURCE + 1),
            f"chat template: has {MAX_SOURCE + 1} characters, expected at most {MAX_SOURCE}",
        ),
    ],
)
def test_broken_source(source: str, message: str) -> None:
    with pytest.raises(TemplateError) as error:
        ChatTemplate(source)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


UNSUITED = "; it doesn't suit this conversation"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "a\n{{ messages[0].x.y }}",
            f"chat template, line 2: 'dict object' has no attribute 'x'{UNSUITED}",
        ),
        ("{{ x[0] }}", f"chat template, line 1: 'x' is undefined{UNSUITED}"),
        (
            "\n\n{{ messages[0].content + none }}",
            'chat template, line 3: can only concatenate str (not "NoneType") to str' + UNSUITED,
        ),
        (
            "{{ raise_exception('Only one\n system turn!') }}",
            "chat template: Only one system turn!",
        ),
        (
            "{{ 'a' * 10 ** 9 }}",
            "chat template: takes too long or makes too much text for this conversation; it is "
            "broken or hostile",
        ),
        (
            "{{ messages.append(1) }}",
            f"chat template, line 1: 'list object' has no attribute 'append'{UNSUITED}",
        ),
        (
            "{{ '%s' % 1 }}",
            "chat template, line 1: '%' can't format text here; '~' and the filters are there for "
            f"that{UNSUITED}",
        ),
    ],
)
def test_unsuitable(source: str, message: str) -> None:
    with pytest.raises(TemplateError) as error:
        ChatTemplate(source).render(CONVERSATION)
    assert str(error.value) == message


def test_long_reasons_are_cut() -> None:
    with pytest.raises(TemplateError) as error:
        ChatTemplate("{{ raise_exception('a' * 5000) }}").render(CONVERSATION)
    assert str(error.value) == f"chat template: {'a' * 300}..."


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (None, "messages is None, expected a list of {'role': 'user', 'content': 'text'}"),
        ("hi", "messages is of type str, expected a list of {'role': 'user', 'content': 'text'}"),
        ([], "messages is empty, expected at least one message"),
        (["hi"], "messages[0] is of type str, expected {'role': ..., 'content': ...}"),
        (
            [{"role": "user"}, {"content": "x"}],
            "messages[1] has no role, expected 'system', 'user', 'assistant' or 'tool'",
        ),
        (
            [{"role": "user", "content": b"x"}],
            "messages[0].content is of type bytes, expected text, numbers, lists and mappings only",
        ),
        (
            [{"role": "user", "a": [1, {"b": {1, 2}}]}],
            "messages[0].a[1].b is of type set, expected text, numbers, lists and mappings only",
        ),
        (
            [{"role": "user", "a": {1: 2}}],
            "messages[0].a has the key 1, expected strings as keys",
        ),
        (
            [{"role": "user", "a": 1 << 5000}],
            "messages[0].a is a number of 5001 bits, expected at most 1024",
        ),
    ],
)
def test_other_messages(messages: Any, message: str) -> None:
    with pytest.raises(TemplateError) as error:
        template(CHATML).render(messages)
    assert str(error.value) == message


def test_endless_messages() -> None:
    endless: dict[str, Any] = {"role": "user"}
    endless["content"] = [endless]
    with pytest.raises(TemplateError, match=r"is nested more than 64 levels deep$"):
        template(CHATML).render([endless])


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ("x", "tools is of type str, expected a list of JSON schemas of functions"),
        (
            [{}, "x"],
            "tools[1] is of type str, expected the JSON schema of a function",
        ),
    ],
)
def test_other_tools(tools: Any, message: str) -> None:
    with pytest.raises(TemplateError) as error:
        template(CHATML).render(CONVERSATION, tools=tools)
    assert str(error.value) == message


def test_from_gguf(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_vocab_gguf(path, chat_template="{{ bos_token }}{{ eos_token }}{{ pad_token }}")
    with GgufFile.open(path) as file:
        for made in (ChatTemplate.from_gguf(path), ChatTemplate.from_gguf(file)):
            assert made.render(CONVERSATION) == "<|endoftext|><|im_end|><|endoftext|>"
    write_vocab_gguf(path, chat_template="{{ nothing[0] }}")
    with pytest.raises(TemplateError) as error:
        ChatTemplate.from_gguf(path).render(CONVERSATION)
    assert str(error.value) == f"{path}: chat template, line 1: 'nothing' is undefined{UNSUITED}"


def test_file_without_a_template(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_vocab_gguf(path)
    assert ChatTemplate.from_gguf(path).source == CHATML
    tokens = [chr(i) for i in range(300)]
    write_vocab_gguf(path, tokens=tokens, token_type=[1] * 300)
    with pytest.raises(TemplateError) as error:
        ChatTemplate.from_gguf(path)
    assert str(error.value) == (
        f"{path}: has no tokenizer.chat_template, and no <|im_start|> for the usual one: this "
        "model continues texts, it doesn't hold conversations"
    )


def test_template_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_vocab_gguf(path, chat_template=7)
    with pytest.raises(TemplateError) as error:
        ChatTemplate.from_gguf(path)
    assert str(error.value) == f"{path}: tokenizer.chat_template is 7, expected text"


def test_several_threads() -> None:
    made = template(templates.TOOLS)
    expected = made.render(CONVERSATION)
    results: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: results.extend(made.render(CONVERSATION) for _ in range(20))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 80


def test_a_long_conversation_is_no_attack() -> None:
    turns = [
        {"role": ("user", "assistant")[i % 2], "content": "word " * 200 + "<b>"}
        for i in range(2000)
    ]
    assert len(template(templates.TOOLS).render(turns)) > 2_000_000
    one = [{"role": "user", "content": "word " * 1_000_000}]
    assert len(template(templates.TOOLS).render(one)) > 5_000_000
