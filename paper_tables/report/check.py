"""Finds what is committed and is not what the committed records render to; `python -m paper_tables --check`.

Markdown is compared to the byte. Figures are drawn, and not compared: another version of matplotlib places its lines a
little differently. Whatever else lies in a folder is not committed, and left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paper_tables.report.readme import README, filled, pages
from paper_tables.report.render import COMMITTED_FIGURES, RENDERED, Formats, rendering
from paper_tables.report.results_page import PAGE, TIER, results_page
from results import Store
from results.store import Snapshot

_FORMATS = Formats(every_png=True)


@dataclass(frozen=True)
class Finding:
    """A file, by its path below the folder that holds README and paper_tables, and what is wrong with it."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


def findings(store: Store | None = None, folder: Path = RENDERED, readme: Path = README) -> list[Finding]:
    """Return what is not as the records say.

    Args:
        store: records; those of the checkout by default.
        folder: of the committed output, one folder per tier; RESULTS.md lies next to it.
        readme: the blocks of records of it, and of the pages below its folder, are compared too.
    """
    chosen = Snapshot((store or Store()).folder)
    wrong: list[Finding] = []
    for tier in _tiers(folder):
        wrong += _tier(tier, chosen, folder / tier, readme.parent)
    for page in pages(readme.parent):
        text = page.read_text(encoding="utf-8")
        if filled(text, chosen) != text:
            wrong.append(Finding(page.relative_to(readme.parent).as_posix(), "its blocks of records differ"))
    return wrong


def _tiers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _tier(tier: str, store: Store, folder: Path, root: Path) -> list[Finding]:
    made = rendering(tier, store, _FORMATS)
    wrong = [Finding(line, "odd") for line in made.odd]
    fresh = {folder / name: content for name, content in made.files.items() if _is_committed(name)}
    if tier == TIER:
        page = results_page(made.contents, sorted(path.name for path in fresh), f"{folder.parent.name}/{tier}")
        fresh[folder.parent.parent / PAGE] = page.encode()
    committed = {path for path in folder.iterdir() if _is_committed(path.name)}
    for path in sorted(fresh.keys() | committed):
        if not path.is_file():
            problem = "missing"
        elif path not in fresh:
            problem = "left over, no record makes it"
        elif path.suffix == ".md" and path.read_bytes() != fresh[path]:
            problem = "differs"
        else:
            continue
        wrong.append(Finding(path.relative_to(root).as_posix(), problem))
    return wrong


def _is_committed(name: str) -> bool:
    return name.endswith(".md") or name.removesuffix(".png") in COMMITTED_FIGURES
