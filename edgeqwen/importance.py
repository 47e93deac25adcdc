"""How much each column of a model's matrices matters: importance matrices made from a text."""

from collections.abc import Callable, Sequence
from contextlib import closing

from edgeqwen.api import Model
from edgeqwen.errors import OptionError
from edgeqwen.model.observation import Observation
from edgeqwen.model.steps import PREFILL_TOKENS
from edgeqwen.options import positive_integer, token_ids
from edgeqwen.quant.imatrix import Imatrix
from edgeqwen.quant.imatrix_parts import Entry, summed_entry

# The window where none is given, if the model's context isn't shorter.
CONTEXT = 512
# ``so_far`` is called each time that so many windows were read.
SO_FAR_WINDOWS = 10
HEAD = "output.weight"
EMBEDDING = "token_embd.weight"


def collect(
    model: Model,
    tokens: Sequence[int],
    *,
    context: int | None = None,
    max_windows: int | None = None,
    output: bool = False,
    dataset: str = "",
    cancelled: Callable[[], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
    so_far: Callable[[Imatrix], None] | None = None,
) -> Imatrix:
    """Returns the importance matrix of a model for a text: an entry for each matrix of a layer.

    The text is cut into windows of ``context`` tokens (512, or the model's context if that is
    less), each read anew, at most ``max_windows`` of them; what is left at the end is left out.
    ``output``: also an entry for output.weight, which a model with tied embeddings doesn't have.
    ``dataset`` names the text in the result.

    ``progress(done, total)`` counts tokens. ``so_far`` gets what was collected every 10 windows,
    so that it may be kept. When ``cancelled()``, which is asked every 256 tokens, the result is
    that of the tokens read so far.

    Raises OptionError for a text of less than a window and for windows that make no sense or exceed
    the model's context, EdgeqwenError if activations are infinite or NaN.
    """
    ids = token_ids(tokens, model.config.vocab_size, "tokens")
    engine = model.engine
    context = _window(context, engine.max_context)
    n_windows = len(ids) // context
    if max_windows is not None:
        n_windows = min(n_windows, positive_integer(max_windows, "max_windows"))
    if n_windows == 0:
        raise OptionError(
            f"the text is too short: it has {len(ids)} tokens, expected at least {context}, a "
            "window; give more text, or a smaller window"
        )
    total = n_windows * context
    observation = engine.new_observation()
    with closing(engine.new_sequence()) as sequence:
        for begin in range(0, total, context):
            sequence.truncate(0)
            end = begin + context
            for first in range(begin, end, PREFILL_TOKENS):
                part = ids[first : min(first + PREFILL_TOKENS, end)]
                engine.observe(sequence, part, observation)
                if progress is not None:
                    progress(observation.n_tokens, total)
                stopped = cancelled is not None and cancelled()
                if stopped:
                    break
            # After each window: a model that gives no numbers shouldn't be run for hours.
            found = _imatrix(observation, context, output, dataset)
            if stopped:
                break
            if so_far is not None and found.chunk_count % SO_FAR_WINDOWS == 0:
                so_far(found)
    return found


def _window(context: int | None, max_context: int) -> int:
    if context is None:
        return min(CONTEXT, max_context)
    context = positive_integer(context, "context")
    if context > max_context:
        raise OptionError(
            f"the window has {context} tokens: expected 1 to {max_context}, the model's context"
        )
    return context


def _imatrix(observation: Observation, context: int, output: bool, dataset: str) -> Imatrix:
    n_tokens = observation.n_tokens
    entries: dict[str, Entry] = {}
    for names, sums in observation:
        if names == (EMBEDDING,) or (names == (HEAD,) and not output):
            continue
        entry = summed_entry(sums, n_tokens, names[0])
        entries |= dict.fromkeys(names, entry)
    return Imatrix(entries, n_tokens // context, context, (dataset,) if dataset else ())
