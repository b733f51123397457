"""Texts with labels: which columns are read, what labels are, and one sentence for what cannot be read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from clearstory.errors import BadInput, BadSetting, CorruptFile, MissingExtra
from clearstory.tasks.data.labeled_texts import read_labeled_texts
from clearstory.tasks.data.settings import LabelSettings


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_objects(folder: Path, name: str, objects: list[dict[str, object]]) -> Path:
    return write(folder, name, "".join(json.dumps(each) + "\n" for each in objects))


@pytest.mark.parametrize(
    ("name", "text", "note"),
    [
        ("a.csv", 'Review,Sentiment\n"Good, really",pos\nBad,neg\n', "text from 'Review', label from 'Sentiment'"),
        (
            "a.tsv",
            "id\tsentence\tlabel\n7\tGood, really\tpos\n9\tBad\tneg\n",
            "text from 'sentence', label from 'label'",
        ),
        ("a.csv", "label;text\npos;Good, really\nneg;Bad\n", "text from 'text', label from 'label'"),
        (
            "a.tsv",
            "pos\tGood, really\nneg\tBad\npos\tGood again, yes\nneg\tBad again, no\n",
            "text from column 2, label from column 1 (no header)",
        ),
        ("a.txt", "__label__pos Good, really\n__label__neg Bad\n", "text from 'text', label from 'label'"),
        ("a.json", '[{"text": "Good, really", "label": "pos"}, {"text": "Bad", "label": "neg"}]', "text from 'text'"),
    ],
)
def test_columns_are_found_by_name_or_by_values(tmp_path: Path, name: str, text: str, note: str) -> None:
    data = read_labeled_texts(write(tmp_path, name, text))
    assert (data.examples[0].text, data.examples[0].labels) == ("Good, really", ("pos",))
    assert data.label_names == ("neg", "pos")
    assert data.notes[0].startswith(note)


def test_named_columns_come_before_guesses(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,label,mood\none,0,glad\ntwo,1,sad\n")
    data = read_labeled_texts(path, LabelSettings(label_column="mood"))
    assert [each.labels for each in data.examples] == [("glad",), ("sad",)]
    assert [each.labels for each in read_labeled_texts(path, LabelSettings(label_column="2")).examples] == [
        ("0",),
        ("1",),
    ]


def test_a_column_that_is_not_there_is_an_error_with_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,label\none,0\ntwo,1\n")
    with pytest.raises(BadInput, match=r"a.csv has no column 'labl', only 'text', 'label'; did you mean 'label'\?"):
        read_labeled_texts(path, LabelSettings(label_column="labl"))
    path = write(tmp_path, "b.tsv", "0\tA sentence here\n1\tAnother one of them\n1\tA third one\n0\tA fourth one\n")
    with pytest.raises(BadInput, match="its first line is not a header; give one of its 2 columns by number"):
        read_labeled_texts(path, LabelSettings(text_column="text"))


def test_pairs_of_texts_and_parts_are_read(tmp_path: Path) -> None:
    path = write_objects(
        tmp_path,
        "a.jsonl",
        [
            {"premise": "It rains.", "hypothesis": "It is wet.", "label": "entailment", "split": "train"},
            {"premise": "It rains.", "hypothesis": "It is dry.", "label": "contradiction", "split": "dev"},
        ],
    )
    data = read_labeled_texts(path)
    assert [(each.text, each.pair, each.part) for each in data.examples] == [
        ("It rains.", "It is wet.", "train"),
        ("It rains.", "It is dry.", "validation"),
    ]


def test_a_named_split_column_has_known_parts(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,label,fold\none,0,train\ntwo,1,valid\n")
    settings = LabelSettings(split_column="fold")
    assert [each.part for each in read_labeled_texts(path, settings).examples] == ["train", "validation"]
    assert [each.part for each in read_labeled_texts(path).examples] == ["", ""]
    with pytest.raises(BadInput, match=r"line 3: the split is '7'; supported: train, validation \(or dev\) and test"):
        read_labeled_texts(write(tmp_path, "b.csv", "text,label,fold\none,0,train\ntwo,1,7\n"), settings)


def test_label_names_come_from_the_setting_or_from_labels_txt(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,label\none,0\ntwo,1\n")
    data = read_labeled_texts(path, LabelSettings(labels="bad,good"))
    assert data.label_names == ("bad", "good")
    assert [each.labels for each in data.examples] == [("bad",), ("good",)]
    write(tmp_path, "labels.txt", "no\nyes\nmaybe\n")
    data = read_labeled_texts(path)
    assert data.label_names == ("no", "yes", "maybe")
    assert "label names from labels.txt" in data.notes
    with pytest.raises(BadInput, match=r"a.csv, line 3: the label '1' is not one of the 2 labels of training"):
        read_labeled_texts(path, LabelSettings(labels="0,1"), known_labels=("0", "2"))


def test_names_that_are_numbers_are_never_taken_for_ids(tmp_path: Path) -> None:
    """The label 0 of the labels -1, 0, 1 is not the first of them."""
    path = write(tmp_path, "a.csv", "text,label\none,0\ntwo,1\n")
    data = read_labeled_texts(path, known_labels=("-1", "0", "1"))
    assert [each.labels for each in data.examples] == [("0",), ("1",)]


@pytest.mark.parametrize("labels", ["good", "a,a", "a,"])
def test_wrong_label_names_are_an_error(tmp_path: Path, labels: str) -> None:
    path = write(tmp_path, "a.csv", "text,label\none,0\ntwo,1\n")
    with pytest.raises(BadSetting, match="--labels"):
        read_labeled_texts(path, LabelSettings(labels=labels))


def test_names_beside_ids_are_read(tmp_path: Path) -> None:
    rows = [
        {"text": "one", "label": 1, "label_text": "positive"},
        {"text": "two", "label": 0, "label_text": "negative"},
    ]
    data = read_labeled_texts(write_objects(tmp_path, "a.jsonl", rows))
    assert data.label_names == ("negative", "positive")
    assert data.examples[0].labels == ("positive",)


@pytest.mark.parametrize(
    "labels", [["a,b", "c", "b,c"], [["a", "b"], ["c"], ["b", "c"]], ["['a', 'b']", "['c']", "b,c"]]
)
def test_several_labels(tmp_path: Path, labels: list[object]) -> None:
    rows = [{"text": f"text {number}", "label": value} for number, value in enumerate(labels)]
    data = read_labeled_texts(write_objects(tmp_path, "a.jsonl", rows))
    assert data.kind == "multi"
    assert [each.labels for each in data.examples] == [("a", "b"), ("c",), ("b", "c")]


def test_a_column_of_zeros_and_ones_for_each_of_several_labels(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "comment,toxic,threat\nfine words,0,0\nbad words,1,1\nworse words,1,0\n")
    data = read_labeled_texts(path)
    assert data.label_names == ("toxic", "threat")
    assert [each.labels for each in data.examples] == [(), ("toxic", "threat"), ("toxic",)]


def test_a_comma_within_a_single_label_stays(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'text,label\none,"Sports, World"\ntwo,Politics\nthree,"Sports, World"\n')
    assert read_labeled_texts(path).label_names == ("Politics", "Sports, World")


def test_numbers_are_classes_or_values(tmp_path: Path) -> None:
    classes = read_labeled_texts(write(tmp_path, "a.csv", "text,label\none,1.0\ntwo,0.0\n"))
    assert (classes.kind, classes.label_names) == ("single", ("0", "1"))
    values = read_labeled_texts(
        write(tmp_path, "b.csv", "sentence1,sentence2,score\nA man.,A boy.,3.8\nA cat.,A dog.,2\n")
    )
    assert (values.kind, values.label_names) == ("regression", ())
    assert [each.value for each in values.examples] == [3.8, 2.0]
    path = write(tmp_path, "c.csv", "text,stars\none,1\ntwo,5\n")
    assert [each.value for each in read_labeled_texts(path, LabelSettings(problem="regression")).examples] == [1.0, 5.0]


def test_a_folder_of_datasets_gives_names_and_parts(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    for part, texts, labels in (
        ("train", ["one", "two"], [1, 0]),
        ("validation", ["three"], [1]),
        ("test", ["four"], [-1]),
    ):
        folder = tmp_path / "data" / part
        folder.mkdir(parents=True)
        table = pyarrow.table({"text": texts, "label": labels})
        with pyarrow.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as writer:
            writer.write_table(table)
        (folder / "cache-1.arrow").write_bytes(b"not to be read")
        write(folder, "state.json", json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
        features = {"text": {"_type": "Value"}, "label": {"_type": "ClassLabel", "names": ["bad", "good"]}}
        write(folder, "dataset_info.json", json.dumps({"features": features}))
    data = read_labeled_texts(tmp_path / "data")
    assert data.label_names == ("bad", "good")
    found = {each.text: (each.labels, each.part) for each in data.examples}
    assert found == {"one": (("good",), "train"), "two": (("bad",), "train"), "three": (("good",), "validation")}
    assert "the test split has no labels and is ignored" in data.notes


def test_parquet_has_the_names_in_its_schema(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    features = {"info": {"features": {"label": {"names": ["ham", "spam"], "_type": "ClassLabel"}}}}
    table = pyarrow.table({"sms": ["win money now", "see you there"], "label": [1, 0]})
    parquet.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps(features)}), tmp_path / "train-00000-of-00001.parquet"
    )
    data = read_labeled_texts(tmp_path)
    assert (data.label_names, data.examples[0].labels) == (("ham", "spam"), ("spam",))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 not a table")
    with pytest.raises(CorruptFile, match="not a parquet file"):
        read_labeled_texts(tmp_path / "broken.parquet")


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtra, match=r"pip install 'clearstory\[data\]'"):
        read_labeled_texts(tmp_path / "a.parquet")


def test_a_folder_for_each_label(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label in ("neg", "pos"):
            write(tmp_path, f"imdb/{part}/{label}/0_1.txt", f"{part} {label}")
    write(tmp_path, "imdb/train/unsup/0_0.txt", "no label")
    data = read_labeled_texts(tmp_path / "imdb")
    assert {(each.text, each.labels, each.part) for each in data.examples} == {
        (f"{part} {label}", (label,), part) for part in ("train", "test") for label in ("neg", "pos")
    }
    assert "1 files of the folder unsup have no label and are ignored" in data.notes


def test_trees_give_every_phrase_once_and_two_labels_without_neutral(tmp_path: Path) -> None:
    path = tmp_path / "train.trees.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("(3 (2 It) (4 (2 's) (4 (2 -LRB-) (4 lovely))))\n(1 (2 It) (0 drags))\n")
    read = {
        trees: [(each.text, each.labels[0]) for each in read_labeled_texts(path, LabelSettings(trees=trees)).examples]
        for trees in ("phrases", "sentences", "binary-phrases", "binary-sentences")
    }
    assert read["sentences"] == [("It 's ( lovely", "3"), ("It drags", "1")]
    assert [text for text, _ in read["phrases"]].count("It") == 1
    assert read["binary-phrases"] == [
        *((text, "1") for text in ("lovely", "( lovely", "'s ( lovely", "It 's ( lovely")),
        *((text, "0") for text in ("drags", "It drags")),
    ]  # fmt: skip
    assert read["binary-sentences"] == [("It 's ( lovely", "1"), ("It drags", "0")]
    assert len(read_labeled_texts(write(tmp_path, "train.txt", "(3 (2 It) (4 works))\n")).examples) == 3
    for line, reason in (("(3 (2 It)", "not closed"), ("(7 It)", "'7' is not a label"), ("It", "not a bracketed tree")):
        with pytest.raises(BadInput, match=rf"a.trees, line 1.*{reason}"):
            read_labeled_texts(write(tmp_path, "a.trees", line + "\n"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "text,label\none,0\n ,1\n", r"a.csv, line 3: the text in 'text' is empty"),
        ("a.csv", "text,label\none,0\ntwo,\n", r"a.csv, line 3 has no label in 'label'.*--problem multi"),
        ("a.csv", "text,label\none,0\ntwo\n", r"a.csv, line 3 has 1 column, and line 1 has 2; complete the row"),
        ("a.csv", "text,label,label\none,0,1\n", "two columns 'label'"),
        ("a.csv", "text,score\none,0.5\ntwo,high\n", r"a.csv has|line 3"),
        (
            "a.jsonl",
            '{"text": "a", "label": 1}\n{"text": "b", "label": "x"}\n',
            "line 2: 'label' is text, and a number in",
        ),
        ("a.jsonl", '{"text": "a", "label": {"x": 1}}\n', "line 1: 'label' is not a label"),
        ("a.jsonl", '{"text": 5, "label": 1}\n{"text": "b", "label": 0}\n', "line 1: 'text' is int, not text"),
        ("a.jsonl", '{"text": "a b"}\n{"text": "b c"}\n', "texts without labels.*--task lm"),
        ("a.jsonl", '{"tokens": ["a"], "ner_tags": ["O"]}\n', "words with tags, not texts with labels.*--task tag"),
        ("a.txt", "Once upon a time\nthere was\n", "plain text without labels.*--task lm"),
        ("a.conll", "Ada B-PER\n", "--task tag"),
        ("a.tsv", "Hello you.\tHallo du.\nBye you.\tTschüss du.\n", "pairs of texts and no labels.*--task embed"),
        ("a.csv", "", "a.csv is empty"),
        ("a.csv", "text,label\n" + "".join(f"one,word {n}\n" for n in range(30)), "30 different values.*too many"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_labeled_texts(write(tmp_path, name, text))


def test_a_file_that_is_not_utf8_names_the_likely_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\nun café très agréable,0\nune soirée gâchée,1\n".encode("cp1252"))
    with pytest.raises(BadInput, match="is not UTF-8"):
        read_labeled_texts(path)
    data = read_labeled_texts(path, LabelSettings(encoding="auto"))
    assert data.examples[0].text == "un café très agréable"
    assert any("detected from their bytes" in note for note in data.notes)


def test_a_folder_with_several_data_sets_is_an_error(tmp_path: Path) -> None:
    for name in ("a-train.csv", "a-dev.csv", "b-train.csv"):
        write(tmp_path, name, "text,label\none,0\ntwo,1\n")
    with pytest.raises(BadInput, match="has 2 data sets"):
        read_labeled_texts(tmp_path)
    (tmp_path / "b-train.csv").unlink()
    assert [each.part for each in read_labeled_texts(tmp_path).examples] == ["validation"] * 2 + ["train"] * 2
