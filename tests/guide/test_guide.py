"""The built-in model's files: found in every kind of installation, and missed with a clear word."""

import subprocess
import sys
import zipfile
from importlib import resources
from pathlib import Path

import pytest

import edgeqwen
from edgeqwen import guide
from edgeqwen.errors import FileFormatError
from edgeqwen.gguf_file import GgufFile
from edgeqwen.text.tokenizer import Tokenizer


def test_the_model_is_a_file_that_can_be_run() -> None:
    with GgufFile.open(guide.model_path()) as file:
        assert file.config().architecture == "qwen2"


def test_the_held_out_text_is_chatml_to_the_model() -> None:
    text = guide.held_out_text()
    tokenizer = Tokenizer.from_gguf(guide.model_path())
    special = {tokenizer.special[mark] for mark in ("<|im_start|>", "<|im_end|>")}
    assert special < set(tokenizer.encode(text, allow_special=True))
    assert "\r" not in text


def test_load_without_a_path() -> None:
    with edgeqwen.load(n_threads=1, max_context=64) as model:
        assert repr(model).startswith(f"<Model {guide.model_path()}: ")
        assert len(model.generate("How", max_tokens=3, temperature=0).tokens) <= 3


@pytest.mark.parametrize("read", [guide.model_path, guide.held_out_text])
def test_a_file_that_is_missing(
    read: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)
    monkeypatch.setattr(guide, "_model", None)
    with pytest.raises(FileFormatError) as raised:
        read()  # type: ignore[operator]
    name = "guide.gguf" if read is guide.model_path else "held_out.txt"
    assert str(raised.value) == (
        f"{tmp_path / name}: no such file, expected the one that comes with edgeqwen: this "
        "installation isn't whole; install edgeqwen again, or name a model of your own"
    )


def test_in_an_archive_the_model_is_unpacked_for_as_long_as_the_program_runs(
    tmp_path: Path,
) -> None:
    package = Path(edgeqwen.__file__).parent
    archive = tmp_path / "frozen.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("__init__.py", "errors.py", "guide/__init__.py", "guide/held_out.txt"):
            file.write(package / name, f"edgeqwen/{name}")
        file.writestr("edgeqwen/guide/guide.gguf", b"a model")
    code = (
        f"import sys; sys.path.insert(0, {str(archive)!r})\n"
        "from edgeqwen import guide\n"
        f"assert guide.__file__.startswith({str(archive)!r})\n"
        "path = guide.model_path()\n"
        "assert path == guide.model_path() and path.read_bytes() == b'a model'\n"
        "assert len(guide.held_out_text()) > 10\n"
        "print(path)"
    )
    # -I: neither the current folder nor the installed package comes first.
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not Path(done.stdout.strip()).exists()
