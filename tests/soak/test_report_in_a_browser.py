"""The report of a real project in headless Chromium, on a desk and on a phone: `make soak`, not `make test`."""

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Project
from playwright.sync_api import Browser, Page, sync_playwright

VIEWS = {"desk": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Project:
    """Give an evaluated project with variants at two strengths, some of which the filter dropped."""
    made = Project(tmp_path_factory.mktemp("evaluated"))
    arms = {"targeted": {"select": "cluster", "add": "synthetic", "strengths": [0.5, 1.0], "train": {}}}
    made.write(
        data={"source": str(shapes)},
        probe={"folds": 2},
        generate={"filter": {"min_confidence": 0.34}},
        compare={"arms": ["original", "upsample", "random", "targeted"]},
        evaluate={"corruption_images": 4, "gradient_variance": 2},
        arms=arms,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GDACLI_WORK", str(made.folder / "work"))
        made.ok("prepare", "probe", "select", "fit", "generate", "mix", "train", "evaluate")
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give the machine's Chromium or Chrome, else the one that `playwright install chromium` has fetched."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=VIEWS)
def opened(request: pytest.FixtureRequest, browser: Browser, evaluated: Project) -> Iterator[Page]:
    """Give the report in a view, and check afterwards that nothing was complained of or asked of the network."""
    width, height = VIEWS[request.param]
    context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda sent: asked.append(sent.url) if not sent.url.startswith("data:") else None)
    url = (evaluated.folder / "data/evaluation/report.html").as_uri()
    page.goto(url)
    yield page
    assert said == []
    assert [each for each in asked if not each.startswith("blob:")] == [url]
    context.close()


def test_every_image_is_there_and_is_described(opened):
    shown = opened.evaluate(
        "[...document.images].map(each => [each.complete && each.naturalWidth > 0, each.alt.trim().length > 0])"
    )
    assert len(shown) > 10
    assert all(there and described for there, described in shown)
    labels = opened.evaluate("[...document.querySelectorAll('figure[role=img]')].map(each => each.ariaLabel)")
    assert len(labels) >= 7
    assert all(labels)
    drawn = opened.evaluate("[...document.querySelectorAll('svg')].map(each => each.getBoundingClientRect().width)")
    assert all(width > 200 for width in drawn)


def test_the_page_fits_the_width_and_wide_tables_scroll_by_themselves(opened):
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    wide = opened.evaluate(
        "[...document.querySelectorAll('.wide')]"
        ".filter(each => each.scrollWidth > each.clientWidth).map(each => each.tabIndex)"
    )
    assert all(index == 0 for index in wide), "the arrow keys scroll it"
    sizes = opened.evaluate(
        "[...document.querySelectorAll('p, td, li')].map(each => parseFloat(getComputedStyle(each).fontSize))"
    )
    assert min(sizes) >= 12


def test_links_lead_to_parts_that_are_there_and_headings_go_down_step_by_step(opened):
    missing = opened.evaluate(
        "[...document.querySelectorAll('nav a')]"
        ".filter(each => !document.querySelector(each.getAttribute('href'))).length"
    )
    assert missing == 0
    levels = opened.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(each => Number(each.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert opened.evaluate("document.documentElement.lang") == "en"


def test_a_variant_is_rejected_and_saved_by_keyboard_alone(opened, tmp_path):
    def focused(attribute: str) -> str | None:
        return opened.evaluate(f"document.activeElement.getAttribute('{attribute}')")

    for _ in range(200):
        opened.keyboard.press("Tab")
        if focused("class") == "reject":
            break
    key = focused("value")
    assert key is not None
    assert focused("aria-pressed") == "false"
    opened.keyboard.press("Enter")
    assert focused("aria-pressed") == "true"
    opened.keyboard.press("Space")
    assert focused("aria-pressed") == "false"
    opened.keyboard.press("Space")
    assert opened.locator("output").inner_text() == "1 image rejected"
    opened.locator(".bar button").focus()
    with opened.expect_download() as download:
        opened.keyboard.press("Enter")
    assert download.value.suggested_filename == "rejects.csv"
    download.value.save_as(tmp_path / "rejects.csv")
    with (tmp_path / "rejects.csv").open(newline="") as file:
        assert [row["key"] for row in csv.DictReader(file)] == [key]


def test_what_is_folded_opens_by_keyboard(opened):
    folded = opened.locator("details")
    assert folded.count() >= 2
    for number in range(folded.count()):
        folded.nth(number).locator("summary").focus()
        opened.keyboard.press("Enter")
        assert folded.nth(number).get_attribute("open") is not None
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
