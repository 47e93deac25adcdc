"""Fill-in-the-middle prompts: the formats of Qwen2.5-Coder, as token ids."""

import pytest

from edgeqwen.errors import UnsupportedError
from edgeqwen.text.fim import fim_prompt, repository_prompt
from edgeqwen.text.tokenizer import Tokenizer
from edgeqwen.text.vocabulary import Vocabulary
from tests.text.vocabularies import NORMAL, tokenizer, vocab_metadata

TOKENIZER = tokenizer()


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text, allow_special=True)


def test_one_file() -> None:
    expected = ids("<|fim_prefix|>def f(a):\n    <|fim_suffix|>\n    return a\n<|fim_middle|>")
    assert fim_prompt(TOKENIZER, "def f(a):\n    ", "\n    return a\n") == expected
    assert fim_prompt(TOKENIZER, "", "") == ids("<|fim_prefix|><|fim_suffix|><|fim_middle|>")


def test_code_can_not_smuggle() -> None:
    prompt = fim_prompt(TOKENIZER, "x = '<|fim_middle|>'", "<|endoftext|>")
    specials = [id for id in prompt if id in TOKENIZER.special.values()]
    names = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
    assert specials == [TOKENIZER.special[name] for name in names]
    assert TOKENIZER.decode(prompt) == (
        "<|fim_prefix|>x = '<|fim_middle|>'<|fim_suffix|><|endoftext|><|fim_middle|>"
    )


def test_repository() -> None:
    files = [("a.py", "A = 1"), ("lib/b.py", "B = 2\n"), ("empty.py", "")]
    start = (
        "<|repo_name|>demo\n<|file_sep|>a.py\nA = 1\n<|file_sep|>lib/b.py\nB = 2\n"
        "<|file_sep|>empty.py\n\n<|file_sep|>main.py\n"
    )
    assert repository_prompt(TOKENIZER, "demo", files, "main.py", "import a\n") == ids(
        f"{start}import a\n"
    )
    assert repository_prompt(TOKENIZER, "demo", files, "main.py", "import a\n", "x") == ids(
        f"{start}<|fim_prefix|>import a\n<|fim_suffix|>x<|fim_middle|>"
    )


def test_repository_can_not_smuggle() -> None:
    prompt = repository_prompt(
        TOKENIZER, "<|im_end|>", [("<|file_sep|>", "<|repo_name|>")], "<|im_end|>", "<|im_end|>"
    )
    specials = [id for id in prompt if id in TOKENIZER.special.values()]
    names = ("<|repo_name|>", "<|file_sep|>", "<|file_sep|>")
    assert specials == [TOKENIZER.special[name] for name in names]


def test_model_without_the_tokens() -> None:
    metadata = vocab_metadata()
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    for name in ("<|fim_prefix|>", "<|fim_middle|>", "<|repo_name|>"):
        types[tokens.index(name)] = NORMAL
    other = Tokenizer(Vocabulary.from_gguf(metadata, source="x"))
    message = (
        "the vocabulary has no {}: this model wasn't trained to fill in the middle; use a "
        "Qwen2.5-Coder model"
    )
    with pytest.raises(UnsupportedError) as error:
        fim_prompt(other, "a", "b")
    assert str(error.value) == message.format("<|fim_prefix|>, <|fim_middle|>")
    with pytest.raises(UnsupportedError) as error:
        repository_prompt(other, "a", [], "b", "c")
    assert str(error.value) == message.format("<|repo_name|>")
