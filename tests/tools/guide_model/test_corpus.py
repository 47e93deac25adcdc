"""The corpus: right answers, and a held-out side that training never sees."""

import json
import re
from collections.abc import Iterator
from itertools import islice
from random import Random

import pytest

from edgeqwen import guide as guide_files
from tools.guide_model.corpus import TASKS, arithmetic, mixture, small_talk, units
from tools.guide_model.corpus.about_edgeqwen import (
    answer,
    guide,
    trained,
    trained_uses,
    unseen,
    unseen_uses,
    unseen_wordings,
)
from tools.guide_model.corpus.exercise import Example, Fill, Split, split_of
from tools.guide_model.corpus.rewording import may_become, reworded
from tools.guide_model.corpus.typing_habits import as_typed, plain, typed_forms
from tools.guide_model.held_out import held_out_text
from tools.guide_model.learned import answers, read_learned

_N = 300
_TYPING = str.maketrans("", "", "?.!")


def _examples(name: str, split: Split = "train") -> Iterator[Example]:
    random = Random(name)
    for _ in range(_N):
        example = mixture.task(name).make(random, split)
        assert isinstance(example, Example)
        yield example


def _question(example: Example) -> str:
    return example.messages[0]["content"]


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        (37, 48, "7+8=15, 3+4+1=8: 85"),
        (596, 487, "6+7=13, 9+8+1=18, 5+4+1=10: 1083"),
        (85, 966, "5+6=11, 8+6+1=15, 9+1=10: 1051"),
        (5, 8, "13"),
        (70, 3, "0+3=3, 7=7: 73"),
        (100, 0, "0+0=0, 0=0, 1=1: 100"),
    ],
)
def test_worked_sums(a: int, b: int, text: str) -> None:
    assert arithmetic.worked_sum(a, b) == text


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        (85, 48, "15-8=7, 8-4-1=3: 37"),
        (763, 94, "13-4=9, 16-9-1=6, 7-1=6: 669"),
        (763, 760, "3-0=3, 6-6=0, 7-7=0: 3"),
        (9, 4, "5"),
        (200, 1, "10-1=9, 10-1=9, 2-1=1: 199"),
    ],
)
def test_worked_differences(a: int, b: int, text: str) -> None:
    assert arithmetic.worked_difference(a, b) == text


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_every_step_of_a_worked_answer_is_true(split: Split) -> None:
    for name in ("sums", "differences"):
        for example in _examples(name, split):
            *columns, _ = example.answer.replace(":", ",").split(", ")
            for column in columns:
                if "=" in column:
                    left, right = column.split("=")
                    # Only digits and signs stand there.
                    assert eval(left) == int(right), example


def test_lists_are_repeated_reversed_and_sorted() -> None:
    for example in _examples("repeat"):
        assert _question(example).endswith(example.answer)
    for example in _examples("reverse"):
        separator = ", " if ", " in example.answer else " "
        backwards = separator.join(reversed(example.answer.split(separator)))
        assert backwards in _question(example)
    for example in _examples("sort"):
        items = example.answer.replace(",", "").split()
        assert items == sorted(items, key=int if items[0].isdigit() else str)


def test_lists_are_counted_along() -> None:
    for example in _examples("count"):
        along, _, total = example.answer.partition(": ")
        counted = [step.split(" ") for step in along.split(", ")]
        items = [item for item, _ in counted]
        assert " ".join(items) in _question(example).replace(",", "")
        if len(set(items)) == len(items) and total == str(len(items)):
            assert [int(n) for _, n in counted] == list(range(1, len(items) + 1))
        else:
            # The item that was asked for stands in the question apart from the list.
            question = _question(example).replace(" ".join(items), "")
            (asked,) = {word for word in question.replace("?", "").split() if word in items}
            assert [int(n) for _, n in counted] == [
                items[: i + 1].count(asked) for i in range(len(items))
            ]
            assert total == str(items.count(asked))


def test_half_of_what_is_counted_is_one_item_among_others() -> None:
    # Counting all of a list is learned from much less.
    questions = [_question(example) for example in _examples("count")]
    assert sum(not re.search("item|thing|count:|there|long", q.lower()) for q in questions) > _N / 2


def test_units_are_converted_both_ways() -> None:
    answers = {_question(example).lower(): example.answer for example in _examples("units")}
    assert len(answers) > _N / 2
    for question, converted in answers.items():
        (number,) = re.findall(r"\d+", question)
        value, name = converted.split(" ", 1)
        words = set(re.findall(r"[a-z]+", question))
        right = {
            int(number) * c.factor if name in c.small else int(number) // c.factor
            for c in units.CONVERSIONS
            for these, others in ((c.small, c.large), (c.large, c.small))
            if name in these and words & {other.lower() for other in others}
        }
        assert int(value) in right, (question, converted)


def test_json_answers_and_calls_are_json() -> None:
    for example in _examples("json"):
        json.loads(example.answer)
    for example in _examples("calls"):
        call = json.loads(example.answer.split("\n")[1])
        offered = {tool["function"]["name"]: tool["function"] for tool in example.tools}
        assert set(call["arguments"]) == set(offered[call["name"]]["parameters"]["required"])


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_no_held_out_example_is_met_in_training(task: mixture.Task) -> None:
    def questions(task: mixture.Task, split: Split) -> set[object]:
        random = Random(task.name)
        examples = [task.make(random, split) for _ in range(10 * _N)]
        return {
            (example.prefix, example.suffix)
            if isinstance(example, Fill)
            # Everything before the answer, and what is on offer, however it is typed. Signs make
            # the difference where words don't.
            else json.dumps([example.messages[:-1], example.tools]).lower().translate(_TYPING)
            for example in examples
        }

    # The questions of ``wordings`` are asked about the topics.
    trained = mixture.task("topics") if task.name == "wordings" else task
    assert not questions(trained, "train") & questions(task, "held_out")


def test_a_sum_is_held_out_in_both_orders() -> None:
    assert {split_of("sum", a, b) for a in range(10, 60) for b in range(10, 60)} == {
        "train",
        "held_out",
    }
    random = Random(1)
    for _ in range(_N):
        text = _question(arithmetic.sums(random, "train"))
        digits = "".join(c if c.isdigit() else " " for c in text).split()
        a, b = sorted(map(int, digits))
        assert split_of("sum", a, b) == "train"


def test_what_is_measured_about_the_guide_is_nowhere_in_training() -> None:
    kept = {text for topic in guide().topics for text in unseen_wordings(topic) + unseen(topic)}
    kept |= {text for option in guide().options for text in unseen_uses(option)}
    kept |= {text for talk in small_talk.talks() for text in small_talk.unseen(talk)}
    measured = {plain(text): text for text in kept}
    assert len(measured) > 900
    for document in islice(mixture.documents(Random(3)), 6000):
        if isinstance(document, Example):
            for message in document.messages:
                assert plain(message["content"]) not in measured, measured


def test_no_training_question_may_become_one_that_is_measured() -> None:
    for topic in guide().topics:
        assert topic.title in trained(topic)
        forms = {form for text in trained(topic) for form in typed_forms(text)}
        assert not forms & set(map(plain, unseen(topic) + unseen_wordings(topic)))
    for option in guide().options:
        forms = {form for text in trained_uses(option) for form in typed_forms(text)}
        assert not forms & set(map(plain, unseen_uses(option)))


@pytest.mark.parametrize(
    ("text", "other", "may"),
    [
        ("What does -f do?", "what does -f do", True),
        ("What does the option -f do?", "-f?", True),  # the keywords alone
        ("Make a file.", "create a file please", True),
        ("Create a file.", "Hello, produce file!", True),
        ("How can I begin?", "How do I begin?", False),
        ("begin a chat", "chat: begin", False),  # in another order
    ],
)
def test_what_rewording_may_make_of_a_text(text: str, other: str, may: bool) -> None:
    assert may_become(text, other) is may


def test_rewording_makes_only_what_it_is_said_to_make() -> None:
    random = Random(4)
    for topic in guide().topics:
        for text in trained(topic):
            assert may_become(text, reworded(random, text)), text


def test_the_held_out_text_of_the_package_is_the_corpus_s() -> None:
    if answers(guide()) != read_learned():
        pytest.skip("the guide has changed since the model was trained, and with it the text")
    assert guide_files.held_out_text() == held_out_text()


def test_answers_about_options_name_forms_commands_and_default() -> None:
    answers = [answer(option) for option in guide().options]
    assert (
        "`-d N` or `--depth N` of `edgeqwen bench`: measure with N tokens in the context already. "
        "Default: 0." in answers
    )
    assert all("`edgeqwen edgeqwen`" not in text for text in answers)
    assert len(set(answers)) == len(answers)


def test_typing_habits_keep_code_as_it_is() -> None:
    for seed in range(_N):
        assert "--top-k" in as_typed(Random(seed), "What does --top-k do?")


def test_all_tasks_appear_in_documents_and_the_same_seed_gives_the_same() -> None:
    first = list(islice(mixture.documents(Random(7)), 500))
    assert first == list(islice(mixture.documents(Random(7)), 500))
    assert any(isinstance(document, Fill) for document in first)
    assert any(isinstance(document, Example) and document.tools for document in first)
    lengths = [len(document.messages) for document in first if isinstance(document, Example)]
    assert min(lengths) == 2
    assert max(lengths) > 12
