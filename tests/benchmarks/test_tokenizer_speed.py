"""The comparison of tokenizers: both make the same ids, each in its turn."""

from pathlib import Path

import pytest

from benchmarks import tokenizer_speed
from edgeqwen.gguf_file import GgufFile
from edgeqwen.guide import model_path


def test_figures_of_the_built_in_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, path = "One text, ein Text, 一个文本.\n" * 3, tmp_path / "text.txt"
    path.write_text(text, "utf-8")
    tokenizer_speed.main(["--model", str(model_path()), "-f", str(path), "--rounds", "1"])
    first, *others = capsys.readouterr().out.splitlines()
    with GgufFile.open(model_path()) as file:
        n = len(tokenizer_speed.library(file)(text))
    assert first == f"{len(text)} characters, {n} tokens: the same ids"
    assert [line.split()[0] for line in others] == ["edgeqwen", "tokenizers"]
    for line in others:
        assert "ms; encode" in line or "MB; encode" in line
