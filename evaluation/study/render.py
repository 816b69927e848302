"""Report as Markdown, or as one HTML page that loads nothing from elsewhere."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

TEMPLATE = Path(__file__).with_name("report.html.j2")


@dataclass(frozen=True)
class Heading:
    """A heading; `level` 1 is the title of a page."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Table:
    """Rows of text; the first column names them."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Picture:
    """A PNG file and its caption."""

    file: str
    caption: str
    png: bytes

    @property
    def base64(self) -> str:
        """Content for a data URL."""
        return base64.b64encode(self.png).decode()


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
        cells = [[cell.replace("|", "/") for cell in row] for row in (block.header, *block.rows)]
        return tabulate(cells[1:], cells[0], tablefmt="github", disable_numparse=True)
    return block


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """One page that contains its pictures."""
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title=title, blocks=blocks) + "\n"
