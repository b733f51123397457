"""ARPA: write then read is the identity; files of other tools give their probabilities; errors name the line."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from clearstory import durable
from clearstory.errors import BadInput, BadSetting, CannotDo, ClearstoryError, CorruptFile, FolderExists
from clearstory.formats.arpa.read import read_arpa
from clearstory.formats.arpa.write import write_arpa
from clearstory.formats.folders import open_model, save_model
from clearstory.formats.model_card import ModelCard
from clearstory.models.base import TokenBatch
from clearstory.models.build import build
from clearstory.models.ngram.config import NGramConfig
from clearstory.recipes.conversion.convert import convert
from clearstory.recipes.inference.evaluate import evaluate
from clearstory.recipes.inference.generate import generate
from clearstory.text.token_dataset import encode_text
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.text.word_tokenizer import word_level_json
from tiny import TINY_GPT2, counted, shaken

# As written by SRILM: comments first, log10 to seven digits, backoff weights only where needed.
SMALL = """a remark

\\data\\
ngram  1 =5
ngram 2=4
ngram 3=1

\\1-grams:
-1.5\t<unk>
-99\t<s>\t-0.25
-0.6\t</s>
-0.4\ta\t-0.5
-0.7\tb\t-0.125

\\2-grams:
-0.2\t<s> a\t-0.3
-0.3\ta b
-0.1\tb </s>
-0.9\ta </s>

\\3-grams:
-0.05\t<s> a b

\\end\\
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "small.arpa"
    file.write_text(text, encoding="utf-8")
    return file


def nats(opened: Any, sentence: str) -> list[float]:
    """log10 P of each word of a line, and of its end."""
    ids = opened.tokenizer.encode(sentence + "\n")
    found, _ = opened.model.token_nll(
        TokenBatch(torch.tensor([[opened.tokenizer.eos_token_id, *ids[:-1]]])), torch.tensor([ids])
    )
    return [-each / math.log(10) for each in found[0].tolist()]


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_of_another_tool_gives_its_probabilities(tmp_path: Path, packed: bool) -> None:
    file = written(tmp_path, SMALL)
    if packed:
        file = tmp_path / "small.arpa.gz"
        file.write_bytes(gzip.compress(SMALL.encode()))
    opened = open_model(file)
    assert opened.model.config == NGramConfig(
        vocab=4, order=3, smoothing="given", bos_token_id=1, counts=False, sizes=(4, 1)
    )
    # <s> a: a bigram. <s> a b: a trigram. a b </s>: no trigram, and "a b" has no back-off; b </s> is a bigram.
    assert nats(opened, "a b") == pytest.approx([-0.2, -0.05, -0.1], abs=1e-6)
    # <s> b: none; the back-off of <s>, then b. b a: that of b, then a. a a: that of a, and so on.
    assert nats(opened, "b a a") == pytest.approx([-0.25 - 0.7, -0.125 - 0.4, -0.5 - 0.4, -0.9], abs=1e-6)
    # An unknown word; what follows it has no context.
    assert nats(opened, "z b") == pytest.approx([-0.25 - 1.5, -0.7, -0.1], abs=1e-6)
    # After "<s> a" the back-off of the bigram and that of a.
    assert nats(opened, "a a")[1] == pytest.approx(-0.3 - 0.5 - 0.4, abs=1e-6)


def test_without_an_unknown_word_its_log_probability_is_minus_100(tmp_path: Path) -> None:
    text = SMALL.replace("-1.5\t<unk>\n", "").replace("ngram  1 =5", "ngram 1=4")
    assert nats(open_model(written(tmp_path, text)), "z")[0] == pytest.approx(-0.25 - 100, abs=1e-4)


def test_unreachable_ngrams_are_dropped(tmp_path: Path) -> None:
    text = SMALL.replace("ngram 2=4", "ngram 2=6").replace("-0.9\ta </s>\n", "-0.9\ta </s>\n-2\ta <s>\n-2\t</s> a\n")
    assert open_model(written(tmp_path, text)).model.config.sizes == (4, 1)


def test_a_model_without_sentence_tokens_is_written_with_both(tmp_path: Path) -> None:
    file = tmp_path / "a.arpa"
    write_arpa(file, counted(order=2), None)
    assert "\n-99\t<s>\n-99\t</s>\n" in file.read_text(encoding="utf-8")
    opened = open_model(file)
    assert opened.model.vocab == counted(order=2).vocab + 2  # and the unknown word


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("\\data\\", "data", r"line 24: the file ends without"),
        ("ngram 2=4", "ngram 3=4", r"line 5: the number of 2-grams is expected here, not 'ngram 3=4'"),
        ("ngram 2=4", "ngram 2=many", "line 5: the number of 2-grams is expected here"),
        ("ngram 2=4", "ngram 2=4000000000000", "line 5: 'ngram 2=4000000000000' is above the maximum"),
        ("ngram 2=4", "ngram 2=5", r"line 20: the 2-grams end after 4, but \\data\\ announces 5"),
        ("ngram 2=4", "ngram 2=3", r"line 19: .3-grams: is expected here, not '-0.9"),
        ("ngram 3=1", "", "line 16: a 2-gram has a backoff weight, but there are no 3-grams: the file is truncated"),
        ("\\2-grams:", "\\4-grams:", r"line 15: .2-grams: is expected here"),
        ("-0.3\ta b", "-0.3\ta c", "line 17: the word 'c' is not among the 1-grams"),
        ("-0.3\ta b", "0.3\ta b", "line 17: a log probability is '0.3'; it must not be above 0"),
        ("-0.3\ta b", "nan\ta b", "line 17: 'nan' is not a finite number"),
        ("-0.3\ta b", "inf\ta b", "line 17: 'inf' is not a finite number"),
        ("-0.4\ta\t-0.5", "-0.4\ta\t-inf", "line 12: '-inf' is not a finite number"),
        ("-0.05\t<s> a b", "-0.05\t<s> a b\t-0.1", "line 22: a 3-gram has a backoff weight, but there are no 4-grams"),
        ("-0.6\t</s>", "-0.6\tc", "line 13: the 1-grams have no </s>"),
        ("-99\t<s>", "-99\tc", "line 13: the 1-grams have no <s>"),
        ("\\end\\\n", "\\end\\\n\nmore", r"line 26: the file continues after .end., with 'more'"),
        ("-0.3\ta b", "x\ta b", "line 17: 'x' is not a finite number"),
        ("-0.4\ta\t-0.5", "-0.4\ta\tnan", "line 12: 'nan' is not a finite number"),
        ("-0.3\ta b", "-0.3\ta", "line 17: a 2-gram must be a number, 2 words and optionally a number: '-0.3 a'"),
        ("-0.3\ta b", "-0.3\ta b -1 -1", "line 17: a 2-gram must be a number, 2 words"),
        ("-0.9\ta </s>", "-0.9\ta b", "line 19: the same 2-gram occurs in line 17 already"),
        ("-0.7\tb\t", "-0.7\ta\t", "line 13: the word 'a' occurs in line 12 already"),
        ("<s> a b", "b a b", "line 22: its context 'b a' is not among the 2-grams"),
        ("\\end\\", "", "line 24: .end. is expected here, not the end of the file"),
        ("-0.7\tb", "-0.7\tb\udcff", "line 13: the word .* is not UTF-8"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, before: str, after: str, says: str) -> None:
    file = tmp_path / "small.arpa"
    assert SMALL.count(before) == 1
    file.write_bytes(SMALL.replace(before, after).encode("utf-8", "surrogateescape"))
    with pytest.raises(CorruptFile, match=says):
        read_arpa(file)


def test_a_truncated_file_is_rejected(tmp_path: Path) -> None:
    whole = gzip.compress(SMALL.encode())
    for size in range(0, len(SMALL) - 2, 7):
        with pytest.raises(CorruptFile):
            read_arpa(written(tmp_path, SMALL[:size]))
    for size in (5, 30, len(whole) - 3):
        (tmp_path / "small.arpa.gz").write_bytes(whole[:size])
        with pytest.raises(CorruptFile):
            read_arpa(tmp_path / "small.arpa.gz")


@pytest.mark.parametrize(
    ("kind", "smoothing"),
    [("words", "kneser-ney"), ("characters", "witten-bell"), ("bytes", "katz"), ("wordpiece:60", "kneser-ney")],
)
def test_write_then_read_is_the_identity(tmp_path: Path, kind: str, smoothing: Any) -> None:
    text = "a rose is a rose.\nis a rose a rose?\n\nno: a_b ␣ <s> </s> rose\n" * 3
    tokenizer = train_tokenizer(kind, [text])
    begin = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    model: Any = build(NGramConfig(vocab=tokenizer.vocab, order=4, smoothing=smoothing, bos_token_id=begin))
    assert list(model.fit(encode_text(tokenizer, [text, "rose is"])))
    folder = save_model(tmp_path / "model", model, tokenizer, ModelCard())
    for name in ("a.arpa", "b.arpa.gz"):
        found = convert(folder, tmp_path / name)
        assert (found.format, found.tokens_compared > 100, found.max_nats_difference < 2e-6) == ("arpa", True, True)
        assert kind == "words" or "split text only at white space" in str(found.note)
    one, other = tmp_path / "again.arpa", tmp_path / "third.arpa"
    convert(tmp_path / "b.arpa.gz", tmp_path / "folder")
    convert(tmp_path / "folder", one)
    convert(one, other)
    assert one.read_bytes() == other.read_bytes()
    if kind == "words":  # the text's own <s> is a word of the folder, and none that a file of ARPA can have
        ours, theirs = (evaluate(place, texts=["is a rose\n\na rose rose?\n"]) for place in (folder, one))
        assert theirs.score.nats == pytest.approx(ours.score.nats, rel=1e-6)


def test_a_file_is_a_model_like_any_other(tmp_path: Path) -> None:
    import clearstory

    file = written(tmp_path, SMALL)
    assert set(generate(file, "a", max_tokens=20, seed=1, ignore_eos=True).text.split()) <= {"a", "b", "<unk>"}
    assert generate(file, "", max_tokens=5, beam=2).completions
    assert clearstory.inspect(file, "a b", "surprisal").totals  # type: ignore[attr-defined]
    assert evaluate(file, texts=["a b\n"]).score.nats == pytest.approx(0.35 * math.log(10), rel=1e-6)


def test_unsupported_conversions_are_rejected(tmp_path: Path) -> None:
    network = save_model(tmp_path / "network", shaken(TINY_GPT2), None, ModelCard())
    with pytest.raises(CannotDo, match="ARPA can only store n-gram models, and this is a Transformer"):
        convert(network, tmp_path / "a.arpa")
    flat = save_model(tmp_path / "flat", counted(order=2, smoothing="laplace"), None, ModelCard())
    with pytest.raises(CannotDo, match="smoothing 'laplace' has none"):
        convert(flat, tmp_path / "a.arpa")
    assert not (tmp_path / "a.arpa").exists()
    ngram = save_model(tmp_path / "ngram", counted(order=2), None, ModelCard())
    assert convert(ngram, tmp_path / "b.arpa").max_nats_difference < 1e-6
    with pytest.raises(FolderExists, match="--overwrite"):
        convert(ngram, tmp_path / "b.arpa")
    assert convert(ngram, tmp_path / "b.arpa", overwrite=True)
    for out, to in (("c.arpa", "hf"), ("c", "arpa")):
        with pytest.raises(BadSetting, match="change one of them"):
            convert(ngram, tmp_path / out, to)  # type: ignore[arg-type]
    with pytest.raises(BadInput):
        convert(tmp_path / "nowhere.arpa", tmp_path / "d")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.arpa"
    file.write_text("old", encoding="utf-8")

    def fail(label: str, path: Path) -> None:
        if label == "flush":
            raise OSError("the disk is gone")

    durable.hooks.append(fail)
    try:
        with pytest.raises((OSError, ClearstoryError)):
            write_arpa(file, counted(order=2), None)
    finally:
        durable.hooks.remove(fail)
    assert [each.name for each in tmp_path.iterdir()] == ["a.arpa"]
    assert file.read_text(encoding="utf-8") == "old"


def test_kenlm_reads_what_is_written(tmp_path: Path) -> None:
    kenlm = pytest.importorskip("kenlm", reason="KenLM's queries have to be compiled, which not every machine can")
    text = "the cat sat on the mat .\nthe dog sat .\na cat and a dog\n" * 2 + "on the dog sat a mat\n"
    tokenizer = train_tokenizer("words", [text])
    model: Any = build(NGramConfig(vocab=tokenizer.vocab, order=3, bos_token_id=tokenizer.eos_token_id))
    assert list(model.fit(encode_text(tokenizer, [text])))
    file = tmp_path / "a.arpa"
    write_arpa(file, model, tokenizer)
    theirs, ours = kenlm.Model(str(file)), open_model(file)
    for sentence in ("the cat sat", "a dog on the zebra .", "", "mat mat mat a"):
        wanted = [p for p, _, _ in theirs.full_scores(sentence, bos=True, eos=True)]
        assert nats(ours, sentence) == pytest.approx(wanted, abs=1e-5)


def test_a_transformer_is_converted_to_a_folder(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "network", shaken(TINY_GPT2), None, ModelCard())
    found = convert(folder, tmp_path / "copy")
    assert (found.format, found.max_nats_difference) == ("hf", 0.0)
    assert found.tokens_compared == 2 * 8 * 24


def test_a_folder_of_an_older_word_tokenizer_is_converted_with_a_note(tmp_path: Path) -> None:
    parts = json.loads(word_level_json(["<unk>", "<eos>", "a", "<s>", "<UNK>", "b"], "<eos>"))
    parts["pre_tokenizer"] = {"type": "WhitespaceSplit"}
    parts["normalizer"]["normalizers"][0]["pattern"] = {"String": "<eos>"}
    tokenizer = Tokenizer(json.dumps(parts), {"unk_token": "<unk>", "eos_token": "<eos>", "bos_token": None})
    model: Any = build(NGramConfig(vocab=tokenizer.vocab, order=2, bos_token_id=1))
    assert list(model.fit(encode_text(tokenizer, ["a <s> b\n<UNK> a b\nb\u00a0a\n" * 3])))
    found = convert(save_model(tmp_path / "old", model, tokenizer, ModelCard()), tmp_path / "x.arpa")
    assert "non-ASCII white space" in (found.note or "")
    assert "2 words are reserved in ARPA" in (found.note or "")
    ours, theirs = (evaluate(place, texts=["a b\n\nb a"]).score for place in (tmp_path / "old", tmp_path / "x.arpa"))
    assert theirs.nats == pytest.approx(ours.nats, rel=1e-6)
    assert theirs.tokens == ours.tokens
