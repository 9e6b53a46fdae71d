"""Whether what is committed is what the committed records render to; `python -m paper_tables --check`.

Tables, report and pages are compared to the byte. Figures too, as long as the same version of matplotlib draws them:
another one places its lines a little differently, so then only their presence is compared, and that is said.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from paper_tables.readme import README, filled, pages
from paper_tables.rendering import RENDERED, REPORT, drawn_by, rendering
from results import Store

_PICTURES = (".png", ".svg")
_MAKER = re.compile(r"<dc:title>(matplotlib [^<]*)</dc:title>")
_DRAWING = re.compile(r"<svg.*?</svg>", re.DOTALL)


@dataclass(frozen=True)
class Finding:
    """A file, by its path below the folder that holds README and paper_tables, and what is wrong with it."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


def findings(
    store: Store | None = None, folder: Path = RENDERED, readme: Path = README
) -> tuple[list[Finding], list[str]]:
    """Return what is not as the records say, and remarks on what could not be compared.

    Args:
        store: records; those of the checkout by default.
        folder: of the committed output, one folder per tier.
        readme: the blocks of records of it, and of the pages below its folder, are compared too.
    """
    chosen = store or Store()
    wrong: list[Finding] = []
    remarks: list[str] = []
    for tier in _tiers(folder):
        found, remark = _tier(tier, chosen, folder / tier, readme.parent)
        wrong += found
        remarks += remark
    for page in pages(readme.parent):
        text = page.read_text(encoding="utf-8")
        if filled(text, chosen) != text:
            wrong.append(Finding(page.relative_to(readme.parent).as_posix(), "its blocks of records differ"))
    return wrong, remarks


def _tiers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _tier(tier: str, store: Store, folder: Path, root: Path) -> tuple[list[Finding], list[str]]:
    made = rendering(tier, store)
    fresh = made.files
    committed = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    other = _other_maker(committed)
    wrong = [Finding(line, "odd") for line in made.odd]
    for name in sorted(fresh.keys() | committed.keys()):
        if name not in committed:
            problem = "missing"
        elif name not in fresh:
            problem = "left over, no record makes it"
        elif _comparable(name, fresh[name], other) != _comparable(name, committed[name], other):
            problem = "differs"
        else:
            continue
        wrong.append(Finding((folder / name).relative_to(root).as_posix(), problem))
    remark = f"{tier}: figures are not compared, they were drawn by {other} and here is {drawn_by()}"
    return wrong, [remark] if other else []


def _other_maker(committed: dict[str, bytes]) -> str | None:
    """Return the version of matplotlib that drew what is committed, if it is another one."""
    makers = {
        match.group(1)
        for name, content in committed.items()
        if name.endswith(".svg") and (match := _MAKER.search(content.decode(errors="replace")))
    }
    return next(iter(sorted(makers - {drawn_by()})), None)


def _comparable(name: str, content: bytes, other_maker: str | None) -> bytes:
    """Return what of a file must agree."""
    if other_maker is None:
        return content
    if name.endswith(_PICTURES):
        return b""
    return _DRAWING.sub("", content.decode()).encode() if name == REPORT else content
