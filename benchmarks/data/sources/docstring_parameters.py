"""Questions about parameters ("What is parameter x of f?"), answered by numpydoc docstrings, for the smoke tier.

The context is a docstring from its beginning to the end of its list of parameters; the answer is the first sentence of
the parameter's description, as it stands there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from benchmarks.data.examples import Question, QuestionCorpus
from benchmarks.data.source import MissingSourceError, Source
from benchmarks.data.sources.docstrings import documents, key, missing, roots

PACKAGES = ("numpy", "scipy", "scikit-learn", "pandas", "matplotlib")
"""Those that describe parameters in numpydoc's form; reading the others would take long and find nothing."""

_DEFAULT = 1500
_LONGEST = 800  # characters of a context: longer ones are split into many windows
_SECTION = re.compile(r"^Parameters\n-{4,}\n", re.MULTILINE)
_NEXT_SECTION = re.compile(r"^[A-Z][\w ]+\n-{4,}$", re.MULTILINE)
_ENTRY = re.compile(r"^(?P<name>\w+)(?: ?:[^\n]*)?\n(?P<indent> +)(?P<text>\S.*(?:\n(?P=indent).*)*)", re.MULTILINE)
_SENTENCE = re.compile(r".+?(?:\.(?=\s|$)|\Z)", re.DOTALL)


def load(configuration: str, split: str, tier: str, most: int | None) -> QuestionCorpus:
    """Questions about the parameters of the installed packages, at most `most` to train on, some of held-out files.

    Raises:
        MissingSourceError: no package documents its parameters in this form.
    """
    packages = {name: root for name, root in roots().items() if name in PACKAGES}
    quota = -(-(most or _DEFAULT) // max(len(packages), 1))
    sides: tuple[list[Question], list[Question]] = ([], [])
    seen: set[Question] = set()
    for name, root in packages.items():
        enough = len(sides[False]) + quota
        for held_out, documented, text in documents(name, root):
            if len(sides[False]) >= enough:
                break
            fresh = [question for question in questions(documented, text) if question not in seen]
            seen.update(fresh)
            sides[held_out].extend(fresh)
    if not all(sides):
        raise MissingSourceError(
            missing(configuration, tier) or f"none of {', '.join(PACKAGES)} is installed as source"
        )
    return QuestionCorpus(tuple(sides[False]), tuple(sides[True]))


def questions(documented: str, docstring: str) -> Iterator[Question]:
    """One question per described parameter of a numpydoc docstring; none where it has no such list.

    Args:
        documented: name of the function or class.
        docstring: its text, without the indentation of the source.
    """
    begins = _SECTION.search(docstring)
    if begins is None:
        return
    ends = _NEXT_SECTION.search(docstring, begins.end())
    context = docstring[: ends.start() if ends else None].rstrip()[:_LONGEST]
    for entry in _ENTRY.finditer(context, begins.end()):
        sentence = _SENTENCE.match(entry["text"])
        if sentence is not None:
            answer = sentence[0].rstrip()
            yield Question(
                f"What is parameter {entry['name']} of {documented}?", context, (answer,), entry.start("text")
            )


SOURCE = Source("docstring_parameters", load, key, missing)
