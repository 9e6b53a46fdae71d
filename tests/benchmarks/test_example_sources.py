"""Sources of labelled texts and questions: what they read from a mirror, and what installed packages give."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.data import source
from benchmarks.data.examples import HELD_OUT, Labelled, LabelledCorpus, Question, QuestionCorpus, sides, spread
from benchmarks.data.sources import docstring_packages, docstring_parameters, docstrings, glue, squad
from benchmarks.data.text.wordpiece import pair_tokenizer

NUMPYDOC = """Turn one thing into another.

A longer text about it. It says more.

Parameters
----------
thing : array_like, optional
    What is turned. It may be
    anything.
other_thing, third: int
    Not asked for: two names at once.
bare
    A parameter of no type

    with a second paragraph.
**options
    Passed on.

Returns
-------
result : ndarray
    What came of it.
"""


@pytest.mark.parametrize("name", ["glue", "squad", "docstring_packages", "docstring_parameters"])
def test_every_source_is_found_by_its_file(name: str) -> None:
    assert source.find(name).name == name


@pytest.mark.parametrize(("module", "configuration"), [(glue, "sst2"), (squad, "plain_text")])
def test_a_missing_source_names_itself_the_tier_and_both_ways(
    module, configuration: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ECOSPA_DATA", raising=False)
    with pytest.raises(source.MissingSourceError) as caught:
        module.load(configuration, "validation", "cpu", None)
    text = str(caught.value)
    assert f"source {module.SOURCE.name!r}, tier 'cpu'" in text and module.HUB_ID in text
    assert "Either point ECOSPA_DATA at a local mirror" in text and "ECOSPA_DATA=hub" in text
    assert module.missing(configuration, "paper") is None


def test_the_tokenizer_of_bert_is_looked_for_in_the_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ECOSPA_DATA", raising=False)
    with pytest.raises(source.MissingSourceError, match=r"tokenizers/bert-base-uncased.*google-bert/"):
        pair_tokenizer("bert-base-uncased", [], "cpu")


def mirror(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, rows: dict, features=None) -> None:
    datasets = pytest.importorskip("datasets")
    place = folder / name
    place.mkdir(parents=True)
    for split in ("train", "validation"):
        made = datasets.Dataset.from_dict(rows, features=features)
        made.to_parquet(place / f"{split}-00000-of-00001.parquet")
    monkeypatch.setenv("ECOSPA_DATA", str(folder))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")


def test_classes_are_named_and_pairs_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    text, label = datasets.Value("string"), datasets.ClassLabel(names=["entailment", "not_entailment"])
    features = datasets.Features({"sentence1": text, "sentence2": text, "label": label, "idx": datasets.Value("int32")})
    rows = {"sentence1": list("abcd"), "sentence2": list("wxyz"), "label": [0, 1, 1, 0], "idx": [0, 1, 2, 3]}
    mirror(tmp_path, monkeypatch, "nyu-mll__glue/rte", rows, features)
    corpus = glue.load("rte", "validation", "cpu", 2)
    assert corpus.classes == ("entailment", "not_entailment")
    assert corpus.train == (Labelled(("a", "w"), 0.0), Labelled(("c", "y"), 1.0))
    assert len(corpus.evaluation) == 4
    assert "train-00000-of-00001.parquet" in glue.key("rte")
    with pytest.raises(ValueError, match="configuration is 'mnli'; choose one of sst2, cola"):
        glue.load("mnli", "validation", "cpu", None)


def test_real_numbers_have_no_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"sentence1": ["a"], "sentence2": ["b"], "label": [3.75], "idx": [0]}
    mirror(tmp_path, monkeypatch, "nyu-mll__glue/stsb", rows)
    assert glue.load("stsb", "validation", "cpu", None).classes == ()
    assert glue.load("stsb", "validation", "cpu", None).train[0].label == 3.75


def test_questions_have_all_their_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {
        "question": ["where ?"], "context": ["it is in Rome , Italy"],
        "answers": [{"text": ["Rome", "Rome , Italy"], "answer_start": [9, 9]}],
    }  # fmt: skip
    mirror(tmp_path, monkeypatch, "rajpurkar__squad/plain_text", rows)
    corpus = squad.load("plain_text", "validation", "cpu", None)
    assert corpus.train == (Question("where ?", "it is in Rome , Italy", ("Rome", "Rome , Italy"), 9),)


def test_parameters_become_questions() -> None:
    found = list(docstring_parameters.questions("turn", NUMPYDOC))
    asked = {question.question: question.answers for question in found}
    assert asked == {
        "What is parameter thing of turn?": ("What is turned.",),
        "What is parameter bare of turn?": ("A parameter of no type",),
    }
    for question in found:
        assert question.context[question.start :].startswith(question.answers[0])
        assert "What came of it" not in question.context and question.context.startswith("Turn one thing")
    assert list(docstring_parameters.questions("turn", "No parameters here.")) == []


def test_installed_packages_ask_and_answer() -> None:
    corpus = docstring_parameters.load("default", "validation", "smoke", 100)
    assert 20 < len(corpus.train) <= 140 and corpus.evaluation
    assert len(set(corpus.train + corpus.evaluation)) == len(corpus.train) + len(corpus.evaluation)
    for question in corpus.train + corpus.evaluation:
        assert question.context[question.start :].startswith(question.answers[0]) and question.answers[0].strip()


def test_installed_packages_are_the_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {name: root for name, root in docstrings.roots().items() if name in ("python", "numpy")}
    monkeypatch.setattr(docstring_packages, "roots", lambda: chosen)
    corpus = docstring_packages.load("default", "validation", "smoke", 40)
    assert corpus.classes == tuple(chosen) and {example.label for example in corpus.train} == {0.0, 1.0}
    assert len(corpus.train) <= 40 and not {e.texts for e in corpus.train} & {e.texts for e in corpus.evaluation}
    monkeypatch.setattr(docstring_packages, "roots", dict)
    with pytest.raises(source.MissingSourceError):
        docstring_packages.load("default", "validation", "smoke", 40)


def test_what_two_packages_share_is_an_example_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def documents(name: str, root: Path) -> list[tuple[bool, str, str]]:
        own = [(number % 2 == 0, "f", f"{name} {number}") for number in range(6)]
        return [(name == "second", "f", "in both"), *own]

    monkeypatch.setattr(docstring_packages, "roots", lambda: dict.fromkeys(("first", "second"), Path()))
    monkeypatch.setattr(docstring_packages, "documents", documents)
    corpus = docstring_packages.load("default", "validation", "smoke", 20)
    texts = [example.texts for example in corpus.train + corpus.evaluation]
    assert len(set(texts)) == len(texts)
    assert Labelled(("in both",), 0.0) in corpus.train


def test_a_part_is_spread_over_the_whole() -> None:
    assert spread(range(10), 3) == (0, 3, 6) and spread(range(3), None) == spread(range(3), 7) == (0, 1, 2)


def test_the_fingerprint_sees_every_part() -> None:
    examples = [Labelled(("a", "b"), 0.0), Labelled(("ab",), 0.0), Labelled(("a", "b"), 1.0)]
    prints = {LabelledCorpus((one,), (), ("x",)).fingerprint for one in examples}
    prints |= {
        LabelledCorpus((), (examples[0],), ("x",)).fingerprint,
        LabelledCorpus((examples[0],), (), ()).fingerprint,
    }
    questions = [Question("q", "c", ("a",), 0), Question("q", "c", ("a",), 1), Question("qc", "", ("a",), 0)]
    prints |= {QuestionCorpus((one,), ()).fingerprint for one in questions}
    assert len(prints) == 8


def test_the_held_out_split_is_the_end_of_the_training_split() -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"n": list(range(200))})
    train, evaluation = sides(lambda names: {"train": rows} if names == ("train",) else {}, HELD_OUT)
    assert train["n"][:] == list(range(180)) and evaluation["n"][:] == list(range(180, 200))
    both = {"train": rows, "validation": rows.select(range(3))}
    train, evaluation = sides(lambda names: {name: both[name] for name in names}, "validation")
    assert len(train) == 200 and len(evaluation) == 3
