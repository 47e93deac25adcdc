"""The README's commands, run as they stand, with a tiny random model in place of a Qwen2.5."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeqwen.cli.loading import BUILT_IN
from tests.hf_checkpoints import write_checkpoint

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(r"<!-- test -->\n```(\w+)\n(.*?)```", README.read_text("utf-8"), re.DOTALL)


@pytest.mark.skipif(sys.platform == "win32", reason="the README's commands are for a Unix shell")
def test_commands_of_the_readme(tmp_path: Path) -> None:
    assert [language for language, _ in BLOCKS] == ["sh", "sh", "sh", "python"]
    checkpoint = tmp_path / "Qwen2.5-0.5B-Instruct"
    write_checkpoint(checkpoint, hidden_size=128, intermediate_size=192)
    shutil.copy(README, tmp_path)
    for language, code in BLOCKS:
        if language == "sh":
            program = f'set -e\nedgeqwen() {{ {shlex.quote(sys.executable)} -m edgeqwen "$@"; }}\n'
            command = ["sh", "-c", program + code]
        else:
            command = [sys.executable, "-W", "error", "-c", code]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "EDGEQWEN_SESSIONS_DIR": str(tmp_path / "sessions")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        n_built_in = 2 if "model.gguf" not in code else 0
        assert done.stderr == f"{BUILT_IN}\n" * n_built_in
        assert done.stdout
