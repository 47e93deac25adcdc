"""Writes a session until it is killed: ``python -m tests.session_writer MODEL SESSION LOG SEED``.

Each operation is first written to the log, a line of JSON, and then done. When one is logged, those
before it are committed.
"""

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

from edgeqwen.cache.session_file import SessionFile
from edgeqwen.engine import Engine
from edgeqwen.gguf_file import GgufFile
from edgeqwen.sessions import identity_of

MAX_CONTEXT = 1500


def main(model: str, session: str, log: str, seed: str) -> None:
    choose = random.Random(int(seed))
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def tell(**operation: Any) -> None:
        os.write(handle, json.dumps(operation).encode() + b"\n")

    with GgufFile.open(model) as file:
        engine = Engine(file, n_threads=2, max_context=MAX_CONTEXT)
        identity, path = identity_of(engine, file), Path(session)
        engine.prefill(engine.new_sequence(), [1, 2])  # loads kernels before anything counts
        engine.decode(warm := engine.new_sequence(), 1)
        engine.prefill(warm, [1, 2])
        engine.shift(warm, 1, 1)
        tell(what="open")
        made = SessionFile.open if path.exists() else SessionFile.create
        store = made(path, identity)
        sequence = engine.new_sequence(store)
        logits = None
        while True:
            what = choose.choices(
                ("prefill", "decode", "truncate", "shift", "seal", "transcript", "reopen"),
                (6, 8, 4, 4, 1, 2, 1),
            )[0]
            room = MAX_CONTEXT - 8 - sequence.n_tokens
            if what == "prefill" and room > 0:
                n = min(room, choose.choice((1, 2, 30, 300, 700)))
                tokens = [choose.randrange(engine.config.vocab_size) for _ in range(n)]
                tell(what="prefill", tokens=tokens)
                logits = engine.prefill(sequence, tokens).copy()
            elif what == "decode" and logits is not None:
                for _ in range(min(room, choose.randrange(40))):
                    token = int(logits.argmax())
                    tell(what="decode", tokens=[token])
                    logits = engine.decode(sequence, token).copy()
            elif what == "truncate":
                n = choose.choice((choose.randint(0, sequence.n_tokens), sequence.n_tokens // 2))
                tell(what="truncate", n=n)
                sequence.truncate(n)
                logits = None
            elif what == "shift":
                keep = choose.randint(0, sequence.n_tokens)
                n = choose.randint(0, sequence.n_tokens - keep)
                tell(what="shift", keep=keep, n=n)
                engine.shift(sequence, keep, n)
                logits = None
            elif what == "seal":
                tell(what="seal")
                sequence.seal()
            elif what == "transcript":
                text = f"{choose.random()} " * choose.choice((1, 100, 10_000))
                tell(what="transcript", text=text)
                store.set_transcript(text.encode())
            elif what == "reopen":
                tell(what="reopen")
                sequence.close()
                store = SessionFile.open(path, identity)
                sequence = engine.new_sequence(store)


if __name__ == "__main__":
    main(*sys.argv[1:])
