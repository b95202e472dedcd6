import io

import numpy as np
from PIL import Image
from test_report import Page

from gdacli.grid import contact_page, contact_sheet
from gdacli.thumbnails import data_uri, thumbnail

RED = np.zeros((3, 8, 8), np.uint8)
RED[0] = 200
WIDE = np.full((3, 100, 300), 77, np.uint8)


def drawn(rows, titles, cell) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(contact_sheet(rows, titles, cell=cell))))


def count(sheet: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((sheet == colour).all(2).sum())


def test_a_large_image_is_scaled_down_and_a_small_one_stays():
    assert thumbnail(RED, 96).size == (8, 8)
    assert thumbnail(WIDE, 96).size == (96, 32)
    assert data_uri(WIDE, 64).startswith("data:image/png;base64,iVBOR")
    assert data_uri(WIDE, 96).startswith("data:image/webp;base64,UklGR")


def test_images_fit_their_cells_small_ones_by_whole_factors():
    sheet = drawn([("a", [RED, WIDE]), ("b", [None, RED])], ["source", "0.5"], 60)
    assert sheet.shape[2] == 3
    assert count(sheet, (200, 0, 0)) == 2 * (8 * 7) ** 2  # 7 is the largest factor that fits
    assert count(sheet, (77, 77, 77)) == 60 * 20
    assert count(sheet, (0xF2, 0xF4, 0xF7)) == 60 * 60


def test_the_sheet_grows_with_rows_and_columns_and_not_with_long_titles():
    one = drawn([("a", [RED])], ["s"], 64)
    more = drawn([("a", [RED, RED])] * 3, ["s", "t"], 64)
    assert (more.shape[0] - one.shape[0], more.shape[1] - one.shape[1]) == (2 * 68, 68)
    long = drawn([("handwritten " * 20, [RED])], ["strength " * 20], 64)
    assert long.shape[0] == one.shape[0]
    assert long.shape[1] < one.shape[1] + 200
    assert (long[:, -12:] == 255).all()
    assert drawn([], ["source"], 64).shape[2] == 3


def test_the_sheet_is_the_same_every_time():
    rows = [("café", [RED, None])]
    assert contact_sheet(rows, ["a", "b"], cell=32) == contact_sheet(rows, ["a", "b"], cell=32)


def test_the_page_is_whole_and_shows_names_as_they_are():
    text = contact_page(
        [("<b>a</b> & 'c'", [RED, None]), ("d", [np.zeros((3, 500, 500), np.uint8), RED])],
        ["source", '"0.5"'],
        title="Preview <1>",
        notes=["a < b"],
    )
    page = Page(text)
    assert page.open == []
    assert [image["alt"] for image in page.images] == ["<b>a</b> & 'c', source", "d, source", 'd, "0.5"']
    assert [image.get("class") for image in page.images] == ["small", None, "small"]
    assert all(link.startswith("data:image/") for link in page.links)
    assert "Preview <1>" in page.text
    assert "a < b" in page.text
    assert len(text) < 20_000
