"""Fill in the middle: prompts that make a Coder model write what lies between two texts.

Source: the formats that Qwen2.5-Coder was trained on, for one file and for a repository.
"""

from collections.abc import Iterable

from edgeqwen.errors import UnsupportedError
from edgeqwen.text.tokenizer import Tokenizer


def fim_prompt(tokenizer: Tokenizer, prefix: str, suffix: str) -> list[int]:
    """Returns the token ids after which the model writes what belongs between the two texts.

    Special tokens in the texts stay text. Raises UnsupportedError where the vocabulary has no
    fill-in-the-middle tokens.
    """
    special = _special(tokenizer, "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
    return [
        special["<|fim_prefix|>"],
        *tokenizer.encode(prefix),
        special["<|fim_suffix|>"],
        *tokenizer.encode(suffix),
        special["<|fim_middle|>"],
    ]


def repository_prompt(
    tokenizer: Tokenizer,
    repository: str,
    files: Iterable[tuple[str, str]],
    path: str,
    prefix: str,
    suffix: str | None = None,
) -> list[int]:
    """Returns the token ids for completing a file in the light of others.

    ``repository``: its name. ``files``: path and content of each of the others. ``path``: the file
    being completed, with its text before the gap and, if the gap isn't at the end, after it.
    Raises as ``fim_prompt`` does.
    """
    special = _special(tokenizer, "<|repo_name|>", "<|file_sep|>")
    ids = [special["<|repo_name|>"], *tokenizer.encode(f"{repository}\n")]
    for other, content in files:
        # Every file begins on a line of its own.
        end = "" if content.endswith("\n") else "\n"
        ids += [special["<|file_sep|>"], *tokenizer.encode(f"{other}\n{content}{end}")]
    ids.append(special["<|file_sep|>"])
    if suffix is None:
        return ids + tokenizer.encode(f"{path}\n{prefix}")
    return ids + tokenizer.encode(f"{path}\n") + fim_prompt(tokenizer, prefix, suffix)


def _special(tokenizer: Tokenizer, *texts: str) -> dict[str, int]:
    missing = [text for text in texts if text not in tokenizer.special]
    if missing:
        raise UnsupportedError(
            f"the vocabulary has no {', '.join(missing)}: this model wasn't trained to fill in "
            "the middle; use a Qwen2.5-Coder model"
        )
    return {text: tokenizer.special[text] for text in texts}
