"""Pairs: tsv, jsonl with two fields, two line-aligned files; split by their sources."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from clearstory.errors import BadInput, BadSetting
from clearstory.generation.stream_decoder import StreamDecoder
from clearstory.recipes.data import data as data_report
from clearstory.text.corpus import Corpus
from clearstory.text.documents import is_parallel, read_documents
from clearstory.text.read_notes import ReadNotes
from clearstory.text.sentinels import SentinelTokenizer, sentinels, with_sentinels
from clearstory.text.settings import DataSettings
from clearstory.text.train_tokenizer import train_tokenizer

PAIRED = DataSettings(pairs=True)


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def texts(*files: Path, settings: DataSettings = PAIRED) -> list[str]:
    return [document.text for document in read_documents(files, settings)]


def test_every_format_gives_the_same_pairs(tmp_path: Path) -> None:
    wanted = ["a b", "c", "d", "é ü"]
    # A third column, a blank line, a carriage return: common in real files.
    assert texts(write(tmp_path, "p.tsv", "a b\tc\tattribution\n\nd\té ü\r\n")) == wanted
    rows = [{"source": "a b", "target": "c", "text": "x"}, {"target": "é ü", "source": "d"}]
    assert texts(write(tmp_path, "p.jsonl", "\n".join(map(json.dumps, rows)))) == wanted
    assert texts(write(tmp_path, "p.en", "a b\nd\n\n"), write(tmp_path, "p.de", "c\né ü\n\n")) == wanted
    (tmp_path / "p.tsv.gz").write_bytes(gzip.compress((tmp_path / "p.tsv").read_bytes()))
    assert texts(tmp_path / "p.tsv.gz") == wanted


def test_fields_have_the_configured_names(tmp_path: Path) -> None:
    file = write(tmp_path, "p.jsonl", json.dumps({"en": "a", "de": "b"}))
    assert texts(file, settings=DataSettings(pairs=True, source_field="de", target_field="en")) == ["b", "a"]
    assert texts(file) == ["a", "b"]  # two languages, in their order
    other = write(tmp_path, "q.jsonl", json.dumps({"left": "a", "right": "b"}))
    with pytest.raises(BadInput, match=r"no field 'source', only 'left', 'right'; choose one with --data.source_field"):
        texts(other)
    with pytest.raises(BadInput, match=r"no field 'fr', only 'en', 'de'; .*--data.target_field"):
        texts(file, settings=DataSettings(pairs=True, target_field="fr"))
    with pytest.raises(BadSetting, match="are both 'text'; give two fields"):
        DataSettings(source_field="text", target_field="text")


@pytest.mark.parametrize("names", [("src", "tgt"), ("article", "highlights"), ("document", "summary"), ("en", "pt_BR")])
def test_usual_names_of_columns_are_known(names: tuple[str, str], tmp_path: Path) -> None:
    first, second = names
    table = f"id,{second},{first}\n1,c,a b\n2,é,d\n"
    languages = second.startswith("pt")  # their order is that of the columns
    wanted = ["c", "a b", "é", "d"] if languages else ["a b", "c", "d", "é"]
    assert texts(write(tmp_path, "p.csv", table)) == wanted
    assert texts(write(tmp_path, "p.tsv", table.replace(",", "\t"))) == wanted
    rows = [{"id": 1, first: "a b", second: "c"}, {"id": 2, first: "d", second: "é"}]
    assert texts(write(tmp_path, "p.json", json.dumps({"data": rows}))) == ["a b", "c", "d", "é"]
    nested = [{"translation": {first: row[first], second: row[second]}} for row in rows]
    if languages:
        assert texts(write(tmp_path, "p.jsonl", "\n".join(map(json.dumps, nested)))) == ["a b", "c", "d", "é"]
    reverse = DataSettings(pairs=True, source_field="2", target_field="1")
    assert texts(write(tmp_path, "q.tsv", "c\ta b\né\td\n"), settings=reverse) == ["a b", "c", "d", "é"]


TMX = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="{srclang}" adminlang="en" segtype="sentence"/><body>
<tu tuid="1"><prop type="x">no text</prop><tuv xml:lang="en-US"><seg>a <bpt i="1">&lt;b&gt;</bpt>b<ept i="1"/></seg>
</tuv><tuv xml:lang="de"><seg>c</seg></tuv></tu>
<tu><tuv xml:lang="en-US"><seg>only <hi>one</hi></seg></tuv></tu>
<tu><tuv xml:lang="de"><seg>é ü</seg></tuv><tuv xml:lang="en-US"><seg>d &amp;
 e</seg></tuv></tu>
</body></tmx>"""


def test_translation_memories_are_read(tmp_path: Path) -> None:
    notes = ReadNotes()
    file = write(tmp_path, "m.tmx", TMX.format(srclang="en"))
    assert [each.text for each in read_documents([file], PAIRED, notes)] == ["a b", "c", "d & e", "é ü"]
    assert notes.text == "1 unit lacks a source or a target in m.tmx, not read"
    assert texts(file, settings=DataSettings()) == texts(file)  # never the markup
    german = write(tmp_path, "de.tmx", TMX.format(srclang="de"))
    assert texts(german) == ["c", "a b", "é ü", "d & e"]
    assert texts(file, settings=DataSettings(pairs=True, source_field="de"))[:2] == ["c", "a b"]
    assert is_parallel([file], DataSettings())
    xliff = (
        '<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2"><file source-language="en"><body>'
        '<trans-unit id="1"><source>a <g id="1">b</g></source><target>c<ph id="2">code</ph></target></trans-unit>'
        '<trans-unit id="2"><source>left</source></trans-unit></body></file></xliff>'
    )
    assert texts(write(tmp_path, "m.xlf", xliff)) == ["a b", "c"]
    second = (
        '<xliff version="2.0" xmlns="urn:oasis:names:tc:xliff:document:2.0" srcLang="en" trgLang="de"><file id="f">'
        '<unit id="1"><segment><source>a <pc id="1">b</pc></source><target>c</target></segment>'
        "<segment><source>d</source><target>é</target></segment></unit></file></xliff>"
    )
    assert texts(write(tmp_path, "n.xliff", second)) == ["a b", "c", "d", "é"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TMX.format(srclang="en").replace("</tmx>", ""), r"m.tmx, line 9 is not XML \(no element found\)"),
        (TMX.replace("</seg>\n</tuv>", "</seg></tuv><tuv xml:lang=\"fr\"><seg>x</seg>\n</tuv>"),
         r"m.tmx, line 4 has the languages en-US, fr, de; name the two"),
        ('<!DOCTYPE tmx [<!ENTITY a "aa">]><tmx>&a;</tmx>', "line 1 declares the entity 'a'; entities are"),
    ],
)  # fmt: skip
def test_damaged_and_ambiguous_memories_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        texts(write(tmp_path, "m.tmx", text))


def test_pairs_are_recognized_by_suffix_and_fields(tmp_path: Path) -> None:
    tsv, text = write(tmp_path, "p.tsv", "a\tb\n"), write(tmp_path, "p.txt", "a\tb\n")
    both = write(tmp_path, "both.jsonl", json.dumps({"source": "a", "target": "b"}))
    other = write(tmp_path, "text.jsonl", json.dumps({"text": "a"}))
    known = [is_parallel(files, DataSettings()) for files in ([tsv], [both], [tsv, both], [text], [other], [tsv, text])]
    assert known == [True, True, True, False, False, False]
    assert not is_parallel(["corpus:python-docs"], DataSettings())


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train.en", "train.de"), True),
        (("test_2016.de.txt", "test_2016.pt-BR.txt"), True),
        (("en.txt", "de.txt"), True),
        (("train.tgt", "train.src"), True),
        (("article.txt", "summary.txt"), True),
        (("train.en", "dev.de"), False),
        (("part1.txt", "part2.txt"), False),
        (("a.py", "a.js"), False),
        (("page.en.html", "page.de.html"), False),
        (("train.en", "train.en"), False),
    ],
)
def test_two_text_files_are_pairs_by_their_names(names: tuple[str, str], expected: bool, tmp_path: Path) -> None:
    files = [write(tmp_path, name, "one\ntwo\n") for name in names]
    assert is_parallel(files, DataSettings()) is expected
    assert not is_parallel(files, DataSettings(), by_name=False)
    assert not is_parallel([tmp_path / "*.*"], DataSettings())  # their order is not that of the command


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.tsv": "one\n"}, r"a.tsv, line 1 has no tab"),
        ({"a.tsv": "one\tx\ntwo\t \n"}, r"a.tsv, line 2 has no target"),
        ({"a.tsv": "\tx\n"}, "line 1 has no source"),
        ({"a.tsv": "\n\n"}, "is empty"),
        ({"a.en": "one\ntwo\n", "a.de": "eins\n"}, r"a.en has 2 lines and .*a.de has 1; line-aligned"),
        ({"a.en": "one\n", "a.de": "eins\n\n\n"}, r"a.en has 1 line and .*a.de has 3; line-aligned"),
        ({"a.en": "one\n"}, "1 text files are not pairs"),
        ({"a.en": "one\n\n", "b.de": "eins\nzwei\n"}, r"line 2 of .* has no source"),
        ({"a.tsv": "a\tb\n", "b.txt": "c\n"}, "b.txt has no pairs, unlike the other files"),
        ({"a.jsonl": "[1]"}, "line 1 is not a JSON object"),
        ({"a.jsonl": '{"source": ["a", 1], "target": "b"}'}, "'source' is a list with int in it, not text"),
        ({"a.jsonl": '{"source": [], "target": "b"}'}, "'source' is list, not text"),
        ({"a.jsonl": '{"source": "a"'}, "line 1 is not JSON"),
    ],
)
def test_incomplete_pairs_are_located(files: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        texts(*(write(tmp_path, name, text) for name, text in files.items()))


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ([f"{n % 2}\tA sentence, number {n}." for n in range(19)], r"the first column has only numbers \(0, 1\)"),
        (["label\tsentence", *(f"{n % 2}\tSentence {n}." for n in range(19))], r"the first column has only numbers"),
        ([f"Sentence {n}\t{n % 3},{n % 5}\tid{n}" for n in range(30)], r"the second column has only numbers"),
        ([f"Sentence {n}.\t{('good', 'bad')[n % 2]}" for n in range(40)], r"2 short values \(bad, good\)"),
        (
            ["text\tlabel", *(f"Sentence {n}\tkind {n}" for n in range(5))],
            "the second column has labels, by its header",
        ),
        ([f"{n}\tverse {n}\t1" for n in range(30)], r"the first column has only numbers \(0, 1, 10, 11, …\)"),
    ],
)
def test_labels_are_not_taken_for_pairs_unless_that_is_said(rows: list[str], kind: str, tmp_path: Path) -> None:
    file = write(tmp_path, "labels.tsv", "\n".join(rows))
    with pytest.raises(BadInput, match=f"labels.tsv has labels, not pairs of texts: .*{kind}.*--data.pairs"):
        is_parallel([file], DataSettings())
    assert is_parallel([file], PAIRED)
    assert len(texts(file)) == 2 * len(rows)


def test_a_translation_memory_is_counted_in_pairs(tmp_path: Path) -> None:
    file = write(tmp_path, "m.tmx", TMX.format(srclang="en"))
    counted = data_report(str(file))
    assert (counted.documents, counted.unit) == (2, "pair")
    assert data_report(str(file), data={"lines": True}).unit == "document"
    other = data_report(str(write(tmp_path, "p.tsv", "a\tb\nc\td\ne\tf\n")), data={"pairs": True})
    assert (other.documents, other.unit) == (3, "pair")


def test_short_and_repeated_texts_are_pairs(tmp_path: Path) -> None:
    rows = [f"Hello {n}!\t{('Hallo!', 'Guten Tag!', 'Servus!')[n % 3]} {n % 7}" for n in range(60)]
    assert is_parallel([write(tmp_path, "p.tsv", "\n".join(rows))], DataSettings())
    assert is_parallel([write(tmp_path, "q.tsv", "one\t1\ntwo\tzwei\n")], DataSettings())
    assert is_parallel([write(tmp_path, "r.tsv", "label\tEtikett\nclass\tKlasse\n")], DataSettings())


def test_lists_of_sentences_are_joined_and_each_reference_is_a_pair(tmp_path: Path) -> None:
    rows = [
        {"source": ["One sentence.", " Another. "], "target": ["first", "second"]},
        {"source": "Plain.", "target": ["only"]},
    ]
    notes = ReadNotes()
    file = write(tmp_path, "p.jsonl", "\n".join(map(json.dumps, rows)))
    found = [document.text for document in read_documents([file], PAIRED, notes)]
    assert found == ["One sentence. Another.", "first", "One sentence. Another.", "second", "Plain.", "only"]
    assert notes.text == "p.jsonl has 3 references for 2 sources; each reference makes a pair"
    assert is_parallel([file], DataSettings())


def test_abstracts_and_their_summaries_are_read(data: Path) -> None:
    file = data / "scitldr" / "dev.jsonl.gz"
    corpus = Corpus.open(file, PAIRED)
    records = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    assert corpus.size == 2 * sum(len(record["target"]) for record in records)
    first = next(iter(read_documents([file], PAIRED))).text
    assert first == " ".join(sentence.strip() for sentence in records[0]["source"])


def test_a_built_in_corpus_has_no_pairs() -> None:
    with pytest.raises(BadInput, match="corpus:python-docs has no pairs"):
        list(read_documents(["corpus:python-docs"], PAIRED))


def test_no_source_is_in_both_splits_and_every_pair_in_one(tmp_path: Path) -> None:
    lines = [f"source {n % 300}\ttarget {n}\n" for n in range(900)]  # every source thrice
    file = write(tmp_path, "p.tsv", "".join(lines))
    corpus = Corpus.open(file, DataSettings(pairs=True, validation=0.1, cache=tmp_path / "cache"))
    sides = {split: [document.text for document in corpus.documents(split)] for split in ("train", "validation")}
    sources = {split: set(found[::2]) for split, found in sides.items()}
    assert not sources["train"] & sources["validation"]
    assert len(sides["train"]) + len(sides["validation"]) == corpus.size == 1800
    assert 0.03 < len(sides["validation"]) / 1800 < 0.25
    pairs = {tuple(found[i : i + 2]) for found in sides.values() for i in range(0, len(found), 2)}
    assert pairs == {tuple(line.strip().split("\t")) for line in lines}

    tokenizer = train_tokenizer("bytes", [])
    held_out = corpus.encode(tokenizer)["validation"]
    assert held_out.documents == len(sides["validation"])
    # Source and target each end with the token that ends texts.
    first = held_out.ids[held_out.starts[0] : held_out.starts[1]].tolist()
    assert first == [*tokenizer.encode(sides["validation"][0]), tokenizer.eos_token_id]
    # The same text as running text is another corpus, with a cache of its own.
    text = write(tmp_path, "p.txt", "".join(lines))
    plain = Corpus.open(text, DataSettings(validation=0.1, cache=tmp_path / "cache"))
    assert plain.size == 1
    assert not np.array_equal(plain.encode(tokenizer)["validation"].ids, held_out.ids)


@pytest.mark.parametrize("spec", ["characters", "bytes", "bpe:300", "wordpiece:60"])
def test_no_text_encodes_to_sentinels(spec: str) -> None:
    text = "a <extra_id_7> b"
    plain = train_tokenizer(spec, [text * 9])
    known = with_sentinels(plain)
    ids = sentinels(known)
    assert sentinels(plain) == ()
    assert len(set(ids)) == 100
    assert with_sentinels(known) is known
    assert known.vocab == plain.vocab + 100
    # Text that spells one is text; and nothing else has changed.
    assert known.encode(text) == plain.encode(text)
    assert not set(known.encode(text)) & set(ids)
    assert known.decode([ids[3], *known.encode("a b")]) == plain.decode(plain.encode("a b"))
    assert known.byte_lengths[list(ids)].sum() == 0
    # A source may contain them at the positions to fill in.
    assert SentinelTokenizer(known).encode("a <extra_id_1>") == [*known.encode("a "), ids[1]]
    assert SentinelTokenizer(known).encode("<extra_id_100>") == known.encode("<extra_id_100>")
    assert SentinelTokenizer(plain).encode(text) == plain.encode(text)
    assert (known.eos_token_id, known.pad_token_id) == (plain.eos_token_id, plain.pad_token_id)


@pytest.mark.parametrize("spec", ["characters", "bytes", "bpe:300", "unigram:300"])
def test_sentinels_decode_to_their_text(spec: str) -> None:
    text = "<extra_id_0> né <extra_id_7><extra_id_7>b a<extra_id_99>"
    known = with_sentinels(train_tokenizer(spec, ["a b né " * 9]))
    gaps = SentinelTokenizer(known)
    ids, spans = gaps.encode_with_offsets(text)
    assert gaps.decode([*ids, known.pad_token_id or known.eos_token_id]) == text
    assert [text[start:stop] for start, stop in spans if "extra" in text[start:stop]] == [
        "<extra_id_0>", "<extra_id_7>", "<extra_id_7>", "<extra_id_99>",
    ]  # fmt: skip
    assert gaps.source(text) == [*ids, known.eos_token_id]
    # Piece by piece the same, a character cut in two included.
    decoder = StreamDecoder(gaps)
    assert "".join([*map(decoder.push, ids), decoder.flush()]) == text
    decoder = StreamDecoder(gaps, stop=("<extra_id_7>",))
    assert "".join([*map(decoder.push, ids), decoder.flush()]) == text.split("<extra_id_7>")[0]
