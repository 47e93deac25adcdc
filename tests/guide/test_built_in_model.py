"""The model in the wheel: its answers, its sizes, and where its file comes from."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

import edgeqwen
from edgeqwen.guide import model_path
from edgeqwen.quant import quantize
from tools.guide_model.corpus.about_edgeqwen import guide
from tools.guide_model.corpus.arithmetic import worked_sum
from tools.guide_model.corpus.exercise import split_of
from tools.guide_model.learned import answers, read_learned

CHECKPOINT = Path(__file__).parents[2] / "tools" / "guide_model" / "edgeqwen-guide"
MAX_WHEEL_BYTES, MAX_CHECKPOINT_BYTES = 6_000_000, 16_000_000
PROMPTS = (
    "How do I quantize a model to 4 bits?",
    "37+48",
    "What does --top-k do?",
    "Sort: 45, 12, 78",
    "tell me a story about dragons",
)


@pytest.fixture(scope="module")
def model() -> Iterator[edgeqwen.Model]:
    with edgeqwen.load() as model:
        yield model


def answer(model: edgeqwen.Model, question: str, max_tokens: int = 120) -> str:
    return model.chat(temperature=0).send(question, max_tokens=max_tokens).text


def test_it_says_how_to_quantize_to_4_bits(model: edgeqwen.Model) -> None:
    expected = next(topic.answer for topic in guide().topics if topic.id == "quantize-4-bit")
    assert "edgeqwen quantize FOLDER -t q4_0 -o model.gguf" in expected
    assert answer(model, "How do I quantize a model to 4 bits?") == expected


def test_it_adds(model: edgeqwen.Model) -> None:
    assert answer(model, "37+48") == "7+8=15, 3+4+1=8: 85"
    assert answer(model, "What is 596 plus 487?").endswith(": 1083")


def test_it_adds_what_it_never_saw(model: edgeqwen.Model) -> None:
    random = Random(7)
    pairs = [(random.randint(10, 999), random.randint(10, 999)) for _ in range(400)]
    held_out = [pair for pair in pairs if split_of("sum", *sorted(pair)) == "held_out"][:20]
    assert len(held_out) == 20
    right = [answer(model, f"{a}+{b}") == worked_sum(a, b) for a, b in held_out]
    assert sum(right) >= 19


def test_it_knows_the_guide(model: edgeqwen.Model) -> None:
    """Word for word, as the guide was when it was trained."""
    learned = read_learned()
    right = [answer(model, question) == expected for question, expected in learned.items()]
    assert sum(right) >= 0.95 * len(learned)


@pytest.mark.xfail(strict=True, reason="K-quants and calibration came since: train it again")
def test_what_it_learned_is_still_much_as_the_guide_says() -> None:
    """With more than a tenth of it changed, it is time to train again.

    Topics that came later it doesn't know, which is no reason to think that it says what is wrong.
    """
    today, learned = answers(guide()), read_learned()
    changed = [question for question, said in learned.items() if today.get(question) != said]
    assert len(changed) <= 0.1 * len(learned), changed


def test_it_remembers_what_it_said_before_in_a_conversation(model: edgeqwen.Model) -> None:
    chat = model.chat(temperature=0)
    chat.send("hello", max_tokens=60).text  # noqa: B018  (the work is done on asking)
    assert chat.send("12+9", max_tokens=40).text.endswith(": 21")
    assert "--version" in chat.send("Which version is this?", max_tokens=80).text


def test_it_is_greedy_by_itself(model: edgeqwen.Model) -> None:
    assert model.sampling.temperature == 0
    assert model.sampling.repetition_penalty == 1


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_answers_are_the_same_from_run_to_run_and_on_any_threads(
    model: edgeqwen.Model, n_threads: int
) -> None:
    def tokens(model: edgeqwen.Model, prompt: str) -> list[int]:
        return list(model.chat(temperature=0).send(prompt, max_tokens=60).tokens)

    with edgeqwen.load(n_threads=n_threads) as other:
        for prompt in PROMPTS:
            expected = tokens(model, prompt)
            assert len(expected) > 3
            assert tokens(other, prompt) == tokens(other, prompt) == expected


def test_the_file_is_what_the_converter_makes_of_the_checkpoint(tmp_path: Path) -> None:
    quantize(CHECKPOINT, tmp_path / "again.gguf", "q8_0")
    assert (tmp_path / "again.gguf").read_bytes() == model_path().read_bytes()


def test_it_is_small() -> None:
    assert model_path().stat().st_size <= MAX_WHEEL_BYTES
    n_bytes = sum(path.stat().st_size for path in CHECKPOINT.iterdir())
    assert n_bytes <= MAX_CHECKPOINT_BYTES


def test_every_k_quant_would_fit_its_rows(model: edgeqwen.Model) -> None:
    config = model.config
    assert config.hidden_size % 256 == config.intermediate_size % 256 == 0
    assert config.tie_word_embeddings
    assert 4e6 < (CHECKPOINT / "model.safetensors").stat().st_size / 2 < 6e6
