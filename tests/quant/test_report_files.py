"""write_report(): two files side by side, and no work where they couldn't be written."""

import json
from pathlib import Path

import pytest

from edgeqwen.errors import OptionError
from edgeqwen.quant import check_report, write_report
from edgeqwen.quant.report_page import page
from tests.hf_checkpoints import write_checkpoint
from tests.quant.report_cases import some_report, tensor


@pytest.mark.parametrize("name", ["a.b.html", "a.b.json", "a.b.HTML"])
def test_both_files_are_written(tmp_path: Path, name: str) -> None:
    report = some_report()
    found = write_report(report, tmp_path / name)
    assert found == (tmp_path / "a.b.json", tmp_path / "a.b.html")
    assert {*tmp_path.iterdir()} == {*found}
    assert found[0].read_text("utf-8") == report.to_json()
    assert found[1].read_text("utf-8") == page(report)
    assert json.loads(found[0].read_text("utf-8"))["type"] == "q4_0"


def test_reports_without_errors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError) as error:
        write_report(some_report(tensor("a", None)), tmp_path / "a.html")
    assert str(error.value) == (
        "the report has no errors of tensors; call quantize with measure_errors=True"
    )
    assert [*tmp_path.iterdir()] == []


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "source", n_layers=1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.txt", "a.txt: ends in '.txt', expected .html or .json: a report is written as both"),
        ("a", "a: ends in '', expected .html or .json"),
        ("none/a.html", "none/a.json: the folder .* doesn't exist; create it first"),
        ("folder.json", "folder.html: is a folder; give the name of a file in it"),
        ("out.json", "out.html: would be written twice; choose two names"),
        ("source/config.html", "source/config.json: is a file of the source; choose another out"),
        ("link.html", "link.json: is a file of the source; choose another output"),
        ("linked/config.json", "linked/config.json: is a file of the source"),
        ("imatrix.html", "imatrix.json: is the importance matrix; choose another output"),
    ],
)
def test_places_that_are_taken(tmp_path: Path, source: Path, name: str, message: str) -> None:
    for folder in ("folder.html", "linked"):
        (tmp_path / folder).mkdir()
    (tmp_path / "link.json").symlink_to(source / "config.json")
    (tmp_path / "linked" / "config.json").symlink_to(source / "config.json")
    (tmp_path / "imatrix.json").touch()
    with pytest.raises(OptionError, match=message):
        check_report(
            tmp_path / name, source, tmp_path / "out.html", imatrix=tmp_path / "imatrix.json"
        )


def test_links_of_the_source_are_its_files(tmp_path: Path, source: Path) -> None:
    # As in the cache of Hugging Face: a folder of links to files that lie elsewhere.
    blob = (source / "config.json").rename(tmp_path / "blob.json")
    (source / "config.json").symlink_to(blob)
    for name in (source / "config.json", blob):
        with pytest.raises(OptionError, match="is a file of the source"):
            check_report(name, source, tmp_path / "out.gguf")


def test_places_that_are_free(tmp_path: Path, source: Path) -> None:
    (tmp_path / "a.html").write_text("an older one")
    check_report(tmp_path / "a.html", source, tmp_path / "out.gguf")
    assert (tmp_path / "a.html").read_text() == "an older one"
