"""The tree holds what it should and says what it should: nothing unfinished, no machine's path, no junk drawers."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.repository.source import FOLDERS, ROOT, files, is_generated, modules, parse, place

TEXT = {".py", ".md", ".toml", ".ini", ".cfg", ".json", ".html", ".tex", ".svg", ".txt", ".yaml", ".yml", ""}
CODE = {".py", ".toml", ".ini", ""}
JUNK_DRAWERS = {"utils", "util", "common", "helpers", "misc", "scripts", "configs"}
TOP_LEVEL = {*FOLDERS, ".ci", ".github", "docs"}
CI = Path(".ci/run")
UNTRACKED = (
    "results/records/*/smoke-*.json",
    "paper_tables/rendered/smoke/*",
)  # left by the smoke tier, see .gitignore
THIS = Path("tests/repository/test_words.py")

UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX|HACK|NotImplementedError)\b|(?i:\bstub\b|\bnot (?:yet )?implemented\b)")
MACHINE_PATH = re.compile(r"(?<![\w.:/~<])/(?:work|tmp|root|home)\b|\bshared/")
REGISTRY = re.compile(
    r"(?i)\b(?:pypi\.org|pythonhosted\.org|registry\.npmjs\.org|download\.pytorch\.org|deb\.debian\.org|conda\.anaconda\.org)\b"
)
QUESTION = re.compile(r"(?:What|Whether|Why|How|Which|Where|When|Who)\b")
EMBEDDED = re.compile(r"base64,[A-Za-z0-9+/=\s]+")


def lines_with(pattern: re.Pattern[str], suffixes: set[str], root: Path, but: tuple[Path, ...] = ()) -> Iterator[str]:
    """Lines of the project's text files that hold the pattern; embedded pictures are no text."""
    for path in files(root):
        inside = path.relative_to(root)
        if path.suffix not in suffixes or path.name == "LICENSE" or inside in (*but, THIS):
            continue
        if any(inside.match(pattern) for pattern in UNTRACKED):
            continue
        text = EMBEDDED.sub("", path.read_text(encoding="utf-8"))
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.search(line):
                yield f"{place(path, number, root)} {line.strip()[:80]}"


def unexpected_folders(root: Path) -> list[str]:
    """Top-level folders that the design does not name, and folders that anything could be thrown into."""
    folders = {parent.relative_to(root) for path in files(root) for parent in path.parents if root in parent.parents}
    top = {path.name for path in root.iterdir() if path.is_dir() and not is_generated(path)} - TOP_LEVEL
    return sorted(top | {folder.as_posix() for folder in folders if folder.name in JUNK_DRAWERS})


def junk_modules(root: Path) -> list[str]:
    """Modules named like a junk drawer."""
    return [place(path, root=root) for path in files(root) if path.suffix == ".py" and path.stem in JUNK_DRAWERS]


def docstrings_that_ask(*folders: str, root: Path) -> Iterator[str]:
    """Docstrings that begin with a question word: a first line is an imperative or a noun phrase."""
    for path in modules(*folders, root=root):
        for node in ast.walk(parse(path)):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                docstring = ast.get_docstring(node) or ""
                if QUESTION.match(docstring):
                    yield f"{place(path, node.body[0].lineno, root)} {docstring.splitlines()[0]}"


def test_nothing_is_unfinished() -> None:
    assert list(lines_with(UNFINISHED, CODE | {".md"}, ROOT)) == []


def test_no_path_of_one_machine() -> None:
    assert list(lines_with(MACHINE_PATH, TEXT, ROOT, but=(CI,))) == []


def test_no_package_registry_is_named() -> None:
    assert list(lines_with(REGISTRY, TEXT, ROOT)) == []


def test_no_docstring_begins_with_a_question_word() -> None:
    assert list(docstrings_that_ask(*FOLDERS, root=ROOT)) == []


def test_docstrings_that_begin_with_a_question_word_are_found(tmp_path: Path) -> None:
    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines" / "asks.py").write_text(
        '"""Why: a module."""\n'
        'class Whole:\n    """Whole models.\n\n    What they are.\n    """\n'
        'class Kept:\n    """\n    What stays.\n    """\n'
        '    async def fits(self) -> bool:\n        """Whether it fits."""\n'
    )
    (tmp_path / "baselines" / "states.py").write_text('"""Settings."""\n\n\ndef bare() -> None:\n    pass\n')
    assert list(docstrings_that_ask("baselines", root=tmp_path)) == [
        "baselines/asks.py:1 Why: a module.",
        "baselines/asks.py:8 What stays.",
        "baselines/asks.py:12 Whether it fits.",
    ]


def test_folders_are_those_of_the_design() -> None:
    assert unexpected_folders(ROOT) == []
    assert junk_modules(ROOT) == []


@pytest.mark.parametrize(
    ("pattern", "line", "found"),
    [
        (UNFINISHED, "# TODO: later", True),
        (UNFINISHED, "raise NotImplementedError", True),
        (UNFINISHED, "# A stub for now", True),
        (UNFINISHED, "This is Not yet implemented.", True),
        (UNFINISHED, 'dev = ["pandas-stubs"]  # stubborn', False),
        (MACHINE_PATH, 'open("/work/x.json")', True),
        (MACHINE_PATH, "ECOSPA_DATA=../shared/data", True),
        (MACHINE_PATH, "saved in /tmp", True),
        (MACHINE_PATH, "https://example.org/work/paper and frame/work, ~/home", False),
        (REGISTRY, "see https://PyPI.org/project/x", True),
        (REGISTRY, "files.pythonhosted.org", True),
        (REGISTRY, "https://arxiv.org/abs/2511.11641", False),
    ],
)
def test_the_patterns_find_what_they_should(tmp_path: Path, pattern: re.Pattern[str], line: str, found: bool) -> None:
    (tmp_path / "README.md").write_text(f"# Title\n{line}\n")
    assert [hit.split(" ")[0] for hit in lines_with(pattern, TEXT, tmp_path)] == (["README.md:2"] if found else [])


def test_generated_folders_and_pictures_are_not_read(tmp_path: Path) -> None:
    (tmp_path / ".tox").mkdir()
    (tmp_path / ".tox" / "a.py").write_text("TODO")
    (tmp_path / "paper_tables" / "rendered" / "smoke").mkdir(parents=True)
    (tmp_path / "paper_tables" / "rendered" / "smoke" / "report.html").write_text("/tmp/x")
    (tmp_path / "report.html").write_text('<img src="data:image/png;base64,AAAA+/tmp/AAA="> /tmp')
    assert list(lines_with(UNFINISHED, TEXT, tmp_path)) == []
    assert len(list(lines_with(MACHINE_PATH, TEXT, tmp_path))) == 1


def test_unexpected_folders_are_found(tmp_path: Path) -> None:
    for folder in ("ecospa", "tests/configs", "notebooks", "baselines/utils", ".tox", "dist"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "helpers.py").write_text("")
    assert unexpected_folders(tmp_path) == ["baselines/utils", "notebooks", "tests/configs"]
    assert len(junk_modules(tmp_path)) == 4
