"""A report as Markdown or as one HTML page that needs nothing else: no network, no script."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

STYLE = """
body { font: 15px/1.5 sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #222; }
h1, h2, h3 { line-height: 1.2; }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px; }
th, td { border: 1px solid #bbb; padding: 0.25em 0.6em; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
th { background: #eee; }
figure { margin: 1.5em 0; }
figure img { max-width: 100%; }
figcaption { font-size: 13px; color: #444; }
@page { margin: 15mm; }
@media print {
  body { font-size: 10pt; max-width: none; margin: 0; padding: 0; }
  table, figcaption { font-size: 8pt; }
  table, figure, tr { break-inside: avoid; }
  h1, h2, h3 { break-after: avoid; }
}
""".strip()


@dataclass(frozen=True)
class Heading:
    """A title; `level` 1 is that of a page."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Table:
    """Rows of text; the first column names them."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Picture:
    """A PNG file and what it shows."""

    file: str
    caption: str
    png: bytes


Block = str | Heading | Table | Picture
"""A string is a paragraph."""


def to_markdown(blocks: Sequence[Block]) -> str:
    """Markdown in which pictures are links to their files."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, Picture):
        return f"![{block.caption}]({block.file})"
    if isinstance(block, Table):
        lines = [block.header, ("---",) * len(block.header), *block.rows]
        return "\n".join(f"| {' | '.join(c.replace('|', '/') for c in line)} |" for line in lines)
    return block


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """One page with its pictures inside."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n"
        + "\n".join(_html(block) for block in blocks)
        + "\n</body>\n</html>\n"
    )


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
    if isinstance(block, Picture):
        data, caption = base64.b64encode(block.png).decode(), html.escape(block.caption)
        image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
        return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
    if isinstance(block, Table):
        head = _row(block.header, "th")
        body = "\n".join(_row(row, "td") for row in block.rows)
        return f"<table>\n<thead>\n{head}\n</thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f"<p>{html.escape(block)}</p>"


def _row(cells: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"
