"""The steps of a model: each kind's tape and its buffers, recorded when it is first used."""

from collections.abc import Callable, Iterable

import numpy as np

from edgeqwen.executor import Tape
from edgeqwen.kernels.observe import OBSERVED
from edgeqwen.model.buffers import Buffers
from edgeqwen.model.observation import Observation, ObservedRecording, observed_inputs
from edgeqwen.model.qwen2 import Recorder
from edgeqwen.model.screening import Screen, ScreenedRecording
from edgeqwen.model.weights import Weights

Kernels = dict[tuple[str, str], Callable[[], object]]

# Tokens of a prompt that go through the network together, and those whose logits are kept.
PREFILL_TOKENS = 256
LOGITS_TOKENS = 32
# One token; many, for the logits of the last; many, for the logits of all. Beside these, "screened"
# is a step of one token for some of its logits, where the head is screened, and "observe" one of
# many without logits, which running a model doesn't take.
STEPS = ("decode", "prefill", "logits")


class Steps:
    """What ``recorder`` records for an engine whose sequences hold up to ``max_context`` tokens."""

    def __init__(
        self, recorder: Recorder, weights: Weights, screen: Screen, max_context: int
    ) -> None:
        self._recorder, self._screen, self._max_context = recorder, screen, max_context
        self._inputs = observed_inputs(weights)
        self._observed = np.zeros(1, OBSERVED)
        # Recorded steps, and those whose kernels are there.
        self._records: dict[str, tuple[Tape, Buffers]] = {}
        self._tapes: dict[str, tuple[Tape, Buffers]] = {}
        self._buffers: dict[int, Buffers] = {}  # by the number of logits they hold

    @property
    def of_running(self) -> tuple[str, ...]:
        """The kinds that running the model may take."""
        return (*STEPS, "screened") if self._screen.exists else STEPS

    def tape(self, name: str) -> tuple[Tape, Buffers]:
        """Returns the tape of a kind of step, its kernels compiled, and what it computes in."""
        if name not in self._tapes:
            tape, buffers = self.recorded(name)
            tape.finish()
            self._tapes[name] = tape, buffers
        return self._tapes[name]

    def recorded(self, name: str) -> tuple[Tape, Buffers]:
        """Returns the tape of a kind of step before its kernels are compiled."""
        if name not in self._records:
            self._records[name] = self.record(name)
        return self._records[name]

    def kernels(self, names: Iterable[str]) -> Kernels:
        """Returns the kernels of some kinds of steps: by name, what compiles it."""
        kernels: Kernels = {}
        for name in names:
            kernels.update(self.recorded(name)[0].kernels())
        return kernels

    def new_observation(self) -> Observation:
        """Returns sums of zero for a step that observes."""
        return Observation(self._inputs)

    def observes(self, observation: Observation) -> bool:
        """Tells whether the sums are of this model's matrices."""
        return observation.inputs == self._inputs

    def observe(self, observation: Observation) -> None:
        """Has the next step that observes add to these sums."""
        self._observed["sums"] = observation.sums.ctypes.data

    def record(self, name: str) -> tuple[Tape, Buffers]:
        """Records a kind of step anew; two of them compute in the same buffers."""
        n_logits = LOGITS_TOKENS if name == "logits" else 1
        if n_logits not in self._buffers:
            max_tokens = LOGITS_TOKENS if name == "logits" else PREFILL_TOKENS
            self._buffers[n_logits] = self._new_buffers(max_tokens, n_logits)
        buffers = self._buffers[n_logits]
        if name == "observe":
            recording = ObservedRecording(self._recorder, buffers, self._inputs, self._observed)
            return self._recorder.walk(recording, last_only=True), buffers
        if name == "screened":
            screened = ScreenedRecording(self._recorder, buffers, self._screen)
            return self._recorder.walk(screened, last_only=True), buffers
        one_token, all_logits = name == "decode", name == "logits"
        tape = self._recorder.record(buffers, one_token=one_token, all_logits=all_logits)
        return tape, buffers

    def close(self) -> None:
        """Frees the buffers. No step may be run any more."""
        self._tapes.clear()
        self._records.clear()
        for buffers in self._buffers.values():
            buffers.close()

    def _new_buffers(self, max_tokens: int, n_logits: int) -> Buffers:
        recorder = self._recorder
        shapes = [recorder.attention_shape(one_token) for one_token in (True, False)]
        return Buffers(
            recorder.config,
            max_tokens=max_tokens,
            max_context=self._max_context,
            n_threads=recorder.n_threads,
            attention_rows=max(shape.padded_rows for shape in shapes),
            n_logits=n_logits,
            screen_bytes=self._screen.memory.n_bytes,
        )
