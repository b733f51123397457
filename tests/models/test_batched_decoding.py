"""Decoding over one KV cache of all sequences: the same as over one cache for each, and what a CUDA graph needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from clearstory.errors import ContextOverflow, VocabularyMismatch
from clearstory.generation.decoding_batch import CacheBatch, StateBatch
from clearstory.generation.engine import Engine, Token
from clearstory.generation.settings import Sampling
from clearstory.models.base import TokenBatch, inference_mode, initial_state
from clearstory.models.build import build
from clearstory.models.transformer.batched_cache import MAX_GROWTH, BatchedKVCache
from clearstory.models.transformer.batched_decoding import BatchedDecoder, can_batch
from clearstory.models.transformer.cuda_graph import CUDAGraphs
from clearstory.models.transformer.presets import MARIAN, T5_SMALL
from tiny import MODELS, TINY_CLEAR, TINY_GPT2, TINY_LSTM, TINY_RECALL, TINY_RECALL_SUBWORDS, VOCAB, shaken

SMALL: Any = {
    "vocab": VOCAB, "context": 24, "width": 16, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 4,
    "intermediate_size": 24, "decoder_start_token_id": 0,
}  # fmt: skip
CONFIGS = {
    "learned": TINY_GPT2,
    "rotary": TINY_CLEAR,
    "grouped": replace(TINY_CLEAR, kv_heads=2, attention_scale=0.3, rope_factor=4.0, rope_original_context=12),
    "windowed": replace(TINY_CLEAR, context=40, sliding_window=5),
    "windowed, long": replace(TINY_CLEAR, context=70, kv_heads=1, sliding_window=19),
    "recalling": TINY_RECALL,
    "recalling subwords": TINY_RECALL_SUBWORDS,
    "local and global": replace(
        TINY_CLEAR, context=40, sliding_window=5, global_interval=2, local_rope_theta=100.0, sandwich_norm=True
    ),
    "relative": replace(TINY_GPT2, positions="relative_bias", attention_scale=1.0, heads=4, kv_heads=2, head_dim=4),
    "sinusoidal": replace(TINY_GPT2, positions="sinusoidal", norm_first=False, embed_scale=True, embed_norm=True),
    "no positions": replace(TINY_GPT2, positions="none", tie_embeddings=False, gated=True, activation="silu"),
    "t5": replace(T5_SMALL, **SMALL),
    "marian": replace(MARIAN, **SMALL),
}
PROMPTS = [[3, 1, 4, 1], [5], [9, 2, 6, 5, 3, 5, 8, 9, 7]]
SOURCES = [[7, 8, 9], [4] * 20, [11]]


@pytest.fixture(scope="module", params=CONFIGS)
def model(request: pytest.FixtureRequest) -> Any:
    return shaken(CONFIGS[request.param]).requires_grad_(False)


def prefilled(model: Any, rows: list[int]) -> Any:
    """The cache of each sequence after these prompts."""
    start = initial_state(model, len(rows), [SOURCES[row] for row in rows], torch.device("cpu"))
    return model.forward(TokenBatch.from_sequences([PROMPTS[row] for row in rows]), start)[1]


def assert_steps_equal(model: Any, decoder: BatchedDecoder, steps: int = 15) -> None:
    """Steps of the decoder equal those over separate caches, while sequences leave and join."""
    state = prefilled(model, [0, 1, 2])
    decoder.add(state)
    for step in range(steps):
        if step == 3:  # one leaves
            decoder.select([0, 2])
            state = state.select([0, 2])
        if step == 6:  # two join, one in its slot
            joining = prefilled(model, [1, 0])
            decoder.add(joining)
            state = type(state).join([state, joining])
        if step == 9:  # three leave, and the last moves to the first slot
            decoder.select([3])
            state = state.select([3])
        ids = [(7 * step + 5 * row) % VOCAB for row in range(len(state.lengths))]
        hidden, state = model.forward(TokenBatch(torch.tensor(ids)[:, None]), state)
        found = decoder.step(ids)
        assert decoder.lengths == state.lengths
        assert_close(model.logits(found), model.logits(hidden[:, 0]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("capacity", [3, 256])
def test_a_step_equals_steps_over_separate_caches(model: Any, capacity: int) -> None:
    assert_steps_equal(model, BatchedDecoder(model, capacity))


def test_a_window_slides_over_a_ring() -> None:
    model = shaken(CONFIGS["windowed, long"]).requires_grad_(False)
    decoder = BatchedDecoder(model, 4)
    assert_steps_equal(model, decoder, 60)
    assert decoder.cache.capacity == 32  # a multiple of 16; 64 tokens were processed


class Recorder(TorchDispatchMode):
    """Operations and their arguments, recorded while they are computed: what a CUDA graph holds, on a CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        out = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, out))
        return out


class RecordedOperations:
    """A computation that repeats the recorded operations; numbers that are no tensors are those of the recording."""

    def __init__(self, compute: Callable[[], Tensor], device: torch.device, other: Any) -> None:
        with Recorder() as recorder:
            self.result = compute()
        self.operations = recorder.operations

    def __call__(self) -> Tensor:
        made: dict[int, Any] = {}

        def current(each: Any) -> Any:
            return made.get(id(each), each) if isinstance(each, Tensor) else each

        for func, args, kwargs, out in self.operations:
            again = func(*tree_map(current, args), **tree_map(current, kwargs))
            before, after = (each if isinstance(each, list | tuple) else (each,) for each in (out, again))
            made |= {id(old): new for old, new in zip(before, after, strict=True) if isinstance(old, Tensor)}
        result: Tensor = made[id(self.result)]
        return result


def test_a_recorded_step_equals_an_eager_one(model: Any) -> None:
    record: Any = RecordedOperations
    graphs = CUDAGraphs(torch.device("cpu"), record)
    decoder = BatchedDecoder(model, 256, graphs)
    assert_steps_equal(model, decoder, 20)
    assert graphs.eager_reason is None
    assert sorted(graphs.graphs) == [1, 2, 4]  # by the number of rows


def test_larger_storage_is_recorded_anew() -> None:
    model = shaken(TINY_CLEAR).requires_grad_(False)
    record: Any = RecordedOperations
    graphs = CUDAGraphs(torch.device("cpu"), record)
    assert_steps_equal(model, BatchedDecoder(model, 12, graphs))
    assert graphs.graphs


def test_where_recording_fails_steps_are_eager_and_the_reason_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model = shaken(TINY_CLEAR).requires_grad_(False)
    record: Any = RecordedOperations
    graphs = CUDAGraphs(torch.device("cpu"), record)
    compute = BatchedDecoder.compute

    def waiting(self: BatchedDecoder, rows: int) -> Tensor:
        int(self.inputs[0, 0])
        return compute(self, rows)

    monkeypatch.setattr(BatchedDecoder, "compute", waiting)
    assert_steps_equal(model, BatchedDecoder(model, 256, graphs))
    assert graphs.eager_reason == "operation not permitted when stream is capturing"
    assert not graphs.graphs


@pytest.mark.parametrize("name", CONFIGS)
def test_all_tensors_of_a_step_are_on_the_models_device(name: str) -> None:
    model: Any = build(CONFIGS[name], seed=1).to("meta")
    decoder = BatchedDecoder(model, 4)
    with inference_mode(model):
        decoder.add(prefilled(build(CONFIGS[name], seed=1), [0, 1, 2]).select([0, 1, 2]))
    assert decoder.cache.data.device.type == "cpu"  # where the prompts were processed
    decoder.cache.data = decoder.cache.data.to("meta")
    decoder.sources.data = decoder.sources.data.to("meta")
    used: set[str] = set()

    class Devices(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            used.update(each.device.type for each in (*args, out) if isinstance(each, Tensor))
            return out

    with inference_mode(model), Devices():
        assert decoder.compute(4).device.type == "meta"
    assert used == {"meta"}


def answers(engine: Engine, requests: list[Any]) -> dict[int, list[Token]]:
    """The tokens of requests that arrive one at a time, while others are running."""
    late, found = list(requests), dict[int, list[Token]]()
    while late or engine.has_unfinished:
        if late:
            prompt, sampling, source = late.pop(0)
            found[engine.add(prompt, sampling, source=source)] = []
        for output in engine.next_tokens():
            found[output.request].append(output.token)
    return found


def test_an_engine_generates_the_same_tokens_in_either_batch(model: Any) -> None:
    reads_source = "encoder-decoder" in model.config.architecture
    settings = [
        Sampling(max_tokens=45, temperature=0),  # longer than the context
        Sampling(max_tokens=9, temperature=0.9, seed=1),
        Sampling(max_tokens=12, top_p=0.8, seed=2),
        Sampling(max_tokens=1, top_k=4, seed=3),
        Sampling(max_tokens=20, min_p=0.1, repetition_penalty=1.2, seed=4),
    ]
    requests = [
        ([0] if reads_source else PROMPTS[index % 3], sampling, SOURCES[index % 3] if reads_source else None)
        for index, sampling in enumerate(settings)
    ]
    for limit in (3, 64):
        engines = [Engine(model, max_running=limit, _batched=batched) for batched in (False, True)]
        assert [type(engine.batch) for engine in engines] == [StateBatch, CacheBatch]
        separate, batched = (answers(engine, requests) for engine in engines)
        assert separate.keys() == batched.keys()
        for number, tokens in separate.items():
            assert [token.id for token in batched[number]] == [token.id for token in tokens]
            assert_close(
                [token.logprob for token in batched[number]], [token.logprob for token in tokens], rtol=1e-9, atol=1e-9
            )


def test_a_cancelled_request_leaves_its_slot() -> None:
    engine = Engine(shaken(TINY_CLEAR), _batched=True)
    numbers = [engine.add(prompt, Sampling(max_tokens=8, temperature=0)) for prompt in PROMPTS]
    engine.next_tokens()
    engine.cancel(numbers[0])
    late = engine.add([1, 2], Sampling(max_tokens=8, temperature=0))
    assert {output.request for output in engine.next_tokens()} == {*numbers[1:], late}
    engine.next_tokens()
    assert isinstance(engine.batch, CacheBatch)
    assert sorted(each.slot for each in engine.batch.decoder.sequences) == [0, 1, 2]


def test_on_a_cpu_an_engine_keeps_a_state() -> None:
    assert isinstance(Engine(MODELS["clear"]()).batch, StateBatch)


def test_other_models_and_models_with_hooks_keep_a_state() -> None:
    assert isinstance(Engine(shaken(TINY_LSTM), _batched=True).batch, StateBatch)
    model = build(TINY_CLEAR)
    assert can_batch(model)
    model.blocks[0].feed_forward.register_forward_hook(lambda *_: None)
    assert not can_batch(model)


def test_what_no_sequence_can_read_is_refused() -> None:
    model = shaken(TINY_CLEAR).requires_grad_(False)
    decoder = BatchedDecoder(model)
    decoder.add(prefilled(model, [0]))
    with pytest.raises(VocabularyMismatch):
        decoder.step([VOCAB])
    for _ in range(20):
        decoder.step([1])
    with pytest.raises(ContextOverflow):
        decoder.step([1])
    assert decoder.lengths == [24]


def test_capacities_double_and_then_grow_by_a_constant() -> None:
    cache, capacities = BatchedKVCache(5000, 256), []
    for length in range(1, 5001, 100):
        cache.reserve(1, length, torch.zeros(1, 2, 1, 0, 1))
        capacities.append(cache.capacity)
    assert list(dict.fromkeys(capacities)) == [256, 512, 1024, 2048, 3072, 4096, 5008]
    assert MAX_GROWTH == 1024


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_narrow_weights_decode(dtype: torch.dtype) -> None:
    model: Any = build(CONFIGS["grouped"], seed=1).to(dtype).eval().requires_grad_(False)
    decoder = BatchedDecoder(model)
    state = prefilled(model, [0, 1])
    decoder.add(state)
    hidden, _ = model.forward(TokenBatch(torch.tensor([[1], [2]])), state)
    found = decoder.step([1, 2])
    assert found.dtype == dtype
    atol = 1e-5 if dtype == torch.float32 else 0.05
    assert_close(model.logits(found), model.logits(hidden[:, 0]), rtol=0, atol=atol)
