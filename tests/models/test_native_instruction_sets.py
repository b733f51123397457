"""The kernels compiled for processors without AVX-512 and without AVX2, and by a compiler without OpenMP."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import pytest
import test_decoding_step
import test_encoder_decoder_for_inference as encoder_decoders
import test_encoder_for_inference as encoders
import test_native
import test_top_tokens

from clearstory.models.native import library
from clearstory.models.native.library import VARIABLE, find_kernels

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="these are sets of x86 processors"),
]


@pytest.fixture(scope="module", params=["x86-64", "x86-64-v3", "x86-64-v4"])
def processor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Kernels in use that are compiled for this processor, with threads for the first. They take half a minute."""
    name = str(request.param)
    level, flags = name[6:], library.instruction_sets().split()
    needed = {"": "sse2", "-v3": "avx2", "-v4": "avx512bw"}[level]
    if needed not in flags:
        pytest.skip(f"this processor has no {needed}")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv(VARIABLE, "1")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        monkeypatch.setattr(library, "FLAGS", (f"-march={name}", *library.FLAGS[1:]))
        if level:
            monkeypatch.setattr(library, "OPTIONAL_FLAGS", ((),))
        find_kernels.cache_clear()
        found = find_kernels("1")
        if found.library is None:
            pytest.skip(f"no compiled kernels: {found.note}")
        assert found.has_threads == (not level)
        yield name
    find_kernels.cache_clear()


@pytest.mark.parametrize("kind", test_native.CASES)
def test_products(kind: str, processor: str) -> None:
    for outs, ins in test_native.SHAPES:
        test_native.test_products_are_those_of_float64(kind, outs, ins)
    test_native.test_a_row_does_not_depend_on_the_others(kind)
    for number in (float("nan"), float("inf"), -float("inf")):
        test_native.test_what_is_not_finite_stays_in_its_row(kind, number)


def test_sizes_and_files(processor: str) -> None:
    test_native.test_the_largest_integers_do_not_overflow(20_000)
    test_native.test_one_row_and_many_sum_long_rows_of_int8_alike()
    for name in ("Q4_0", "Q4_1", "Q8_0"):
        test_native.test_blocks_of_a_file_are_exactly_its_numbers(name)


def test_steps(processor: str) -> None:
    for name in test_decoding_step.VARIANTS:
        test_decoding_step.test_steps_are_those_of_the_blocks_in_pytorch(name)
    test_decoding_step.test_a_sequence_that_is_not_finite_leaves_the_others_as_they_are()


def test_encoders_and_encoder_decoders(processor: str) -> None:
    for name in encoders.VARIANTS:
        encoders.test_it_computes_what_the_encoder_does(name, None)
    encoders.test_bytes_are_exact_products(None)
    for name in encoder_decoders.VARIANTS:
        encoder_decoders.test_it_computes_what_the_model_does(name, None)
    for precision in ("fp32", "fp16", "int8"):
        encoder_decoders.test_a_sequence_does_not_depend_on_the_others(precision, None)
        test_top_tokens.test_outputs_of_panels_are_compared_as_they_are_computed(precision, 2, None)
    test_top_tokens.test_they_are_those_of_log_softmax(1000, "native")
    test_top_tokens.test_what_is_not_finite("native")
