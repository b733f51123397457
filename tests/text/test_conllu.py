"""CoNLL-U: words and tags, what is no word, where documents begin, and lines that are none."""

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


def written(folder: Path, text: str, name: str = "a.conllu") -> Path:
    file = folder / name
    file.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return file


@pytest.mark.parametrize("name", ["a.conllu", "a.conllu.gz"])
def test_words_and_tags_are_read_and_nothing_else(tmp_path: Path, name: str) -> None:
    file = written(tmp_path, FILE, name)
    found = list(read_conllu(file))
    assert [(each.words, each.tags, each.new) for each in found] == [
        (("Do", "n't", "go"), ("AUX", "PART", "VERB"), True),
        (("1_000",), ("NUM",), False),
        (("!",), ("PUNCT",), True),
    ]
    assert found[1].place == f"{file}, line 9"
    assert [len(document) for document in by_document(iter(found))] == [2, 1]
    assert [document.text for document in read_documents(file)] == ["Do n't go\n1_000", "!"]


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    told = sentences(12)
    documents = list(read_tagged_documents(conllu(tmp_path / "a.conllu", told, documents=3)))
    assert [len(document) for document in documents] == [4, 4, 4]
    assert [(each.words, each.tags) for document in documents for each in document] == [
        (each.words, each.tags) for each in told
    ]


def test_who_hangs_on_whom_and_how_it_was_written(tmp_path: Path) -> None:
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
    text = "".join(f"{n}\t{word}\t_\tX\t_\t_\t{head}\t{how}\t_\t{more}\n" for n, word, head, how, more in rows)
    [found] = read_conllu(written(tmp_path, text))
    assert found.heads == (2, 2, None, 2, 2, 4, 2)
    assert found.dependency_relations == ("aux", "advmod", "root", "punct", "x:y", "advmod", "punct")
    assert found.written[0] == "Don't go! cannot."
    assert [found.written[0][start:stop] for start, stop in found.written[1]] == list(found.words)
    [unsaid, *_] = read_conllu(written(tmp_path, FILE))
    assert unsaid.heads == (None, None, None)
    with pytest.raises(BadInput, match="line 1: the word 'go' hangs on word 9 of a sentence of 1"):
        list(read_conllu(written(tmp_path, "1\tgo\t_\tX\t_\t_\t9\tx\t_\t_\n")))


def test_where_no_document_is_named_each_sentence_is_one() -> None:
    told = [TaggedSentence(("a",), ("X",)), TaggedSentence(("b",), ("X",))]
    assert list(by_document(iter(told))) == [[told[0]], [told[1]]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1\tword\n", "line 1 has 2 columns and CoNLL-U 10"),
        (f"# a\nx\tword\tword\tNOUN{REST}\n", "line 2 begins with 'x' and 'word'"),
        (f"1\t \tword\tNOUN{REST}\n", "line 1 begins with '1' and ' '"),
    ],
)
def test_lines_that_are_no_conllu_are_refused_with_their_number(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        list(read_conllu(written(tmp_path, text)))


def test_words_without_tags_are_refused_where_tags_are_wanted(tmp_path: Path) -> None:
    file = written(tmp_path, f"1\tword\tword\t_{REST}\n")
    assert [each.text for each in read_documents(file)] == ["word"]
    with pytest.raises(BadInput, match="'word' has no tag"):
        list(read_tagged_documents(file))
    with pytest.raises(BadInput, match="holds no tags"):
        list(read_tagged_documents(written(tmp_path, "word", "a.txt")))
