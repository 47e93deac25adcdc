"""The corpus: right answers, and a held-out side that training never sees."""

import json
from collections.abc import Iterator
from itertools import islice
from random import Random

import pytest

from tools.guide_model.corpus import TASKS, arithmetic, mixture, small_talk
from tools.guide_model.corpus.about_edgeqwen import answer, guide
from tools.guide_model.corpus.exercise import Example, Fill, Split, split_of
from tools.guide_model.corpus.typing_habits import as_typed

_N = 300


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


def test_lists_are_reversed_sorted_and_counted() -> None:
    for example in _examples("reverse"):
        separator = ", " if ", " in example.answer else " "
        backwards = separator.join(reversed(example.answer.split(separator)))
        assert backwards in _question(example)
    for example in _examples("sort"):
        items = example.answer.replace(",", "").split()
        assert items == sorted(items, key=int if items[0].isdigit() else str)
    assert {example.answer for example in _examples("count")} <= {str(n) for n in range(1, 10)}


def test_units_are_converted_both_ways() -> None:
    answers = {_question(example).lower(): example.answer for example in _examples("units")}
    assert len(answers) > _N / 2
    for question, converted in answers.items():
        if question.startswith("convert") and " km to meters" in question:
            n = int(question.split()[1])
            assert converted == f"{1000 * n} meters"


def test_json_answers_and_calls_are_json() -> None:
    for example in _examples("json"):
        json.loads(example.answer)
    for example in _examples("calls"):
        call = json.loads(example.answer.split("\n")[1])
        offered = {tool["function"]["name"]: tool["function"] for tool in example.tools}
        assert set(call["arguments"]) == set(offered[call["name"]]["parameters"]["required"])


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_no_held_out_example_is_met_in_training(task: mixture.Task) -> None:
    def questions(split: Split) -> set[object]:
        random = Random(task.name)
        examples = [task.make(random, split) for _ in range(3 * _N)]
        return {
            (example.prefix, example.suffix)
            if isinstance(example, Fill)
            # Everything before the answer, and what is on offer.
            else json.dumps([example.messages[:-1], example.tools])
            for example in examples
        }

    if task.name == "wordings":
        trained = {
            json.dumps([[{"role": "user", "content": text}], []])
            for topic in guide().topics
            for text in topic.questions
        }
    else:
        trained = questions("train")
    assert not trained & questions("held_out")


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


def test_wordings_of_the_guide_are_kept_from_training() -> None:
    kept = {text for topic in guide().topics for text in topic.held_out}
    kept |= {text for talk in small_talk.talks() for text in talk.held_out}
    for document in islice(mixture.documents(Random(3)), 3000):
        if isinstance(document, Example):
            assert not kept & {message["content"] for message in document.messages}


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
