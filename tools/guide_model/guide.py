"""The guide, docs/guide/*.toml: what is to be known about edgeqwen, read and checked."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.guide_model.tables import GuideError, Table

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

# Whose options are told, in the order of the manual; "edgeqwen" is the program itself, whose
# options stand before the command's name.
COMMANDS = (
    "edgeqwen",
    "chat",
    "run",
    "quantize",
    "imatrix",
    "pack",
    "inspect",
    "bench",
    "perplexity",
    "compare",
    "warmup",
    "sessions list",
    "sessions show",
    "sessions verify",
    "sessions copy",
    "sessions delete",
    "cache list",
    "cache clear",
)

# What a wish completes, a topic's or an option's.
WISH_FRAMES = ("How do I {}?", "I want to {}.", "What is the command to {}?")

MAX_ANSWER_WORDS = 45


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

    The value is "" for a switch, the default "" where there is none to tell.
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
    if missing := [name for name in SECTIONS if name not in found]:
        raise GuideError(f"{folder / missing[0]}.toml: no such file; SECTIONS lists it, write it")
    guide = Guide(tuple(_read_section(folder, name) for name in SECTIONS))
    _check_names(guide)
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
    fields = Table(table, where)
    title = fields.text("title")
    topics = tuple(_read_topic(entry, name) for entry in fields.tables("topic"))
    options = tuple(_read_option(entry, name) for entry in fields.tables("option"))
    fields.end()
    return Section(name, title, topics, options)


def _read_topic(fields: Table, section: str) -> Topic:
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


def _read_option(fields: Table, section: str) -> Option:
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
    if unknown := [command for command in option.commands if command not in COMMANDS]:
        raise GuideError(
            f"{fields.where}: there is no command {unknown[0]!r}; known are {', '.join(COMMANDS)}"
        )
    if not flags or not all(flag.startswith("-") for flag in flags):
        raise GuideError(f"{fields.where}: flags must be names that begin with a hyphen")
    for key in ("meaning", "default"):
        if getattr(option, key).endswith("."):
            raise GuideError(f"{fields.where}: {key} is a phrase and ends without a full stop")
    return option


def _check_names(guide: Guide) -> None:
    """Neither two topics of one id, nor two of one title, which would be one link's target."""
    for key in ("id", "title"):
        places: dict[str, str] = {}
        for topic in guide.topics:
            where = _place(topic.section, topic.id)
            name = _words(getattr(topic, key))
            if name in places:
                raise GuideError(f"{where}: {places[name]} has this {key} too; rename one of them")
            places[name] = where


def _check_phrasings(guide: Guide) -> None:
    """No phrasing may lead to two answers, and none that is held out may be learned."""
    # By key: whose phrasing it is, as what (wishes, questions, held_out), and in which words.
    known: dict[str, tuple[str, str, str]] = {}
    for place, kind, phrasing in _phrasings(guide):
        key = phrasing_key(phrasing) or phrasing
        if key not in known:
            known[key] = place, kind, phrasing
            continue
        other_place, other_kind, other = known[key]
        # "help" and "--help" may both lead to one answer.
        harmless = place == other_place and "held_out" not in (kind, other_kind)
        if not harmless or phrasing == other:
            raise GuideError(
                f"{place}, {kind}: {phrasing!r} is {other!r} again, but for case, punctuation and "
                f'"How do I", which is in {other_place}, {other_kind}; reword one of them'
            )


def _phrasings(guide: Guide) -> Iterator[tuple[str, str, str]]:
    for topic in guide.topics:
        for kind in ("wishes", "questions", "held_out"):
            for phrasing in getattr(topic, kind):
                yield _place(topic.section, topic.id), kind, phrasing
    for option in guide.options:
        for wish in option.wishes:
            yield _option_place(option.section, option.flags), "wishes", wish


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
