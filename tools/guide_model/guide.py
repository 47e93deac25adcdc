"""The guide, docs/guide/*.toml: what is to be known about edgeqwen, read and checked."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "guide"

# The files, in the order of the manual.
SECTIONS = (
    "about",
    "commands",
    "quantizing",
    "conversations",
    "python",
    "options",
    "troubleshooting",
)

# What a wish completes, a topic's or an option's.
WISH_FRAMES = ("How do I {}?", "I want to {}.", "What is the command to {}?")

MAX_ANSWER_WORDS = 45


class GuideError(ValueError):
    """The guide contradicts itself or its schema."""


@dataclass(frozen=True, slots=True)
class Topic:
    """Something that people ask, and its answer: one paragraph of ASCII, code in backticks."""

    id: str
    section: str
    title: str
    # Verb phrases, for WISH_FRAMES.
    wishes: tuple[str, ...]
    questions: tuple[str, ...]
    # Whole phrasings that are kept from the model while it learns.
    held_out: tuple[str, ...]
    answer: str


@dataclass(frozen=True, slots=True)
class Option:
    """An option of the command line, with one meaning for all its commands.

    The command "edgeqwen" stands for the program itself, in front of any command. The value is ""
    for a switch, the default "" where there is none to tell.
    """

    section: str
    commands: tuple[str, ...]
    flags: tuple[str, ...]
    value: str
    meaning: str
    default: str
    wishes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """What one file says; the name is the file's."""

    name: str
    title: str
    topics: tuple[Topic, ...]
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class Guide:
    """All sections, in the order of the manual."""

    sections: tuple[Section, ...]

    @property
    def topics(self) -> tuple[Topic, ...]:
        return tuple(topic for section in self.sections for topic in section.topics)

    @property
    def options(self) -> tuple[Option, ...]:
        return tuple(option for section in self.sections for option in section.options)


def read_guide(folder: Path = FOLDER) -> Guide:
    """Returns the guide of a folder, or raises GuideError, which names the file and the topic."""
    found = {path.stem for path in folder.glob("*.toml")}
    if unknown := sorted(found - set(SECTIONS)):
        raise GuideError(
            f"{folder / unknown[0]}.toml: a section that SECTIONS in tools/guide_model/guide.py "
            "doesn't list; add it there, where its place in the manual is"
        )
    guide = Guide(tuple(_read_section(folder, name) for name in SECTIONS if name in found))
    _check_ids(guide)
    _check_phrasings(guide)
    _check_flags(guide)
    return guide


def phrasing_key(text: str) -> str:
    """Returns what makes a phrasing itself: its words, without the frame of a wish."""
    key = _words(text)
    for frame in WISH_FRAMES:
        beginning = _words(frame) + " "
        if key.startswith(beginning):
            return key.removeprefix(beginning)
    return key


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _read_section(folder: Path, name: str) -> Section:
    where = f"{name}.toml"
    try:
        table = tomllib.loads((folder / where).read_text("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise GuideError(f"{where}: no TOML file in UTF-8: {error}") from error
    fields = _Table(table, where)
    title = fields.text("title")
    topics = tuple(_read_topic(entry, name) for entry in fields.tables("topic"))
    options = tuple(_read_option(entry, name) for entry in fields.tables("option"))
    fields.end()
    return Section(name, title, topics, options)


def _read_topic(fields: "_Table", section: str) -> Topic:
    topic_id = fields.text("id")
    fields.where = where = _place(section, topic_id)
    topic = Topic(
        id=topic_id,
        section=section,
        title=fields.text("title"),
        wishes=fields.texts("wishes"),
        questions=fields.texts("questions"),
        held_out=fields.texts("held_out"),
        answer=fields.text("answer"),
    )
    fields.end()
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", topic.id):
        raise GuideError(f"{where}: an id is made of a-z, 0-9 and single hyphens")
    if not topic.wishes and not topic.questions:
        raise GuideError(f"{where}: neither wishes nor questions; say how people ask for it")
    if not topic.held_out:
        raise GuideError(f"{where}: held_out is empty; give a phrasing to test the model by")
    _check_answer(topic.answer, where)
    return topic


def _check_answer(answer: str, where: str) -> None:
    if strange := sorted({char for char in answer if not " " <= char <= "~"}):
        raise GuideError(
            f"{where}: the answer holds {strange[0]!r}; write one paragraph of printable ASCII"
        )
    if (n_words := len(answer.split())) > MAX_ANSWER_WORDS:
        raise GuideError(
            f"{where}: the answer has {n_words} words, at most {MAX_ANSWER_WORDS} are allowed; "
            "shorten it or make two topics of it"
        )
    if answer.count("`") % 2:
        raise GuideError(f"{where}: a backtick in the answer has no partner")


def _read_option(fields: "_Table", section: str) -> Option:
    flags = fields.texts("flags")
    fields.where = _option_place(section, flags)
    option = Option(
        section=section,
        commands=fields.texts("commands"),
        flags=flags,
        value=fields.text("value", may_be_empty=True),
        meaning=fields.text("meaning"),
        default=fields.text("default", may_be_empty=True),
        wishes=fields.texts("wishes"),
    )
    fields.end()
    if not option.commands:
        raise GuideError(f"{fields.where}: commands is empty; name those that have the option")
    if not flags or not all(flag.startswith("-") for flag in flags):
        raise GuideError(f"{fields.where}: flags must be names that begin with a hyphen")
    for key in ("meaning", "default"):
        if getattr(option, key).endswith("."):
            raise GuideError(f"{fields.where}: {key} is a phrase and ends without a full stop")
    return option


def _check_ids(guide: Guide) -> None:
    places: dict[str, str] = {}
    for topic in guide.topics:
        where = _place(topic.section, topic.id)
        if topic.id in places:
            raise GuideError(f"{where}: {places[topic.id]} has this id too; rename one of them")
        places[topic.id] = where


def _check_phrasings(guide: Guide) -> None:
    """No phrasing may lead to two answers, and none that is held out may be learned."""
    places: dict[str, str] = {}
    for where, phrasing in _phrasings(guide):
        key = phrasing_key(phrasing) or phrasing
        if key in places:
            raise GuideError(
                f"{where}: {phrasing!r} is said already, but for case, punctuation and "
                f'"How do I", in {places[key]}; reword one of them'
            )
        places[key] = where


def _phrasings(guide: Guide) -> Iterator[tuple[str, str]]:
    for topic in guide.topics:
        place = _place(topic.section, topic.id)
        for key in ("wishes", "questions", "held_out"):
            for phrasing in getattr(topic, key):
                yield f"{place}, {key}", phrasing
    for option in guide.options:
        for wish in option.wishes:
            yield f"{_option_place(option.section, option.flags)}, wishes", wish


def _check_flags(guide: Guide) -> None:
    places: dict[tuple[str, str], str] = {}
    for option in guide.options:
        where = _option_place(option.section, option.flags)
        for command in option.commands:
            for flag in option.flags:
                if (command, flag) in places:
                    raise GuideError(
                        f"{where}: {flag} of {command} is told in {places[command, flag]} too; "
                        "take it out of one of them"
                    )
                places[command, flag] = where


def _place(section: str, topic_id: str) -> str:
    return f'{section}.toml, topic "{topic_id}"'


def _option_place(section: str, flags: tuple[str, ...]) -> str:
    return f'{section}.toml, option "{", ".join(flags)}"'


class _Table:
    """A TOML table whose keys are taken out one by one, until none may be left."""

    def __init__(self, table: dict[str, Any], where: str) -> None:
        self._table = dict(table)
        self.where = where

    def text(self, key: str, *, may_be_empty: bool = False) -> str:
        value = self._take(key)
        if not isinstance(value, str) or value != value.strip() or not (value or may_be_empty):
            raise GuideError(
                f"{self.where}: {key} is {value!r}; expected a text without spaces at its ends"
            )
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._take(key)
        if not isinstance(values, list):
            raise GuideError(f"{self.where}: {key} is {values!r}; expected a list of texts")
        for value in values:
            if not isinstance(value, str) or not value or value != value.strip():
                raise GuideError(
                    f"{self.where}: {key} holds {value!r}; expected texts without spaces at "
                    "their ends"
                )
        return tuple(values)

    def tables(self, key: str) -> Iterator["_Table"]:
        values = self._table.pop(key, [])
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise GuideError(f"{self.where}: {key} is no list of tables; write [[{key}]]")
        for number, value in enumerate(values, 1):
            yield _Table(value, f"{self.where}, {key} {number}")

    def end(self) -> None:
        if self._table:
            raise GuideError(
                f"{self.where}: unknown key {sorted(self._table)[0]!r}; remove it or correct it"
            )

    def _take(self, key: str) -> Any:
        if key not in self._table:
            raise GuideError(f"{self.where}: {key} is missing; add it")
        return self._table.pop(key)
