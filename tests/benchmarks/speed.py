"""Training and inference: ours beside the plain way, in one process and in turns.

    python -m tests.benchmarks.speed --data ../shared/data

The plain way pads every sequence to 50, calls transformers' BertModel once for the texts and once for the descriptions,
batch 32, and steps torch's AdamW. Both train all layers of MiniLM on the same utterances of MIntRec2.0, with the same
threads, relations and losses. Turns alternate, so that a drift of the machine falls on both.

The share of peak is useful arithmetic (real tokens only) over what a 2048³ float32 product reaches here, by the faster
of torch's two libraries; the figure for torch's own choice (`a @ b`) stands beside it.
"""

from __future__ import annotations

import dataclasses
import gc
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lgsrr import cli, kernels
from lgsrr.batch import Batch, BatchMaker, Rows
from lgsrr.catalog import load_dataset
from lgsrr.config import TrainConfig
from lgsrr.features import Features, Lengths, cache_folder, featurise
from lgsrr.loss import neural_ndcg_per_utterance, ranking_relevance
from lgsrr.model import LGSRR, Relations, SemanticRelations
from lgsrr.optimizer import make_optimizer, set_rate
from lgsrr.pretrained import encoder_config, encoder_folder, load_encoder

LENGTH = 50
BATCH = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    data: str = "../shared/data"
    """Folder with the released tables."""
    steps: int = 8
    """Batches of 32 in each turn."""
    turns: int = 5
    """Turns of each way; the medians over the turns are compared."""


class PlainEncoder(nn.Module):
    """transformers' BertModel on padded batches, texts and descriptions in two calls, masked mean."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import BertModel

        self.bert = BertModel.from_pretrained(folder, add_pooling_layer=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        pooled: Tensor = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        return pooled


class Plain(nn.Module):
    def __init__(self, folder: Path, relations: SemanticRelations, maker: BatchMaker) -> None:
        super().__init__()
        self.encoder, self.relations, self.maker = PlainEncoder(folder), relations, maker

    def forward(self, rows: Rows) -> Relations:
        text = self.encoder(*self._padded(rows, [0]))
        described = self.encoder(*self._padded(rows, list(range(1, self.maker.num_slots))))
        relations: Relations = self.relations(text, described.view(len(rows), -1, text.shape[-1]))
        return relations

    def _padded(self, rows: Rows, slots: list[int]) -> tuple[Tensor, Tensor]:
        ids = torch.zeros(len(rows) * len(slots), LENGTH, dtype=torch.int64)
        mask = torch.zeros(len(rows) * len(slots), LENGTH)
        for i, (row, slot) in enumerate((int(r), s) for r in rows for s in slots):
            sequence = self.maker.sequence(row, slot)
            ids[i, : len(sequence)] = torch.from_numpy(np.asarray(sequence, dtype=np.int64))
            mask[i, : len(sequence)] = 1
        return ids, mask


class Ours(nn.Module):
    def __init__(self, model: LGSRR, maker: BatchMaker) -> None:
        super().__init__()
        self.model, self.maker = model, maker

    def forward(self, rows: Rows) -> Relations:
        relations: Relations = self.model(self.maker(rows))
        return relations


def training_step(way: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, rows: Rows) -> None:
    """Cross entropy and ranking loss, gradients, clipping, AdamW: the same for both ways."""
    relations = way(rows)
    assert batch.positions_BK is not None
    ndcg_B = neural_ndcg_per_utterance(relations.importance_BS, ranking_relevance(batch.positions_BK))
    loss = F.cross_entropy(relations.logits_BC, batch.labels_B) + (1 - ndcg_B).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(way.parameters(), 1.0)
    optimizer.step()


def useful_gflop(features: Features, rows: Rows, folder: Path, training: bool) -> float:
    """Multiplications and additions (10⁹) over real tokens: linear layers and attention, thrice in training."""
    shape = encoder_config(folder)
    size, wide = shape.hidden_size, shape.intermediate_size
    lengths = np.concatenate([np.diff(offsets)[rows] for _, offsets in features.columns()]).astype(np.float64)
    per_layer = 2 * lengths.sum() * (4 * size * size + 2 * size * wide) + 4 * (lengths**2).sum() * size
    return float(per_layer) * shape.num_hidden_layers * (3 if training else 1) / 1e9


def peak_gflops() -> tuple[float, float]:
    """What a 2048³ float32 product reaches: (the faster library, torch's own choice)."""
    left, right = torch.randn(2, 2048, 2048)

    def rate(product: Callable[[Tensor, Tensor], Tensor]) -> float:
        seconds = []
        for _ in range(8):
            started = time.perf_counter()
            product(left, right)
            seconds.append(time.perf_counter() - started)
        return 2 * 2048**3 / min(seconds) / 1e9

    own = rate(torch.matmul)
    return max(own, rate(lambda a, b: kernels.linear(a, b, torch.zeros(2048)))), own


class PeakMemory:
    """Highest resident memory (MB) above that at the start, sampled every 5 ms."""

    def __enter__(self) -> PeakMemory:
        gc.collect()
        self.start, self.highest, self._stop = _resident_mb(), 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.highest = max(self.highest, _resident_mb() - self.start)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def measure(settings: Settings) -> None:
    torch.manual_seed(0)
    folder = encoder_folder("minilm")
    started = time.perf_counter()
    dataset = load_dataset("mintrec2", settings.data)
    lengths = Lengths(text=LENGTH, description=LENGTH)
    features = featurise(dataset, encoder=folder, lengths=lengths, num_aspects=3, cache=cache_folder())
    first = time.perf_counter() - started
    started = time.perf_counter()
    again = load_dataset("mintrec2", settings.data)
    featurise(again, encoder=folder, lengths=lengths, num_aspects=3, cache=cache_folder())
    second = time.perf_counter() - started

    maker = BatchMaker(features)
    width = encoder_config(folder).hidden_size
    ours = Ours(LGSRR(load_encoder(folder), SemanticRelations(width, len(dataset.labels))), maker)
    plain = Plain(folder, SemanticRelations(width, len(dataset.labels)), maker)
    config = TrainConfig(dataset="mintrec2")
    optimizers = {
        "ours": make_optimizer(ours.model, config),
        "plain": torch.optim.AdamW(plain.parameters(), lr=1e-4, weight_decay=0.05),
    }
    set_rate(optimizers["ours"], 0.1)
    ways: dict[str, nn.Module] = {"ours": ours, "plain": plain}
    order = np.random.default_rng(0).permutation(features.indices("train"))
    batches = [order[i * BATCH : (i + 1) * BATCH] for i in range(settings.steps)]
    every = np.concatenate(batches)
    made = [maker(rows) for rows in batches]

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {len(every)} utterances a turn")
    print(f"data: first start {first:.2f} s, second start {second:.2f} s")
    peak, own = peak_gflops()
    print(f"2048³ float32 product: {peak:.0f} GFLOP/s (torch's own choice: {own:.0f})")

    def train(name: str) -> None:
        ways[name].train()
        for rows, batch in zip(batches, made, strict=True):
            training_step(ways[name], optimizers[name], batch, rows)

    def infer(name: str) -> None:
        ways[name].eval()
        with torch.inference_mode():
            for rows in batches:
                ways[name](rows)

    for title, run, training in (("training", train, True), ("inference", infer, False)):
        gflop = useful_gflop(features, every, folder, training)
        rates: dict[str, list[float]] = {"ours": [], "plain": []}
        memory = {"ours": 0.0, "plain": 0.0}
        run("ours"), run("plain")
        for _ in range(settings.turns):
            for name in rates:
                with PeakMemory() as peak_memory:
                    started = time.perf_counter()
                    run(name)
                    rates[name].append(len(every) / (time.perf_counter() - started))
                memory[name] = max(memory[name], peak_memory.highest)
        speed = {name: statistics.median(values) for name, values in rates.items()}
        ratios = [a / b for a, b in zip(rates["ours"], rates["plain"], strict=True)]
        for name in rates:
            reached = gflop * speed[name] / len(every)
            print(
                f"{title:9}  {name:5}  {speed[name]:6.1f} utterances/s   useful {reached:5.0f} GFLOP/s"
                f" = {100 * reached / peak:3.0f} % of peak ({100 * reached / own:3.0f} % of torch's own)"
                f"   memory +{memory[name]:.0f} MB"
            )
        print(f"{title:9}  ratio  {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    cli.run(
        measure, Settings, prog="python -m tests.benchmarks.speed", description=(__doc__ or "").split("\n\n")[0],
        example="python -m tests.benchmarks.speed --steps 8 --turns 5", argv=sys.argv[1:],
    )  # fmt: skip
