"""Exported: whether onnxruntime, given a folder of graphs, makes what the model makes that they were drawn from.

Rows of several lengths, alone and in company, padded on either side, read at once and in pieces, each compared with the
model's own reading of the row alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clearstory.errors import CorruptFile
from clearstory.models.base import TokenBatch
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.models.base import inference_mode
from clearstory.models.recurrent.model import Recurrent
from clearstory.models.transformer.decoder import Transformer
from clearstory.recipes.conversion.check_transformers import CLOSE

LENGTH, LONGEST = 32, 256
"""Tokens in a row; more, up to the longest, where a window would not cut otherwise."""

Side = Literal["left", "right"]
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Exported:
    """How near onnxruntime comes.

    Args:
        tokens: whose numbers were compared.
        share: the largest difference between two numbers, as a share of the largest number.
        nats: the largest between two tokens' nats; None for an encoder that gives vectors only.
    """

    tokens: int
    max_relative_difference: float
    nats: float | None


@dataclass(frozen=True)
class OutputPair:
    """What one row was made of, by the model and by onnxruntime: (T, V) or (T, W) of each."""

    ours: Tensor
    theirs: Tensor
    targets: Tensor | None = None

    @property
    def max_relative_difference(self) -> float:
        """The largest difference, as a share of the largest number."""
        return float((self.ours - self.theirs).abs().max() / self.ours.abs().max())

    @property
    def nats(self) -> float | None:
        """The largest difference between the nats of two targets, where there are some."""
        if self.targets is None:
            return None
        ours, theirs = (
            torch.log_softmax(each.double(), -1).gather(1, self.targets[:, None]) for each in (self.ours, self.theirs)
        )
        return float((ours - theirs).abs().max())


def check_onnx(folder: Path, model: Any, path: Path) -> Exported:
    """Try the graphs in `folder`, which is to become `path`. Raises CorruptFile where they differ from the model."""
    try:
        with inference_mode(model):
            seen = list(GRAPH_CHECKS[type(model)](folder, model))
    except Exception as error:  # whatever onnxruntime raises is the finding
        reason = " ".join(str(error).split())[:200]
        raise CorruptFile(
            f"onnxruntime cannot run what was drawn ({reason}); {path} is not written, please report this"
        ) from error
    shares = [each.max_relative_difference for each in seen]
    # NaN is no difference at all, and so compares as too large.
    if not all(share <= CLOSE for share in shares):
        raise CorruptFile(
            f"onnxruntime gives other numbers than the model: one differs by {np.max(shares):.2g} of the largest, and "
            f"{CLOSE:g} is what rounding makes; {path} is not written, please report this"
        )
    nats = [each.nats for each in seen if each.nats is not None]
    return Exported(sum(len(each.ours) for each in seen), max(shares), max(nats) if nats else None)


def open_session(file: Path) -> Any:
    """One graph, open, on one thread as all else here. What it cannot say is not said."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: it warns of what it makes better
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def run_graph(graph: Any, given: Arrays) -> Arrays:
    """All outputs by name."""
    names = [each.name for each in graph.get_outputs()]
    return dict(zip(names, graph.run(names, given), strict=True))


def rows_of(model: Any) -> list[list[list[int]]]:
    """Batches of rows of ids drawn by lot: one token, one row, rows of equal lengths and of others."""
    window = getattr(model.config, "sliding_window", None) or 0
    longest = max(LENGTH, window + 8 if window <= LONGEST else 0)
    most = longest if model.context is None else min(longest, model.context)
    random = np.random.default_rng(1)
    lengths = [[1], [most], [most] * 3, [most, most // 2 + 1, 1]]
    return [[random.integers(model.vocab, size=length).tolist() for length in batch] for batch in lengths]


def padded(rows: Sequence[Sequence[int]], side: Side) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids and mask, (B, T) each."""
    longest = max(map(len, rows))
    ids, mask = np.zeros((len(rows), longest), np.int64), np.zeros((len(rows), longest), np.int64)
    for number, row in enumerate(rows):
        part = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
        ids[number, part], mask[number, part] = row, 1
    return ids, mask


def batches(model: Any) -> Iterator[tuple[list[list[int]], npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Rows, and as they are handed in, padded on either side."""
    for rows in rows_of(model):
        sides: tuple[Side, ...] = ("left", "right") if len({len(row) for row in rows}) > 1 else ("right",)
        for side in sides:
            yield rows, *padded(rows, side)


def logits(model: Any, row: Sequence[int]) -> Tensor:
    """The model's own, of a row alone."""
    hidden, _ = model.forward(TokenBatch.from_sequences([row]))
    found: Tensor = model.logits(hidden)[0]
    return found


def following(row: Sequence[int]) -> Tensor:
    """What comes after each token; after the last the first."""
    return torch.tensor([*row[1:], row[0]])


def of_rows(model: Any, rows: list[list[int]], mask: npt.NDArray[np.int64], theirs: npt.NDArray[Any]) -> Iterator[OutputPair]:
    """Row by row, what stands at real tokens."""
    for row, real, found in zip(rows, mask.astype(bool), theirs, strict=True):
        yield OutputPair(logits(model, row), torch.from_numpy(found[real]), following(row))


def decoder(folder: Path, model: Transformer) -> Iterator[OutputPair]:
    """Read at once, and in three pieces through the cache."""
    c = model.config
    graph = open_session(folder / "model.onnx")
    kept = [each.name for each in graph.get_outputs()[1:]]
    for rows, ids, mask in batches(model):
        for cuts in ((), (ids.shape[1] // 2, ids.shape[1] - 1)):
            if cuts and ids.shape[1] < 3:
                continue
            nothing = np.zeros((len(rows), c.kv_heads, 0, c.head_dim), np.float32)
            past = {name.replace("present", "past_key_values"): nothing for name in kept}
            found = []
            for begin, end in zip((0, *cuts), (*cuts, ids.shape[1]), strict=True):
                out = run_graph(graph, {"input_ids": ids[:, begin:end], "attention_mask": mask[:, :end], **past})
                past = {name.replace("present", "past_key_values"): out[name] for name in kept}
                found.append(out["logits"])
            yield from of_rows(model, rows, mask, np.concatenate(found, 1))


def encoder(folder: Path, model: Encoder) -> Iterator[OutputPair]:
    """All outputs; where there are segments, with two of them."""
    graph = open_session(folder / "model.onnx")
    for rows, ids, mask in batches(model):
        given = {"input_ids": ids, "attention_mask": mask}
        second = np.zeros_like(ids)
        if model.token_type_embedding is not None:
            second = (np.arange(ids.shape[1]) % model.config.token_types)[None].repeat(len(ids), 0)
            given["token_type_ids"] = second
        out = run_graph(graph, given)
        for number, (row, real) in enumerate(zip(rows, mask.astype(bool), strict=True)):
            segments = torch.from_numpy(second[number][real])[None] if model.token_type_embedding is not None else None
            hidden = model.encode(TokenBatch.from_sequences([row]), segments)
            yield OutputPair(hidden[0], torch.from_numpy(out["last_hidden_state"][number][real]))
            if "logits" in out:
                theirs = torch.from_numpy(out["logits"][number][real])
                yield OutputPair(model.logits(hidden)[0], theirs, torch.tensor(row))
            # The pooler reads the first place, which is padding where that stands on the left.
            if "pooler_output" in out and real[0]:
                yield OutputPair(model.pool(hidden), torch.from_numpy(out["pooler_output"][number : number + 1]))


def encoder_decoder(folder: Path, model: EncoderDecoder) -> Iterator[OutputPair]:
    """Sources padded on either side; answers of equal lengths, as they are written."""
    reading, writing = open_session(folder / "encoder_model.onnx"), open_session(folder / "decoder_model.onnx")
    for number, (rows, ids, mask) in enumerate(batches(model)):
        vectors = run_graph(reading, {"input_ids": ids, "attention_mask": mask})["last_hidden_state"]
        written = np.random.default_rng(number).integers(model.vocab, size=(len(rows), ids.shape[1]))
        out = run_graph(writing, {"input_ids": written, "encoder_attention_mask": mask, "encoder_hidden_states": vectors})[
            "logits"
        ]
        for row, answer, found in zip(rows, written.tolist(), out, strict=True):
            hidden, _ = model.forward(TokenBatch.from_sequences([answer]), source=TokenBatch.from_sequences([row]))
            yield OutputPair(model.logits(hidden)[0], torch.from_numpy(found), following(answer))


def recurrent(folder: Path, model: Recurrent) -> Iterator[OutputPair]:
    """Rows of equal lengths, read at once and in three pieces through the memory."""
    graph = open_session(folder / "model.onnx")
    given = [each for each in graph.get_inputs() if each.name.startswith("past.")]
    for rows, ids, mask in batches(model):
        if not mask.all():
            continue
        for cuts in ((), (ids.shape[1] // 2, ids.shape[1] - 1)):
            if cuts and ids.shape[1] < 3:
                continue
            past = {each.name: np.zeros((len(rows), each.shape[1]), np.float32) for each in given}
            found = []
            for begin, end in zip((0, *cuts), (*cuts, ids.shape[1]), strict=True):
                out = run_graph(graph, {"input_ids": ids[:, begin:end], **past})
                past = {name: out[name.replace("past", "present")] for name in past}
                found.append(out["logits"])
            yield from of_rows(model, rows, mask, np.concatenate(found, 1))


GRAPH_CHECKS: dict[type[Any], Callable[[Path, Any], Iterator[OutputPair]]] = {
    Transformer: decoder,
    Encoder: encoder,
    EncoderDecoder: encoder_decoder,
    Recurrent: recurrent,
}
"""How the graphs of each kind of model are tried."""
