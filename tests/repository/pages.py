"""The pages of the project, as the tests read them: blocks of code, commands, links, headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.repository.source import ROOT, files

_MARKDOWN = MarkdownIt("commonmark").enable("table")
_RENDERED = ("paper_tables/rendered/*/*", "results/bench.md")
_SOURCE = re.compile(r'<img\s[^>]*src="([^"]+)"')
_PROGRAMS = ("python ", "tox ", "pip ", "pytest ")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the page where it begins."""

    language: str
    text: str
    line: int


def pages(root: Path = ROOT) -> list[Path]:
    """Return every page that people write; what is rendered from records is none."""
    found = [path for path in files(root) if path.suffix == ".md"]
    return [path for path in found if not any(path.relative_to(root).match(pattern) for pattern in _RENDERED)]


def blocks(page: Path, language: str) -> list[Block]:
    """Return the fenced blocks of one language, in order."""
    return [
        Block(token.info.strip(), token.content, (token.map or [0])[0] + 1)
        for token in _parsed(page)
        if token.type == "fence" and token.info.strip() == language
    ]


def commands(page: Path) -> list[list[str]]:
    """Return every command of the bash blocks and of code in running text, split into words."""
    lines = [
        line for block in blocks(page, "bash") for line in block.text.replace("\\\n", " ").splitlines() if line.strip()
    ]
    lines += [token.content for token in _inline(page) if token.type == "code_inline" and _is_command(token.content)]
    return [part for line in lines for part in _commands(line)]


def _commands(line: str) -> Iterator[list[str]]:
    words: list[str] = []
    for word in shlex.split(line, comments=True):
        if word == "&&":
            yield words
            words = []
        else:
            words.append(word)
    if words:
        yield words


def _is_command(text: str) -> bool:
    return text.startswith(_PROGRAMS) and "..." not in text


def links(page: Path) -> list[str]:
    """Return the targets of all links and pictures."""
    found = [str(token.attrs.get("href") or token.attrs.get("src")) for token in _inline(page) if token.attrs]
    return found + _SOURCE.findall(page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    tokens = _parsed(page)
    titles = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken(root: Path = ROOT) -> list[str]:
    """Return every link to a file or heading of the project that does not exist, with its page."""
    found = []
    for page in pages(root):
        for link in links(page):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                found.append(f"{page.relative_to(root).as_posix()}: {link}")
    return found


def _parsed(page: Path) -> list[Token]:
    return _MARKDOWN.parse(page.read_text(encoding="utf-8"))


def _inline(page: Path) -> Iterator[Token]:
    return (child for token in _parsed(page) for child in token.children or ())
