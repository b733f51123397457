"""CoNLL-U: words, tags, heads, document boundaries, and invalid lines."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from clearstory.errors import BadInput
from clearstory.text.conllu import TaggedSentence, by_document, read_conllu
from clearstory.text.documents import read_documents, read_tagged_documents
from conllus import conllu, sentences

REST = "\t_\t_\t_\t_\t_\t_"
FILE = (
    "# newdoc id = one\n# text = Don't go\n"
    f"1-2\tDon't\t_\t_{REST}\n1\tDo\tdo\tAUX{REST}\n2\tn't\tnot\tPART{REST}\n3\tgo\tgo\tVERB{REST}\n3.1\tnow\t_\t_{REST}\n"
    f"\n# newpar\n1\t1 000\t1000\tNUM{REST}\r\n\n\n# newdoc\n1\t!\t!\tPUNCT{REST}"
)


def write(folder: Path, text: str, name: str = "a.conllu") -> Path:
    file = folder / name
    file.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return file


@pytest.mark.parametrize("name", ["a.conllu", "a.conllu.gz"])
def test_words_and_tags_are_read(tmp_path: Path, name: str) -> None:
    file = write(tmp_path, FILE, name)
    found = list(read_conllu(file))
    assert [(each.words, each.tags, each.new) for each in found] == [
        (("Do", "n't", "go"), ("AUX", "PART", "VERB"), True),
        (("1_000",), ("NUM",), False),
        (("!",), ("PUNCT",), True),
    ]
    assert found[1].location == f"{file}, line 9"
    assert [len(document) for document in by_document(iter(found))] == [2, 1]
    assert [document.text for document in read_documents(file)] == ["Do n't go\n1_000", "!"]


def test_written_sentences_are_read_back(tmp_path: Path) -> None:
    expected = sentences(12)
    documents = list(read_tagged_documents(conllu(tmp_path / "a.conllu", expected, documents=3)))
    assert [len(document) for document in documents] == [4, 4, 4]
    assert [(each.words, each.tags) for document in documents for each in document] == [
        (each.words, each.tags) for each in expected
    ]


def test_heads_relations_and_the_original_spacing(tmp_path: Path) -> None:
    rows = [
        ("1-2", "Don't", "_", "_", "_"),
        ("1", "Do", "3", "aux", "_"),
        ("2", "n't", "3", "advmod", "_"),
        ("3", "go", "0", "root", "SpaceAfter=No"),
        ("4", "!", "3", "punct", "_"),
        ("5-6", "cannot", "_", "_", "A=B|SpaceAfter=No"),
        ("5", "can", "3", "x:y", "_"),
        ("6", "not", "5", "advmod", "_"),
        ("7", ".", "3", "punct", "SpaceAfter=No"),
    ]
    text = "".join(
        f"{n}\t{word}\t_\tX\t_\t_\t{head}\t{relation}\t_\t{more}\n" for n, word, head, relation, more in rows
    )
    [found] = read_conllu(write(tmp_path, text))
    assert found.heads == (2, 2, None, 2, 2, 4, 2)
    assert found.dependency_relations == ("aux", "advmod", "root", "punct", "x:y", "advmod", "punct")
    assert found.text_and_spans[0] == "Don't go! cannot."
    assert [found.text_and_spans[0][start:stop] for start, stop in found.text_and_spans[1]] == list(found.words)
    [without_heads, *_] = read_conllu(write(tmp_path, FILE))
    assert without_heads.heads == (None, None, None)
    with pytest.raises(BadInput, match="line 1: the word 'go' has the head 9 in a sentence of 1 words"):
        list(read_conllu(write(tmp_path, "1\tgo\t_\tX\t_\t_\t9\tx\t_\t_\n")))


def test_without_newdoc_each_sentence_is_a_document() -> None:
    expected = [TaggedSentence(("a",), ("X",)), TaggedSentence(("b",), ("X",))]
    assert list(by_document(iter(expected))) == [[expected[0]], [expected[1]]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1\tword\n", "line 1 has 2 tab-separated columns, and CoNLL-U has 10"),
        (f"# a\nx\tword\tword\tNOUN{REST}\n", "line 2 begins with 'x' and 'word'"),
        (f"1\t \tword\tNOUN{REST}\n", "line 1 begins with '1' and ' '"),
    ],
)
def test_invalid_lines_are_refused_with_their_number(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        list(read_conllu(write(tmp_path, text)))


def test_words_without_tags_are_refused_when_tags_are_needed(tmp_path: Path) -> None:
    file = write(tmp_path, f"1\tword\tword\t_{REST}\n")
    assert [each.text for each in read_documents(file)] == ["word"]
    with pytest.raises(BadInput, match="'word' has no tag"):
        list(read_tagged_documents(file))
    with pytest.raises(BadInput, match="has no tags"):
        list(read_tagged_documents(write(tmp_path, "word", "a.txt")))
