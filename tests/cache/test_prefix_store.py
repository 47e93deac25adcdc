"""Prompts kept on the disk: found by their longest beginning, limited, safe among processes."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeqwen.cache import MemoryStore
from edgeqwen.cache.prefix_store import PrefixStore, clear_prefixes, stored_prefixes
from edgeqwen.cache.session_format import KV_OFFSET, Identity
from edgeqwen.cache.session_state import read_tokens
from edgeqwen.cache.verify import verify
from tests.cache.filled import IDENTITY, LAYOUT, extend, flip, holds, random_ids

PROMPT = random_ids(700)
OTHER_MODEL = dataclasses.replace(IDENTITY, weights=b"x" * 32)


def prefix_store(
    folder: Path,
    who: Identity | None = None,
    *,
    known: bool = True,
    limit: int = 1 << 30,
    computed_by: str = "avx 1.0",
) -> PrefixStore:
    folder.mkdir(exist_ok=True)
    return PrefixStore(folder, lambda: who or IDENTITY, lambda: known, limit, computed_by)


def filled_store(tokens: list[int]) -> MemoryStore:
    store = MemoryStore(LAYOUT)
    extend(store, tokens)
    return store


def kv_bytes(store: MemoryStore) -> list[bytes]:
    return [segment.view(0, LAYOUT.segment_bytes).tobytes() for segment in store.segments]


def keep(prefixes: PrefixStore, store: MemoryStore) -> None:
    prefixes.keep(store)
    prefixes.wait()


def test_a_prompt_is_found_as_far_as_it_goes(tmp_path: Path) -> None:
    store = filled_store(PROMPT)
    expected = kv_bytes(store)
    keep(prefix_store(tmp_path), store)
    another = prefix_store(tmp_path)
    for n in (700, 513, 512, 300):
        prompt = [*PROMPT[:n], 1, 2, 3]
        found = another.find(prompt, 0)
        assert found is not None
        assert holds(found, PROMPT[:n])
        assert kv_bytes(found) == expected[: -(-n // 256)]
        found.close()


def test_one_token_is_left_to_be_read(tmp_path: Path) -> None:
    keep(prefix_store(tmp_path), filled_store(PROMPT))
    found = prefix_store(tmp_path).find(PROMPT, 0)
    assert found is not None
    assert found.tokens == PROMPT[:-1]


@pytest.mark.parametrize(
    ("prompt", "n_known"),
    [
        ([*PROMPT[:255], 1, *PROMPT[256:]], 0),  # the first segment differs
        (PROMPT[:257] + random_ids(300, 1), 10),  # that saves little
        ([*PROMPT, 1], 600),
    ],
)
def test_what_saves_little_is_not_found(tmp_path: Path, prompt: list[int], n_known: int) -> None:
    keep(prefix_store(tmp_path), filled_store(PROMPT))
    assert prefix_store(tmp_path).find(prompt, n_known) is None


def test_the_longest_of_several_is_found(tmp_path: Path) -> None:
    prefixes = prefix_store(tmp_path)
    branches = [PROMPT[:400] + random_ids(400, seed) for seed in (1, 2, 3)]
    for branch in branches:
        keep(prefixes, filled_store(branch))
    assert len(stored_prefixes(tmp_path)) == 3
    for branch in branches:
        found = prefixes.find([*branch, 5], 0)
        assert found is not None
        assert found.tokens == branch


def test_writing_over_what_was_found_changes_nothing_kept(tmp_path: Path) -> None:
    keep(prefix_store(tmp_path), filled_store(PROMPT))
    [(path, _, _)] = stored_prefixes(tmp_path)
    before = path.read_bytes()
    found = prefix_store(tmp_path).find([*PROMPT, 1], 0)
    assert found is not None
    for segment in found.segments:
        segment.view(0, LAYOUT.segment_bytes)[:] = 7
    assert path.read_bytes() == before
    assert verify(path).problems == ()
    assert verify(path).n_covered == 700


def test_another_model_finds_nothing(tmp_path: Path) -> None:
    keep(prefix_store(tmp_path), filled_store(PROMPT))
    assert prefix_store(tmp_path, OTHER_MODEL).find([*PROMPT, 1], 0) is None
    # Also where it lies in that model's folder, by whatever accident.
    other = prefix_store(tmp_path, OTHER_MODEL)
    keep(other, filled_store(PROMPT))
    (mine, _, _), (theirs, _, _) = stored_prefixes(tmp_path)
    os.replace(mine, theirs)
    assert other.find([*PROMPT, 1], 0) is None


def test_a_model_that_was_never_read_is_not_read_for_it(tmp_path: Path) -> None:
    def never() -> Identity:
        raise AssertionError("the digest takes time")

    assert PrefixStore(tmp_path, never, lambda: False, 1 << 30, "").find(PROMPT, 0) is None


def test_what_other_instructions_have_computed_is_not_found(tmp_path: Path) -> None:
    """Their sums may differ in the last bits."""
    keep(prefix_store(tmp_path), filled_store(PROMPT))
    assert prefix_store(tmp_path, computed_by="generic 1.0").find([*PROMPT, 1], 0) is None
    assert prefix_store(tmp_path).find([*PROMPT, 1], 0) is not None


def test_a_longer_prompt_takes_the_place_of_its_beginning(tmp_path: Path) -> None:
    prefixes = prefix_store(tmp_path)
    keep(prefixes, filled_store(PROMPT[:600]))
    keep(prefixes, filled_store(PROMPT))
    [(path, _, _)] = stored_prefixes(tmp_path)
    assert verify(path).summary.n_tokens == 700


def test_what_was_used_least_recently_goes_first(tmp_path: Path) -> None:
    prompts = [random_ids(600, seed) for seed in range(4)]
    prefixes = prefix_store(tmp_path)
    for i, prompt in enumerate(prompts[:3]):
        keep(prefixes, filled_store(prompt))
        newest = max(stored_prefixes(tmp_path), key=lambda entry: entry[2])
        os.utime(newest[0], (100 + i, 100 + i))
    found = prefixes.find([*prompts[0], 1], 0)  # used: now the newest
    assert found is not None
    size = stored_prefixes(tmp_path)[0][1]
    keep(prefix_store(tmp_path, limit=3 * size + 100), filled_store(prompts[3]))
    there = [prefixes.find([*prompt, 1], 0) is not None for prompt in prompts]
    assert there == [True, False, True, True]


def test_what_is_larger_than_the_limit_is_not_kept(tmp_path: Path) -> None:
    prefixes = prefix_store(tmp_path)
    keep(prefixes, filled_store(random_ids(600, 1)))
    keep(prefix_store(tmp_path, limit=1000), filled_store(PROMPT))
    assert len(stored_prefixes(tmp_path)) == 1


@pytest.mark.parametrize("damage", ["cut", "ids", "identity", "empty"])
def test_a_damaged_entry_is_as_if_it_were_not_there(tmp_path: Path, damage: str) -> None:
    prefixes = prefix_store(tmp_path)
    keep(prefixes, filled_store(PROMPT))
    [(path, _, _)] = stored_prefixes(tmp_path)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[-(1 << 16) :]
    elif damage == "empty":
        data.clear()
    else:
        data[3 * (1 << 16) + 5 if damage == "ids" else 40] ^= 1
    path.write_bytes(data)
    assert prefixes.find([*PROMPT, 1], 0) is None


@pytest.mark.parametrize("place", [0, 2 * LAYOUT.segment_bytes // 3])
def test_damaged_keys_and_values_are_not_used(tmp_path: Path, place: int) -> None:
    """Nor kept any longer; a sound entry that is shorter is used in its place."""
    prefixes = prefix_store(tmp_path)
    shorter = PROMPT[:400] + random_ids(300, 1)
    for prompt in (shorter, PROMPT):
        keep(prefixes, filled_store(prompt))
    (path,) = [p for p, _, _ in stored_prefixes(tmp_path) if first_ids(p) == PROMPT]
    flip(path, (3 + 3 * 1) * (1 << 16) + KV_OFFSET + place)  # in the second segment
    before = prefixes.find([*PROMPT[:256], 1], -256)
    assert before is not None, "what is sound of it is used"
    found = prefixes.find([*PROMPT, 1], 0)
    assert found is not None
    assert holds(found, PROMPT[:400])
    assert not path.exists()


def test_the_limit_is_that_of_the_files(tmp_path: Path) -> None:
    keep(prefix_store(tmp_path), filled_store(PROMPT))
    [(path, size, _)] = stored_prefixes(tmp_path)
    path.unlink()
    keep(prefix_store(tmp_path, limit=size - 1), filled_store(PROMPT))
    assert not stored_prefixes(tmp_path)
    keep(prefix_store(tmp_path, limit=size), filled_store(PROMPT))
    assert len(stored_prefixes(tmp_path)) == 1


def test_what_a_killed_process_left_half_written_goes(tmp_path: Path) -> None:
    keep(prefix_store(tmp_path), filled_store(PROMPT))
    [(path, _, _)] = stored_prefixes(tmp_path)
    half = path.with_name(".half.prefix.new")
    half.write_bytes(bytes(1000))
    keep(prefix_store(tmp_path), filled_store(random_ids(600, 1)))
    assert not half.exists()
    assert len(stored_prefixes(tmp_path)) == 2


def first_ids(path: Path) -> list[int]:
    with path.open("rb") as file:
        return read_tokens(file.fileno(), path, IDENTITY)[1]


def test_a_folder_that_can_not_be_made_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "folder"
    prefixes = PrefixStore(folder, lambda: IDENTITY, lambda: True, 1 << 30, "")
    keep(prefixes, filled_store(PROMPT))
    assert prefixes.find([*PROMPT, 1], 0) is None


def test_clearing(tmp_path: Path) -> None:
    assert clear_prefixes(tmp_path / "none") == (0, 0)
    prefixes = prefix_store(tmp_path)
    keep(prefixes, filled_store(PROMPT))
    [(_, size, _)] = stored_prefixes(tmp_path)
    assert clear_prefixes(tmp_path) == (1, size)
    assert prefixes.find([*PROMPT, 1], 0) is None


@pytest.mark.processes
def test_processes_that_keep_at_once_keep_within_the_limit(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.cache.test_prefix_store import *\n"
        "store = prefix_store(Path(sys.argv[1]), limit=int(sys.argv[2]))\n"
        "for i in range(6): keep(store, filled_store(random_ids(600, 10 * int(sys.argv[3]) + i)))"
    )
    keep(prefix_store(tmp_path), filled_store(PROMPT))
    limit = 4 * stored_prefixes(tmp_path)[0][1] + 100
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(limit), str(i)])
        for i in range(3)
    ]
    assert [process.wait() for process in running] == [0, 0, 0]
    entries = stored_prefixes(tmp_path)
    assert 3 <= len(entries) <= 4
    assert sum(size for _, size, _ in entries) <= limit
    for path, _, _ in entries:
        assert verify(path).problems == ()
    assert not [*tmp_path.glob("*/.*.new")]
