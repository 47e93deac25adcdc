"""Makes the built-in model: corpus, training, checkpoint, quantized file, held-out text.

``python -m tools.guide_model`` does all of it; a run that was interrupted goes on where it was.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tokenizers import Tokenizer

from edgeqwen.quant import quantize
from tools.guide_model.dataset import Dataset, make_dataset, make_tokenizer, source_digest
from tools.guide_model.export import write_checkpoint
from tools.guide_model.guide import read_guide
from tools.guide_model.held_out import held_out_text
from tools.guide_model.learned import LEARNED, write_learned
from tools.guide_model.network import Network, Shape
from tools.guide_model.train import Schedule, train

_ROOT = Path(__file__).resolve().parents[2]
# The folder's name becomes the model's.
CHECKPOINT = Path(__file__).parent / "edgeqwen-guide"
PACKAGE = _ROOT / "edgeqwen" / "guide"

_TYPE = "q8_0"


@dataclass(frozen=True, slots=True)
class _Work:
    """The folder with what can be made again."""

    folder: Path

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokenizer.json"

    @property
    def dataset(self) -> Path:
        return self.folder / "dataset.npz"

    @property
    def state(self) -> Path:
        return self.folder / "state.pt"


def main(
    work: Annotated[Path, typer.Option(help="Folder of the corpus and the training's state.")] = (
        _ROOT / "build" / "guide_model"
    ),
    steps: Annotated[int, typer.Option(min=1, help="Training steps of 4096 tokens.")] = 2500,
    seed: Annotated[int, typer.Option(help="Another seed gives another corpus and model.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="The result depends on it.")] = 2,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the results instead of the repository's.")
    ] = None,
) -> None:
    """Trains the model that edgeqwen carries, and puts it where the package expects it."""
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)
    # Factors of products are rounded to bfloat16, sums stay float32. Ignored by CPUs that multiply
    # float32 only; with AMX, a step takes a third of the time, and the losses are the same.
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    shape = Shape()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} {task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    ) as progress:
        tokenizer, dataset = _corpus(_Work(work), shape, steps, seed, progress)
        network = _trained(_Work(work), shape, dataset, Schedule(steps, seed=seed), progress)
    checkpoint = output / CHECKPOINT.name if output else CHECKPOINT
    package = output or PACKAGE
    write_checkpoint(checkpoint, network, tokenizer)
    quantize(checkpoint, package / "guide.gguf", _TYPE)
    write_learned(read_guide(), output / LEARNED.name if output else LEARNED)
    (package / "held_out.txt").write_text(held_out_text(), encoding="utf-8")


def _corpus(
    work: _Work, shape: Shape, steps: int, seed: int, progress: Progress
) -> tuple[Tokenizer, Dataset]:
    """Returns the vocabulary and the tokens, made where they aren't there yet."""
    made_from = source_digest(seed, steps)
    known = Dataset.load(work.dataset, made_from)
    if known is not None:
        return Tokenizer.from_file(str(work.tokenizer)), known
    bar = progress.add_task("corpus", total=steps, note="steps")
    tokenizer = make_tokenizer(seed, shape.vocab_size)
    tokenizer.save(str(work.tokenizer))
    for made in make_dataset(seed, tokenizer, steps):
        if isinstance(made, Dataset):
            made.save(work.dataset, made_from)
            return tokenizer, made
        progress.update(bar, completed=made)
    raise AssertionError("make_dataset ends with a dataset")


def _trained(
    work: _Work, shape: Shape, dataset: Dataset, schedule: Schedule, progress: Progress
) -> Network:
    bar = progress.add_task("training", total=schedule.n_steps, note="")
    log = work.folder / "loss.tsv"

    def show(step: int, loss: float) -> None:
        progress.update(bar, completed=step + 1, note=f"loss {loss:.3f}")
        with log.open("a") as file:
            file.write(f"{step}\t{loss:.4f}\t{time.time():.0f}\n")

    return train(dataset, shape, schedule, work.state, show)


if __name__ == "__main__":
    typer.run(main)
