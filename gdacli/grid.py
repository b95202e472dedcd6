"""Contact sheets: a labelled grid of images, as one PNG and as one page."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gdacli.images import encode_png
from gdacli.thumbnails import data_uri, thumbnail

Row = tuple[str, Sequence[np.ndarray | None]]
"""A row's title and its images, uint8 [3, H, W], None where there is none; one per column."""

_GAP, _MARGIN, _TEXT = 4, 12, 13
_WIDEST_TITLE = 160
_NARROWEST_COLUMN = 48
_INK, _SOFT, _EMPTY = "#20242c", "#667085", "#f2f4f7"
_PAGE_SIDE = 256
_PIXELATED_BELOW = 96


def contact_sheet(rows: Sequence[Row], column_titles: Sequence[str], *, cell: int) -> bytes:
    """Draw the images in a grid on white, with the titles of rows and columns.

    Args:
        rows: from the top.
        column_titles: from the left.
        cell: the side of an image's place in pixels. Smaller images are enlarged by a whole factor, pixel by pixel;
            larger ones are scaled down (Lanczos).

    Returns:
        the PNG. Titles that are too wide are shortened; characters that DejaVu Sans lacks (Chinese) are boxes.
    """
    import matplotlib  # for its font: Pillow's own has no accents

    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", _TEXT)
    column = max(cell, _NARROWEST_COLUMN)
    row_titles = [_shortened(title, font, _WIDEST_TITLE) for title, _ in rows]
    left = _MARGIN + max((int(font.getlength(title)) + 2 * _GAP for title in row_titles), default=0)
    top = _MARGIN + _TEXT + 2 * _GAP
    width = left + len(column_titles) * (column + _GAP) - _GAP + _MARGIN
    sheet = Image.new("RGB", (width, top + len(rows) * (cell + _GAP) - _GAP + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    centres = [left + number * (column + _GAP) + column // 2 for number in range(len(column_titles))]
    for centre, title in zip(centres, column_titles, strict=True):
        draw.text((centre, top - _GAP), _shortened(title, font, column), _SOFT, font, anchor="md")
    for number, (title, (_, images)) in enumerate(zip(row_titles, rows, strict=True)):
        middle = top + number * (cell + _GAP) + cell // 2
        draw.text((_MARGIN, middle), title, _INK, font, anchor="lm")
        for centre, image in zip(centres, images, strict=True):
            if image is None:
                corner = centre - cell // 2, middle - cell // 2
                draw.rectangle((*corner, corner[0] + cell - 1, corner[1] + cell - 1), _EMPTY)
            else:
                picture = _fitted(image, cell)
                sheet.paste(picture, (centre - picture.width // 2, middle - picture.height // 2))
    return encode_png(sheet)


def contact_page(rows: Sequence[Row], column_titles: Sequence[str], *, title: str, notes: Sequence[str]) -> str:
    """Return the grid as one HTML page that loads nothing from elsewhere.

    Args:
        rows: as for `contact_sheet`; images larger than 256 pixels are scaled down.
        column_titles: from the left.
        title: the page's heading.
        notes: paragraphs under it.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["picture"] = lambda image: data_uri(image, _PAGE_SIDE)
    environment.filters["pixelated"] = lambda image: max(image.shape) < _PIXELATED_BELOW
    template = files("gdacli").joinpath("templates/preview.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(rows=rows, column_titles=column_titles, title=title, notes=notes)


def _fitted(image: np.ndarray, cell: int) -> Image.Image:
    picture = thumbnail(image, cell)
    factor = cell // max(picture.size)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Cut a title to `width` pixels, keeping its beginning and its end."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    kept = len(text) - 1
    while kept > 1 and font.getlength(_ends(text, kept)) > width:
        kept -= 1
    return _ends(text, kept)


def _ends(text: str, kept: int) -> str:
    return text[: kept - kept // 3] + "…" + text[len(text) - kept // 3 :]
