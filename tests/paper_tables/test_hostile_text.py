"""Names and errors of any content are shown as they are: in Markdown for a parser, in LaTeX read back by command."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from paper_tables.item import Table
from paper_tables.report.render import rendered
from paper_tables.report.writers import latex, markdown, markdown_rows, one_line
from results import Store
from tests.results.factory import make_record

HOSTILE = (
    *("a|b", "`code`", "*a* **b**", "_a_ __b__ snake_case", "<b>x</b>", "<script>alert(1)</script>", "a & b &amp; c"),
    *(
        "50 % of $x$",
        "#1 # 2",
        "{x} }{",
        "\\",
        "\\|",
        "a\\",
        "~a~ ~~b~~",
        "x^2^",
        "two\nlines",
        "gap\n\npar",
        "cr\r\nx",
    ),
    *(
        "[x](javascript:alert(1))",
        "![i](http://x)",
        "[x]: http://x",
        "[ ] todo",
        "https://x",
        "<http://x>",
        "- 1",
        "+ 2",
    ),
    *("\\input{/etc/passwd}", "\\write18{rm}", "%comment", "[1cm]", "*", "", " ", "\"'", "\x1b[31mred", "# x"),
    *("$$x$$", "---", "===", "1. one", "1) one", "> q", "\t", "\\end{tabular}", "^^5c", "a\u2028b", "é ü 中", "&#42;"),
)
ITEM = Table("hostile", "Hostile", "Words.", (), build=lambda records: pd.DataFrame())


def table(text: str) -> pd.DataFrame:
    return pd.DataFrame([{"Name": text, f"Of {text}": text, "Value": "1.5", "Records": "r-1"}])


def seen(text: str) -> str:
    """Return what a reader sees of a text on one line."""
    return " ".join(one_line(text).split())


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_of_markdown_holds_the_text_and_nothing_else(text: str) -> None:
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = parser.parse(markdown_rows(table(text)))
    cells = [token for token in tokens if token.type == "inline"]
    kinds = {child.type for cell in cells for child in cell.children or ()}
    assert kinds <= {"text", "text_special"}
    found = ["".join(child.content for child in cell.children or ()) for cell in cells]
    assert [" ".join(cell.split()) for cell in found] == ["Name", seen(f"Of {text}"), "Value", *[seen(text)] * 2, "1.5"]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_page_of_markdown_has_one_table_whatever_its_notes_say(text: str) -> None:
    page = markdown(ITEM, table(text), (text, f"Note: {text}."))
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(page)
    assert [token.tag for token in tokens if token.type == "heading_open"] == ["h1"]
    assert {token.type for token in tokens} <= {
        *("heading_open", "heading_close", "paragraph_open", "paragraph_close", "inline"),
        *(f"{part}_{end}" for part in ("table", "thead", "tbody", "tr", "th", "td") for end in ("open", "close")),
        *("bullet_list_open", "bullet_list_close", "list_item_open", "list_item_close"),
    }
    assert sum(token.type == "bullet_list_open" for token in tokens) == 1  # the list of records
    kinds = {child.type for token in tokens for child in token.children or ()}
    assert kinds <= {"text", "text_special"}


_COMMANDS = {
    **{r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\textbackslash{}": "\\", r"\textasciigrave{}": "`"},
    **{r"\textless{}": "<", r"\textgreater{}": ">", r"\textbar{}": "|", r"\allowbreak{}": "", "$-$": "-", "''": '"'},
    **{rf"\{letter}": letter for letter in "&%$#_{}"},
}
_READ = re.compile("|".join(re.escape(command) for command in sorted(_COMMANDS, key=len, reverse=True)))


def read(source: str) -> str:
    """Return what LaTeX sets of a cell; fails where a character that steers it is left."""
    rest = _READ.sub("", source.removeprefix("{}"))
    assert not re.search(r"[\\&%$#_{}^~\n]", rest), f"{source!r} steers LaTeX"
    return _READ.sub(lambda found: _COMMANDS[found[0]], source.removeprefix("{}"))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_of_latex_holds_the_text_and_nothing_else(text: str) -> None:
    source = latex(ITEM, table(text), (text,))
    body = source.partition("\\midrule\n")[2].partition("\n\\bottomrule")[0]
    assert body.endswith(r" \\") and "\n" not in body
    cells = re.split(r"(?<!\\) & ", body.removesuffix(r" \\"))
    assert len(cells) == 3
    assert [read(cell).split() for cell in cells] == [seen(text).split()] * 2 + [["1.5"]]
    assert not cells[0].startswith(("[", "*"))
    after = source.partition("\\end{table}\n")[2].splitlines()
    assert after and all(line.startswith("% ") or line == "%" for line in after)
    head = source.partition("\\toprule\n")[2].partition("\n")[0]
    assert not head.startswith(("[", "*")) and not re.search(r"\\\\\s*[\[*]", head)


@pytest.mark.parametrize("text", ["\udc80 | <i>", "$x$ \\input{y} \x00", "{\n\n}"])
def test_hostile_settings_reach_no_page_as_markup(text: str, tmp_path) -> None:
    store = Store(tmp_path)
    model = {"family": text, "layers": 4, "width": 128, "name": text}
    for number in range(3):
        device = {"kind": "cpu", "name": text}
        store.append(make_record(number, {"perplexity": 9.0}, seed=number, model=model, device=device, command=text))
    failing = make_record(9, status="failed", error=f"RuntimeError: {text}", model=model)
    store.append(failing)
    files = rendered("smoke", store)
    page = files["report.html"].decode()
    assert "<i>" not in page and "\x00" not in page
    last = one_line(f"RuntimeError: {text}".splitlines()[-1])
    assert last in page.replace("&lt;", "<").replace("&gt;", ">")
    made = [files[name].decode() for name in files if name.endswith(".tex")]
    set_by_latex = [line for source in made for line in source.splitlines() if not line.startswith("%")]
    assert made and not any("\\input" in line for line in set_by_latex)
