"""``edgeqwen chat --session``, ``edgeqwen sessions``, ``edgeqwen cache``, with the real model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeqwen.cache.session_format import KV_OFFSET, UNIT_BYTES
from edgeqwen.cache.session_state import read_commits
from edgeqwen.cache.verify import summarize
from edgeqwen.folders import user_cache
from tests.cli.running import ROOT

pytestmark = pytest.mark.processes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


def edgeqwen(folder: Path, *arguments: str, input: str = "") -> subprocess.CompletedProcess[str]:
    # Prompts are kept elsewhere than those of other tests; compiled kernels are where they were.
    cache = folder.parent / "cache"
    cache.mkdir(exist_ok=True)
    if not (cache / "kernels").exists():
        (cache / "kernels").symlink_to(user_cache() / "kernels", target_is_directory=True)
    changes = {"EDGEQWEN_SESSIONS_DIR": folder, "EDGEQWEN_CACHE_DIR": cache, "COLUMNS": "200"}
    environment = os.environ | {name: str(value) for name, value in changes.items()}
    return subprocess.run(
        [sys.executable, "-m", "edgeqwen", *arguments],
        input=input,
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        timeout=120,
    )


def chat(folder: Path, input: str, *options: str) -> list[str]:
    done = edgeqwen(folder, "chat", "--temperature", "0", *options, input=input)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_conversation_goes_on_in_another_process(folder: Path) -> None:
    first = chat(folder, "What is edgeqwen?\n", "--session", "notes")
    assert first[0] == "edgeqwen-guide: notes begins; /help lists the commands."
    second = chat(folder, "Thanks\n/stats\n", "--session", "notes")
    assert second[0] == "edgeqwen-guide: notes goes on after 2 messages; /help lists the commands."
    assert " reused, " in second[2]
    assert int(second[2].split(" reused")[0].split()[-1]) > 30
    third = chat(folder, "/undo\n/edit What is edgeqwen?\n", "--session", "notes")
    assert third[1:] == ["The last message and its answer are forgotten.", *first[1:]]

    listed = edgeqwen(folder, "sessions", "list").stdout.splitlines()
    assert len(listed) == 1
    assert listed[0].startswith("notes  ")
    assert listed[0].endswith("  edgeqwen-guide")
    [fields] = json.loads(edgeqwen(folder, "sessions", "list", "--json").stdout)
    assert fields["tokens"] == summarize(folder / "notes.session").n_tokens > 30
    assert (fields["model"], fields["cache_type"]) == ("edgeqwen-guide", "f16")

    shown = json.loads(edgeqwen(folder, "sessions", "show", "notes", "--json").stdout)
    assert [message["role"] for message in shown] == ["user", "assistant"]
    assert shown[1]["content"] == "\n".join(first[1:])
    text = edgeqwen(folder, "sessions", "show", "notes").stdout
    assert text.startswith("user: What is edgeqwen?\n\nassistant: edgeqwen ")

    assert edgeqwen(folder, "sessions", "copy", "notes", "other").returncode == 0
    sound = edgeqwen(folder, "sessions", "verify").stdout.splitlines()
    assert [line.partition(": sound, ")[1] != "" for line in sound] == [True, True]
    assert edgeqwen(folder, "sessions", "delete", "nothing", "notes").returncode == 1
    assert not (folder / "notes.session").exists()
    assert [path.name for path in folder.iterdir() if path.name[0] != "."] == ["other.session"]


def test_a_fork_leaves_the_session_as_it_is(folder: Path) -> None:
    chat(folder, "What is edgeqwen?\n", "--session", "notes")
    before = (folder / "notes.session").read_bytes()
    forked = chat(folder, "Thanks\n/stats\n", "--session", "notes", "--fork")
    assert " reused, " in forked[2]
    assert (folder / "notes.session").read_bytes() == before


def test_a_file_by_its_path(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "here.session"
    chat(folder, "Thanks\n", "--session", str(path))
    assert path.exists()
    assert not folder.exists()
    assert edgeqwen(folder, "sessions", "verify", str(path)).stdout.startswith(f"{path}: sound, ")


def test_damage_is_found_and_what_is_left_is_read_again(folder: Path) -> None:
    chat(folder, "What is edgeqwen?\n", "--session", "notes")
    path = folder / "notes.session"
    with path.open("r+b") as file:
        segment = read_commits(file.fileno())[0].segments[0] * UNIT_BYTES
        for place in (KV_OFFSET + 100, 8):  # keys; then an id, too
            file.seek(segment + place)
            byte = file.read(1)[0]
            file.seek(segment + place)
            file.write(bytes([byte ^ 1]))
            file.flush()
            done = edgeqwen(folder, "sessions", "verify", "notes")
            assert done.returncode == 1
            assert "the checksum of its " in done.stderr or "of tokens 0 to " in done.stderr
    refused = edgeqwen(folder, "chat", "--session", "notes", input="Thanks\n")
    assert refused.returncode == 1
    assert "is damaged: the checksum of its " in refused.stderr
    assert "--rebuild" in refused.stderr
    again = chat(folder, "/regen\n", "--session", "notes", "--rebuild")
    assert "notes goes on after 2 messages" in again[0]
    assert edgeqwen(folder, "sessions", "verify", "notes").returncode == 0


@pytest.mark.parametrize("command", ["verify", "show", "delete"])
def test_a_session_that_is_not_there(folder: Path, command: str) -> None:
    done = edgeqwen(folder, "sessions", command, "nothing")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("nothing.session: no such session")


def test_a_session_keeps_its_cache_type(folder: Path) -> None:
    chat(folder, "37+48\n", "--session", "notes", "--kv", "q8_0")
    assert "goes on after 2 messages" in chat(folder, "12+30\n", "--session", "notes")[0]
    refused = edgeqwen(folder, "chat", "--session", "notes", "--kv", "f16", input="Thanks\n")
    assert refused.returncode == 1
    assert "load the model with that of the session (cache_type, --kv q8_0)" in refused.stderr
    chat(folder, "12+30\n", "--session", "notes", "--rebuild", "--kv", "f16")
    assert "goes on after 6 messages" in chat(folder, "12+30\n", "--session", "notes")[0]


def test_a_system_prompt_is_kept_before_anything_is_said(folder: Path) -> None:
    chat(folder, "37+48\n/system Be brief.\n", "--session", "notes")
    shown = json.loads(edgeqwen(folder, "sessions", "show", "notes", "--json").stdout)
    assert shown == [{"role": "system", "content": "Be brief."}]


def test_what_is_no_session_is_not_to_be_rebuilt(folder: Path) -> None:
    path = folder.parent / "notes.txt"
    path.write_text("no session")
    done = edgeqwen(folder, "sessions", "verify", str(path))
    assert done.returncode == 1
    assert done.stderr.strip().endswith("notes.txt: is no session file; name another file")
    assert done.stdout == ""


def test_no_folder_is_made_for_a_file_that_was_named(folder: Path) -> None:
    path = folder / "typo" / "a.session"
    done = edgeqwen(folder, "chat", "--session", str(path), input="Hello\n")
    assert done.returncode == 1
    assert f"there is no folder {path.parent}; make it, or name another place" in done.stderr
    assert not path.parent.exists()


def test_options_without_a_session_are_refused(folder: Path) -> None:
    done = edgeqwen(folder, "chat", "--fork")
    assert done.returncode == 2
    assert "add --session NAME" in done.stderr


def test_nothing_was_kept_yet(folder: Path) -> None:
    assert edgeqwen(folder, "sessions", "list").stdout.startswith("No conversation was kept yet; ")
    assert edgeqwen(folder, "sessions", "list", "--json").stdout == "[]\n"


def test_the_cache_of_prompts(folder: Path) -> None:
    prompt = " ".join(f"word {i}" for i in range(300))
    edgeqwen(folder, "run", "--no-prefix-cache", "-n", "2", prompt)
    assert edgeqwen(folder, "cache", "list", "--json").stdout == "[]\n"
    for expected in (False, True):
        done = edgeqwen(folder, "run", "--json", "-n", "2", prompt)
        assert (json.loads(done.stdout)["n_reused"] > 500) is expected
    [kept] = json.loads(edgeqwen(folder, "cache", "list", "--json").stdout)
    assert Path(kept["path"]).stat().st_size == kept["bytes"]
    assert edgeqwen(folder, "cache", "list").stdout.splitlines()[-1].startswith("1 prompt in ")
    assert edgeqwen(folder, "cache", "clear").stdout.startswith("1 prompt deleted, ")
    assert edgeqwen(folder, "cache", "list").stdout == "0 prompts in 0 B\n"
