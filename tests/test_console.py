import pytest

from gdacli import console


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """Give the time as a list of one number."""
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_the_time_left_reckons_neither_with_start_up_nor_with_what_was_there(clock, capsys):
    with console.progress("make", 1000, "images") as advance:
        advance(900, free=True)
        clock[0] = 30.0  # loading
        advance(1)
        clock[0] = 40.0
        advance(1)
        clock[0] = 45.0
        advance(5, free=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "make: 901/1000 images, ...",
        "make: 902/1000 images, 980 s left",
        "make: 907/1000 images, 1395 s left",
    ]


def test_the_last_line_says_how_long_it_took(clock, capsys):
    with console.progress("make", 2, "images") as advance:
        advance(note="loss 0.5")
        clock[0] = 3.0
        advance(note="loss 0.4")
    assert capsys.readouterr().err == "make: 2/2 images, 3.0 s, loss 0.4\n"


def test_tables_are_aligned():
    text = console.table(["name", "n"], [["a", 1], ["long name", 100]])
    assert text == "name         n\n---------  ---\na            1\nlong name  100"
