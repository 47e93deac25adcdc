"""check_outputs(): nothing that is read is written over, by whatever name it is called."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeqwen.errors import OptionError
from edgeqwen.quant.imatrix import Imatrix
from edgeqwen.quant.output_check import check_outputs, conversion_inputs


def refused(written: list[Path], read: list[tuple[Path, str]]) -> str:
    with pytest.raises(OptionError) as error:
        check_outputs(written, read)
    return str(error.value)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("kept")
    return path


def test_what_is_read(tmp_path: Path, text: Path) -> None:
    expected = f"{text}: is the text; choose another output"
    assert refused([text], [(text, "the text")]) == expected
    # Neither the first that is written, nor the first that is read.
    other = tmp_path / "other"
    other.touch()
    read = [(tmp_path / "gone", "nothing"), (other, "another"), (text, "the text")]
    assert refused([tmp_path / "new", text], read) == expected
    check_outputs([tmp_path / "new"], read)


@pytest.mark.parametrize("output_is_link", [True, False])
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_are_what_they_lead_to(
    tmp_path: Path, text: Path, link: Callable[[Path, Path], None], output_is_link: bool
) -> None:
    path = tmp_path / "link"
    link(text, path)
    output, read = (path, text) if output_is_link else (text, path)
    assert (
        refused([output], [(read, "the text")]) == f"{output}: is the text; choose another output"
    )


def test_linked_folders(tmp_path: Path, text: Path) -> None:
    folder = tmp_path / "folder"
    folder.symlink_to(tmp_path)
    assert "is the text" in refused([folder / "text.txt"], [(text, "the text")])


def test_the_same_output_twice(tmp_path: Path) -> None:
    new, link = tmp_path / "new", tmp_path / "link"
    link.symlink_to(new)
    (tmp_path / "folder").mkdir()
    for second in (new, link, tmp_path / "folder" / ".." / "new"):
        message = f"{second}: would be written twice; choose two names"
        assert refused([new, second], []) == message


def test_places_that_can_not_be_written(tmp_path: Path) -> None:
    message = refused([tmp_path / "new", tmp_path], [])
    assert message == f"{tmp_path}: is a folder; give the name of a file in it"


def test_inputs_of_a_conversion(text: Path) -> None:
    files = [Path("a.gguf"), Path("b.gguf")]
    named = [(path, "a file of the source") for path in files]
    assert conversion_inputs(files) == named
    assert conversion_inputs(files, Imatrix({}), Path("-")) == named
    assert conversion_inputs(files, "i.gguf", text) == [
        *named,
        (Path("i.gguf"), "the importance matrix"),
        (text, "the text to calibrate with"),
    ]


def test_folders_without_permission(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, int]] = []

    def access(path: Path, mode: int) -> bool:
        asked.append((path, mode))
        return False

    monkeypatch.setattr(os, "access", access)
    for path in (text, tmp_path / "new"):
        assert refused([path], []) == (
            f"{path}: the folder {tmp_path} can't be written to; change its permissions, or choose "
            "another"
        )
    assert asked == [(tmp_path, os.W_OK | os.X_OK)] * 2
