"""The guide's reader: what it makes of the files, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from tools.guide_model.guide import SECTIONS, Option, Topic, phrasing_key, read_guide
from tools.guide_model.tables import GuideError

TOPIC = {
    "id": "leave",
    "title": "Leave a chat",
    "wishes": ["leave the chat"],
    "questions": ["Which key ends it?"],
    "held_out": ["way out"],
    "answer": "Press Ctrl-D, or type `/quit`.",
}
OPTION = {
    "commands": ["chat", "run"],
    "flags": ["-n", "--max-tokens"],
    "value": "N",
    "meaning": "at most N tokens in an answer",
    "default": "",
    "wishes": ["get shorter answers"],
}


def table(kind: str, fields: dict[str, Any], **changes: Any) -> str:
    """Returns a table as TOML; a change to None leaves a key out."""
    lines = [
        f"{key} = {json.dumps(value)}"
        for key, value in {**fields, **changes}.items()
        if value is not None
    ]
    return "\n".join([f"[[{kind}]]", *lines, ""])


def topic(**changes: Any) -> str:
    return table("topic", TOPIC, **changes)


def option(**changes: Any) -> str:
    return table("option", OPTION, **changes)


def write(folder: Path, **texts: str) -> Path:
    """Writes a guide whose sections hold nothing but these texts."""
    for name in SECTIONS:
        text = f'title = "On {name}"\n{texts.get(name, "")}'
        (folder / f"{name}.toml").write_text(text, "utf-8")
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(GuideError) as error:
        read_guide(folder)
    return str(error.value)


def test_reads_topics_and_options_in_the_order_of_the_manual(tmp_path: Path) -> None:
    other = topic(id="other", title="Other", wishes=[], questions=["why"], held_out=["wherefore"])
    guide = read_guide(write(tmp_path, python=other, about=topic(), options=option()))
    assert [section.name for section in guide.sections] == list(SECTIONS)
    assert guide.sections[0].title == "On about"
    assert [t.id for t in guide.topics] == ["leave", "other"]
    assert guide.topics[0] == Topic(
        id="leave",
        section="about",
        title="Leave a chat",
        wishes=("leave the chat",),
        questions=("Which key ends it?",),
        held_out=("way out",),
        answer="Press Ctrl-D, or type `/quit`.",
    )
    assert guide.options == (
        Option(
            section="options",
            commands=("chat", "run"),
            flags=("-n", "--max-tokens"),
            value="N",
            meaning="at most N tokens in an answer",
            default="",
            wishes=("get shorter answers",),
        ),
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"answer": None}, "answer is missing; add it"),
        ({"anser": "x"}, "unknown key 'anser'; remove it or correct it"),
        ({"title": 3}, "title is 3; expected a text without spaces at its ends"),
        ({"title": ""}, "title is ''; expected a text without spaces at its ends"),
        ({"wishes": "leave"}, "wishes is 'leave'; expected a list of texts"),
        ({"questions": ["why "]}, "questions holds 'why '; expected texts without spaces at"),
        ({"wishes": [], "questions": []}, "neither wishes nor questions; say how people ask"),
        ({"held_out": []}, "held_out is empty; give a phrasing to test the model by"),
        ({"answer": "Type caf\u00e9."}, "the answer holds '\u00e9'; write one paragraph of"),
        ({"answer": "One.\nTwo."}, "the answer holds '\\n'; write one paragraph of printable"),
        ({"answer": "a " * 45 + "b"}, "the answer has 46 words, at most 45 are allowed; shorten"),
        ({"answer": "Type `/quit."}, "a backtick in the answer has no partner"),
    ],
)
def test_refuses_a_topic(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    message = refusal(write(tmp_path, about=topic(**changes)))
    assert message.startswith(f'about.toml, topic "leave": {expected}')


def test_an_answer_may_have_45_words(tmp_path: Path) -> None:
    write(tmp_path, about=topic(answer=" ".join(["a"] * 45)))
    assert len(read_guide(tmp_path).topics) == 1


def test_a_topic_without_an_id_is_told_by_its_number(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, about=topic() + topic(id=None)))
    assert message == "about.toml, topic 2: id is missing; add it"


def test_refuses_an_id_of_other_characters(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, about=topic(id="Leave it")))
    assert message.endswith("an id is made of a-z, 0-9 and single hyphens")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"commands": []}, "commands is empty; name those that have the option"),
        ({"commands": ["chat", "talk"]}, "there is no command 'talk'; known are edgeqwen, chat,"),
        ({"flags": ["n"]}, "flags must be names that begin with a hyphen"),
        ({"meaning": "a limit."}, "meaning is a phrase and ends without a full stop"),
        ({"default": "1."}, "default is a phrase and ends without a full stop"),
        ({"value": None}, "value is missing; add it"),
        ({"wish": []}, "unknown key 'wish'; remove it or correct it"),
    ],
)
def test_refuses_an_option(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    message = refusal(write(tmp_path, options=option(**changes)))
    flags = ", ".join(changes.get("flags", OPTION["flags"]))
    assert message.startswith(f'options.toml, option "{flags}": {expected}')


@pytest.mark.parametrize("key", ["id", "title"])
def test_refuses_two_topics_of_one_name(key: str, tmp_path: Path) -> None:
    fields = {"id": "b", "title": "B", "wishes": [], "questions": ["b"], "held_out": ["bb"]}
    fields[key] = TOPIC[key]
    message = refusal(write(tmp_path, about=topic(), python=topic(**fields)))
    assert message == (
        f'python.toml, topic "{fields["id"]}": about.toml, topic "leave" has this {key} too; '
        "rename one of them"
    )


@pytest.mark.parametrize(
    ("first", "kind", "phrasing"),
    [
        ("Which key ends it?", "questions", "which key ends it"),
        ("leave the chat", "wishes", "Leave the Chat!"),
        ("leave the chat", "questions", "How do I leave the chat?"),
        ("leave the chat", "questions", "I want to leave the chat"),
        ("leave the chat", "questions", "what is the command to leave the chat"),
        ("way out", "questions", "Way out?"),
        ("Which key ends it?", "held_out", "Which key ends it"),
    ],
)
def test_refuses_a_phrasing_of_two_topics(
    first: str, kind: str, phrasing: str, tmp_path: Path
) -> None:
    fields: dict[str, Any] = {"wishes": ["b"], "questions": [], "held_out": ["c"]}
    other = topic(id="b", title="B", **{**fields, kind: [phrasing]})
    message = refusal(write(tmp_path, about=topic(), python=other))
    assert message.startswith(f'python.toml, topic "b", {kind}: {phrasing!r} is {first!r} again')
    assert 'about.toml, topic "leave"' in message
    assert message.endswith("reword one of them")


@pytest.mark.parametrize("phrasing", ["Which key ends it?", "which key ends it", "leave the chat"])
def test_refuses_to_hold_out_what_is_learned(phrasing: str, tmp_path: Path) -> None:
    message = refusal(write(tmp_path, about=topic(held_out=[phrasing])))
    assert message.startswith(f'about.toml, topic "leave", held_out: {phrasing!r} is ')


def test_refuses_an_options_wish_that_a_topic_has(tmp_path: Path) -> None:
    write(tmp_path, about=topic(), options=option(wishes=["leave the chat"]))
    assert refusal(tmp_path).startswith('options.toml, option "-n, --max-tokens", wishes: ')


def test_one_topic_may_be_asked_for_with_and_without_punctuation(tmp_path: Path) -> None:
    write(tmp_path, about=topic(questions=["help", "--help", "How do I leave the chat?"]))
    assert len(read_guide(tmp_path).topics[0].questions) == 3


def test_refuses_the_very_same_phrasing_in_one_topic(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, about=topic(questions=["help", "help"])))
    assert message.startswith("about.toml, topic \"leave\", questions: 'help' is 'help' again")


def test_refuses_an_option_that_is_told_twice(tmp_path: Path) -> None:
    other = option(commands=["run"], flags=["-n", "--new"], wishes=[])
    assert refusal(write(tmp_path, options=option() + other)) == (
        'options.toml, option "-n, --new": -n of run is told in options.toml, option '
        '"-n, --max-tokens" too; take it out of one of them'
    )


def test_one_flag_may_mean_different_things_in_different_commands(tmp_path: Path) -> None:
    other = option(commands=["bench"], flags=["-n", "--new-tokens"], wishes=[])
    assert len(read_guide(write(tmp_path, options=option() + other)).options) == 2


def test_refuses_files_that_are_missing_or_unknown(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "extra.toml").write_text("")
    assert refusal(tmp_path) == (
        f"{tmp_path / 'extra.toml'}: a section that SECTIONS in tools/guide_model/guide.py "
        "doesn't list; add it there, where its place in the manual is"
    )
    (tmp_path / "extra.toml").unlink()
    (tmp_path / "python.toml").unlink()
    assert refusal(tmp_path) == (
        f"{tmp_path / 'python.toml'}: no such file; SECTIONS lists it, write it"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("topic = 3", "about.toml: topic is no list of tables; write [[topic]]"),
        ("[[topics]]", "about.toml: unknown key 'topics'; remove it or correct it"),
        ("title = 1", "about.toml: no TOML file in UTF-8: "),
        ("= 1", "about.toml: no TOML file in UTF-8: "),
    ],
)
def test_refuses_a_file(text: str, expected: str, tmp_path: Path) -> None:
    assert refusal(write(tmp_path, about=text)).startswith(expected)


def test_a_phrasing_is_its_words() -> None:
    assert phrasing_key("How do I get a Q4_0 file?") == "get a q4_0 file"
    assert phrasing_key("  I want  to leave.") == "leave"
    assert phrasing_key("How do I?") == "how do i"
