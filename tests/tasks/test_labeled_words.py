"""Words with tags: columns of CoNLL, comments and document marks, schemes of chunks and their repair, spans."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clearstory.errors import BadInput
from clearstory.tasks.data.chunk_tags import TagRepairs, find_scheme, to_bio
from clearstory.tasks.data.labeled_words import read_labeled_words
from clearstory.tasks.data.settings import LabelSettings


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        "Ada\tB-PER\ncodes\tO\n\t\nRome\tB-LOC\n",  # wnut17 ends sentences with a tab
        "-DOCSTART- -X- O O\n\nAda NNP I-NP B-PER\ncodes VBZ I-VP O\n\nRome NNP I-NP B-LOC\n",  # CoNLL-2003
        "# text = Ada codes\n1\tAda\tB-PER\t-\tme\n2\tcodes\tO\t-\tme\n\n# x\n1\tRome\tB-LOC\t-\tme\n",  # UNER
        "B-PER\tAda\nO\tcodes\n\nB-LOC\tRome\n",  # the tag first
        "# global.columns = ID FORM NER\n1\tAda\tB-PER\n2\tcodes\tO\n\n1\tRome\tB-LOC\n",  # CoNLL-U Plus
    ],
)
def test_columns_of_conll_are_found(tmp_path: Path, text: str) -> None:
    data = read_labeled_words(write(tmp_path, "a.conll", text))
    assert [(each.words, each.tags) for each in data.examples] == [
        (("Ada", "codes"), ("B-PER", "O")),
        (("Rome",), ("B-LOC",)),
    ]
    assert (data.scheme, data.label_names) == ("bio", ("O", "B-LOC", "I-LOC", "B-PER", "I-PER"))


def test_a_number_sign_is_a_word_where_its_line_has_a_tag(tmp_path: Path) -> None:
    data = read_labeled_words(write(tmp_path, "a.conll", "Ada I-PER\n# O\n1 O\n"))
    assert data.examples[0].words == ("Ada", "#", "1")


def test_conllu_gives_upos_or_another_column(tmp_path: Path) -> None:
    row = "1\tAda\tAda\tPROPN\tNNP\t_\t0\troot\t_\tSpaceAfter=No\n2\t.\t.\tPUNCT\t.\t_\t1\tpunct\t_\t_\n"
    path = write(tmp_path, "a.conllu", row)
    data = read_labeled_words(path)
    assert (data.scheme, data.examples[0].tags, data.examples[0].no_space_after) == (
        "",
        ("PROPN", "PUNCT"),
        (True, False),
    )
    assert read_labeled_words(path, LabelSettings(label_column="xpos")).examples[0].tags == ("NNP", ".")
    with pytest.raises(BadInput, match="did you mean 'xpos'"):
        read_labeled_words(path, LabelSettings(label_column="xps"))
    with pytest.raises(BadInput, match="'Ada' has no tag in 'upos'"):
        read_labeled_words(write(tmp_path, "b.conllu", row.replace("PROPN", "_")))


@pytest.mark.parametrize(
    ("tags", "scheme", "bio", "begun"),
    [
        ("B-A I-A O", "BIO", "B-A I-A O", 0),
        ("I-A I-A I-B O", "IO", "B-A I-A B-B O", 2),
        ("I-A B-A I-A O", "IOB1", "B-A B-A I-A O", 1),
        ("B-A E-A S-B O", "BIOES", "B-A I-A B-B O", 0),
        ("B-A I-A L-A U-B", "BILOU", "B-A I-A I-A B-B", 0),
        ("B-A O I-A B-B I-A", "BIO", "B-A O B-A B-B B-A", 2),
        ("B-A E-A I-A", "BIOES", "B-A I-A B-A", 1),
    ],
)
def test_every_scheme_becomes_bio(tags: str, scheme: str, bio: str, begun: int) -> None:
    assert find_scheme([tags.split()]) == scheme
    repairs = TagRepairs(scheme)
    assert to_bio(tags.split(), repairs) == tuple(bio.split())
    assert repairs.begun.total() == begun
    assert to_bio(bio.split(), again := TagRepairs()) == tuple(bio.split())
    assert not again.begun


def test_repairs_are_counted_in_a_note(tmp_path: Path) -> None:
    data = read_labeled_words(write(tmp_path, "a.conll", "Ada B-PER\n\nin O\nRome I-LOC\n"))
    note = next(note for note in data.notes if "became B-" in note)
    assert note.startswith("1 tag that continues no chunk became B- (I-LOC 1; the first in ")
    assert note.endswith("a.conll, line 3, 'Rome')")
    data = read_labeled_words(write(tmp_path, "b.conll", "Ada I-PER\n\nin O\nRome I-LOC\n"))
    assert "tags are IO, made BIO" in data.notes


def test_each_file_has_its_own_scheme(tmp_path: Path) -> None:
    files = [write(tmp_path, "a.conll", "Ada I-PER\n"), write(tmp_path, "b.conll", "Bo B-PER\nRo I-PER\n\nin O\n")]
    data = read_labeled_words(files)
    assert [each.tags for each in data.examples] == [("B-PER",), ("B-PER", "I-PER"), ("O",)]
    assert not any("became" in note for note in data.notes)


def test_tags_of_jsonl_have_names(tmp_path: Path) -> None:
    rows = [{"tokens": ["Ada", "codes"], "ner_tags": [1, 0]}, {"tokens": ["Rome"], "ner_tags": [0]}]
    path = write(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    data = read_labeled_words(path, LabelSettings(labels="O,B-PER,I-PER"))
    assert (data.examples[0].tags, data.label_names) == (("B-PER", "O"), ("O", "B-PER", "I-PER"))
    assert any("ids without names" in note for note in read_labeled_words(path).notes)


def test_a_datasets_folder_names_its_tags(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    tag = {"_type": "List", "feature": {"_type": "ClassLabel", "names": ["O", "B-PER"]}}
    table = pyarrow.table({"id": ["0"], "tokens": [["Ada", "codes"]], "ner_tags": [[1, 0]]})
    metadata = {"huggingface": json.dumps({"info": {"features": {"ner_tags": tag}}})}
    parquet.write_table(table.replace_schema_metadata(metadata), tmp_path / "train-00000-of-00001.parquet")
    data = read_labeled_words(tmp_path)
    assert data.examples[0].tags == ("B-PER", "O")
    assert data.examples[0].part == "train"


def test_a_word_in_each_row_of_a_table(tmp_path: Path) -> None:
    text = "Sentence #,Word,POS,Tag\nSentence: 1,Ada,NNP,B-per\n,codes,VBZ,O\nSentence: 2,Rome,NNP,B-geo\n"
    data = read_labeled_words(write(tmp_path, "a.csv", text), LabelSettings(label_column="Tag"))
    assert [(each.words, each.tags) for each in data.examples] == [
        (("Ada", "codes"), ("B-per", "O")),
        (("Rome",), ("B-geo",)),
    ]


@pytest.mark.parametrize(
    "spans", [[[0, 12, "PER"], [22, 26, "LOC"]], [{"start": 0, "end": 12, "label": "PER"}, [22, 26, "LOC"]]]
)
def test_spans_of_characters_become_tags(tmp_path: Path, spans: list[object]) -> None:
    path = write(tmp_path, "a.jsonl", json.dumps({"text": "Ada Lovelace lived in Rome.", "entities": spans}) + "\n")
    data = read_labeled_words(path)
    example = data.examples[0]
    assert example.words == ("Ada", "Lovelace", "lived", "in", "Rome", ".")
    assert example.tags == ("B-PER", "I-PER", "O", "O", "B-LOC", "O")
    assert example.no_space_after == (False, False, False, False, True, False)


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([[0, 99, "PER"]], "0 to 99 .* is not within the 9 characters"),
        ([[3, 3, "PER"]], "is empty"),
        ([[0, 3, "PER"], [2, 9, "LOC"]], "the spans of PER and LOC overlap at character 2"),
        ([["a", 3, "PER"]], "no start, end and label"),
        ([[0, 3]], "not \\[start, end, label\\]|no start, end and label"),
    ],
)
def test_wrong_spans_are_errors(tmp_path: Path, spans: list[object], message: str) -> None:
    path = write(tmp_path, "a.jsonl", json.dumps({"text": "Ada codes", "spans": spans}) + "\n")
    with pytest.raises(BadInput, match=f"a.jsonl, line 1.*{message}"):
        read_labeled_words(path)


def test_a_span_within_a_word_takes_the_whole_word(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", json.dumps({"text": "Romeish", "spans": [[0, 4, "LOC"]]}) + "\n")
    data = read_labeled_words(path)
    assert data.examples[0].tags == ("B-LOC",)
    assert any(note.startswith("1 span") for note in data.notes)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.conll", "Ada B-PER\nx y z\n" + "codes O\n" * 20, r"line 2 has 3 columns, and line 1 has 2"),
        ("a.conll", "Ada B-PER\ncodes X\n", r"'X'"),
        ("a.conll", "Once upon a time\nthere was\na house of cards\n", "is text, not words with tags.*--task lm"),
        ("a.conll", "Ada B-PER\nLovelace I-PER\nwrites\nprograms O\n. O\n", "line 3 has 1 column, and line 1 has 2"),
        ("a.conll", "", "is empty"),
        ("a.jsonl", '{"tokens": ["a", "b"], "tags": ["X"]}\n', "line 1 has 2 words in 'tokens' and 1 tags in 'tags'"),
        ("a.jsonl", '{"tokens": ["a", "b"]}\n', "no column of tags, only 'tokens'"),
        ("a.csv", "text,label\ngood film,1\nbad film,0\n", "--task classify"),
        ("a.trees", "(3 (2 It) (4 works))\n", "--task classify"),
    ],
)
def test_what_has_no_tags_is_one_sentence(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_labeled_words(write(tmp_path, name, text))


def test_a_tag_that_training_has_not_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"the tag 'B-LOC' of 'Rome' is not one of the 2 tags of training"):
        read_labeled_words(write(tmp_path, "a.conll", "Rome B-LOC\n"), known_labels=("O", "B-PER"))
