"""Check ONNX: whether onnxruntime computes the same outputs with exported graphs as the model they were exported from.

Batches of sequences of several lengths, padded on either side, run at once and in pieces with a cache, are compared
with the outputs of the model for each sequence alone.
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
from clearstory.models.base import LanguageModel, TokenBatch, inference_mode
from clearstory.models.heads import ClassificationHead, SequenceClassifier, TokenClassifier
from clearstory.models.recurrent.model import Recurrent
from clearstory.models.transformer.decoder import Transformer
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.recipes.conversion.check_transformers import RELATIVE_TOLERANCE

SEQUENCE_LENGTH, MAX_SEQUENCE_LENGTH = 32, 256
"""Tokens of a sequence; up to the maximum if a sliding window would otherwise not be exceeded."""

PaddingSide = Literal["left", "right"]
Arrays = dict[str, npt.NDArray[Any]]
IdArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class OnnxReport:
    """The outcome of a comparison with onnxruntime.

    Args:
        tokens: number of tokens whose outputs were compared.
        max_relative_difference: largest difference of two outputs, relative to the largest output.
        max_nats_difference: largest difference of a token's negative log-likelihood; None for outputs without logits.
    """

    tokens: int
    max_relative_difference: float
    max_nats_difference: float | None


@dataclass(frozen=True)
class OutputPair:
    """Outputs of the model and of onnxruntime for one sequence, (T, V) or (T, W) each."""

    ours: Tensor
    theirs: Tensor
    targets: Tensor | None = None

    @property
    def max_relative_difference(self) -> float:
        """Largest difference, relative to the largest output."""
        return float((self.ours - self.theirs).abs().max() / self.ours.abs().max())

    @property
    def max_nats_difference(self) -> float | None:
        """Largest difference of the negative log-likelihood of a target; None without targets."""
        if self.targets is None:
            return None
        ours, theirs = (
            torch.log_softmax(each.double(), -1).gather(1, self.targets[:, None]) for each in (self.ours, self.theirs)
        )
        return float((ours - theirs).abs().max())


def check_onnx(folder: Path, model: LanguageModel, path: Path) -> OnnxReport:
    """Compare the graphs in `folder` with the model they were exported from; `path` is their final place.

    Raises CorruptFile if onnxruntime cannot run the graphs or computes other outputs.
    """
    try:
        with inference_mode(model):
            pairs = list(GRAPH_CHECKS[type(model)](folder, model))
    except Exception as error:  # any error of onnxruntime is a finding
        reason = " ".join(str(error).split())[:200]
        raise CorruptFile(
            f"onnxruntime cannot run the exported graph ({reason}); {path} is not written, please report this"
        ) from error
    differences = [pair.max_relative_difference for pair in pairs]
    # Written so that nan counts as too large.
    if not all(difference <= RELATIVE_TOLERANCE for difference in differences):
        raise CorruptFile(
            f"onnxruntime's outputs differ from the model's: one differs by {np.max(differences):.2g} of the "
            f"largest, and rounding explains at most {RELATIVE_TOLERANCE:g}; {path} is not written, please report this"
        )
    nats = [pair.max_nats_difference for pair in pairs if pair.max_nats_difference is not None]
    return OnnxReport(sum(len(pair.ours) for pair in pairs), max(differences), max(nats) if nats else None)


def open_session(file: Path) -> Any:
    """An onnxruntime session of one graph, with as many threads as torch and without warnings."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: it also warns of its own optimizations
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def run_graph(session: Any, inputs: Arrays) -> Arrays:
    """All outputs of a graph by name."""
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def random_batches(model: Any) -> list[list[list[int]]]:
    """Batches of random sequences: one token, one sequence, sequences of equal and of different lengths."""
    window = (model.config.family == "transformer" and model.config.sliding_window) or 0
    length = max(SEQUENCE_LENGTH, window + 8 if window <= MAX_SEQUENCE_LENGTH else 0)
    longest = length if model.context is None else min(length, model.context)
    rng = np.random.default_rng(1)
    lengths = [[1], [longest], [longest] * 3, [longest, longest // 2 + 1, 1]]
    return [[rng.integers(model.vocab, size=length).tolist() for length in batch] for batch in lengths]


def pad(sequences: Sequence[Sequence[int]], side: PaddingSide) -> tuple[IdArray, IdArray]:
    """Ids and attention mask of sequences, (B, T) each."""
    longest = max(map(len, sequences))
    ids, mask = np.zeros((len(sequences), longest), np.int64), np.zeros((len(sequences), longest), np.int64)
    for index, sequence in enumerate(sequences):
        columns = slice(0, len(sequence)) if side == "right" else slice(longest - len(sequence), longest)
        ids[index, columns], mask[index, columns] = sequence, 1
    return ids, mask


def padded_batches(model: Any) -> Iterator[tuple[list[list[int]], IdArray, IdArray]]:
    """Random sequences with their ids and attention mask, (B, T) each, padded on either side."""
    for sequences in random_batches(model):
        sides: tuple[PaddingSide, ...] = ("right",)
        if len({len(sequence) for sequence in sequences}) > 1:
            sides = ("left", "right")
        for side in sides:
            yield sequences, *pad(sequences, side)


def piece_boundaries(length: int) -> Iterator[list[tuple[int, int]]]:
    """Pieces of a sequence as (start, end): all of it, and, for 3 tokens or more, three pieces."""
    yield [(0, length)]
    if length >= 3:
        cuts = (length // 2, length - 1)
        yield list(zip((0, *cuts), (*cuts, length), strict=True))


def model_logits(model: Any, sequence: Sequence[int]) -> Tensor:
    """Logits of the model for a sequence alone, (T, V)."""
    hidden, _ = model.forward(TokenBatch.from_sequences([sequence]))
    logits: Tensor = model.logits(hidden)[0]
    return logits


def next_ids(sequence: Sequence[int]) -> Tensor:
    """The id after each token; after the last one, the first."""
    return torch.tensor([*sequence[1:], sequence[0]])


def compare_logits(
    model: Any, sequences: list[list[int]], mask: IdArray, logits: npt.NDArray[Any]
) -> Iterator[OutputPair]:
    """The logits of onnxruntime, (B, T, V), without padding, paired with those of the model, sequence by sequence."""
    for sequence, is_token, theirs in zip(sequences, mask.astype(bool), logits, strict=True):
        yield OutputPair(model_logits(model, sequence), torch.from_numpy(theirs[is_token]), next_ids(sequence))


def check_decoder(folder: Path, model: Transformer) -> Iterator[OutputPair]:
    """Sequences at once, and in three pieces with a key-value cache."""
    config = model.config
    graph = open_session(folder / "model.onnx")
    cache_names = [each.name for each in graph.get_outputs()[1:]]
    for sequences, ids, mask in padded_batches(model):
        for pieces in piece_boundaries(ids.shape[1]):
            empty = np.zeros((len(sequences), config.kv_heads, 0, config.head_dim), np.float32)
            cache = {name.replace("present", "past_key_values"): empty for name in cache_names}
            logits = []
            for start, end in pieces:
                inputs: Arrays = {"input_ids": ids[:, start:end], "attention_mask": mask[:, :end], **cache}
                outputs = run_graph(graph, inputs)
                cache = {name.replace("present", "past_key_values"): outputs[name] for name in cache_names}
                logits.append(outputs["logits"])
            yield from compare_logits(model, sequences, mask, np.concatenate(logits, 1))


def check_encoder(folder: Path, model: Encoder) -> Iterator[OutputPair]:
    """All outputs, with two token types if the model has them."""
    graph = open_session(folder / "model.onnx")
    for sequences, ids, mask in padded_batches(model):
        inputs: Arrays = {"input_ids": ids, "attention_mask": mask}
        token_types = None
        if model.config.token_types:
            token_types = (np.arange(ids.shape[1]) % model.config.token_types)[None].repeat(len(ids), 0)
            inputs["token_type_ids"] = token_types
        outputs = run_graph(graph, inputs)
        for index, (sequence, is_token) in enumerate(zip(sequences, mask.astype(bool), strict=True)):
            types = None if token_types is None else torch.from_numpy(token_types[index][is_token])[None]
            hidden = model.encode(TokenBatch.from_sequences([sequence]), types)
            yield OutputPair(hidden[0], torch.from_numpy(outputs["last_hidden_state"][index][is_token]))
            if "logits" in outputs:
                theirs = torch.from_numpy(outputs["logits"][index][is_token])
                yield OutputPair(model.logits(hidden)[0], theirs, torch.tensor(sequence))
            # The pooler reads the first position, which is padding if that is on the left.
            if "pooler_output" in outputs and is_token[0]:
                yield OutputPair(model.pool(hidden), torch.from_numpy(outputs["pooler_output"][index : index + 1]))


def check_classifier(folder: Path, model: ClassificationHead) -> Iterator[OutputPair]:
    """Logits of the labels of each text, or of each token."""
    graph = open_session(folder / "model.onnx")
    types = getattr(model.backbone.config, "token_types", 0) or 0
    for sequences, ids, mask in padded_batches(model.backbone):
        inputs: Arrays = {"input_ids": ids, "attention_mask": mask}
        token_types = (np.arange(ids.shape[1]) % types)[None].repeat(len(ids), 0) if types else None
        if token_types is not None:
            inputs["token_type_ids"] = token_types
        outputs = run_graph(graph, inputs)["logits"]
        for index, (sequence, is_token) in enumerate(zip(sequences, mask.astype(bool), strict=True)):
            own = None if token_types is None else torch.from_numpy(token_types[index][is_token])[None]
            logits = model.class_logits(TokenBatch.from_sequences([sequence]), own)[0]
            theirs = outputs[index][is_token] if logits.ndim == 2 else outputs[index][None]
            yield OutputPair(logits.view(len(theirs), -1), torch.from_numpy(theirs))


def check_encoder_decoder(folder: Path, model: EncoderDecoder) -> Iterator[OutputPair]:
    """Sources padded on either side, and random targets of equal lengths."""
    encoder, decoder = open_session(folder / "encoder_model.onnx"), open_session(folder / "decoder_model.onnx")
    for seed, (sources, ids, mask) in enumerate(padded_batches(model)):
        hidden = run_graph(encoder, {"input_ids": ids, "attention_mask": mask})["last_hidden_state"]
        targets = np.random.default_rng(seed).integers(model.vocab, size=(len(sources), ids.shape[1]))
        inputs = {"input_ids": targets, "encoder_attention_mask": mask, "encoder_hidden_states": hidden}
        logits = run_graph(decoder, inputs)["logits"]
        for source, target, theirs in zip(sources, targets.tolist(), logits, strict=True):
            ours, _ = model.forward(TokenBatch.from_sequences([target]), source=TokenBatch.from_sequences([source]))
            yield OutputPair(model.logits(ours)[0], torch.from_numpy(theirs), next_ids(target))


def check_recurrent(folder: Path, model: Recurrent) -> Iterator[OutputPair]:
    """Sequences of equal lengths, at once and in three pieces with the recurrent state."""
    graph = open_session(folder / "model.onnx")
    state_inputs = [each for each in graph.get_inputs() if each.name.startswith("past.")]
    for sequences, ids, mask in padded_batches(model):
        if not mask.all():
            continue
        for pieces in piece_boundaries(ids.shape[1]):
            state = {each.name: np.zeros((len(sequences), each.shape[1]), np.float32) for each in state_inputs}
            logits = []
            for start, end in pieces:
                outputs = run_graph(graph, {"input_ids": ids[:, start:end], **state})
                state = {name: outputs[name.replace("past", "present")] for name in state}
                logits.append(outputs["logits"])
            yield from compare_logits(model, sequences, mask, np.concatenate(logits, 1))


GRAPH_CHECKS: dict[type[Any], Callable[[Path, Any], Iterator[OutputPair]]] = {
    Transformer: check_decoder,
    Encoder: check_encoder,
    EncoderDecoder: check_encoder_decoder,
    Recurrent: check_recurrent,
    SequenceClassifier: check_classifier,
    TokenClassifier: check_classifier,
}
"""The check of each class of models, as `formats.onnx` has an exporter for each."""
