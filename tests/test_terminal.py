import io

import pytest

from engine import terminal
from engine.terminal import plain, warning


def test_what_acts_on_a_terminal_is_shown_instead() -> None:
    assert plain("a\x1b[2Jb\x07\x7f") == "a␛[2Jb␇␡"
    assert plain("tab\tline\nend\r") == "tab␉line␊end␍"
    assert (
        plain("c1 \x9b31m, override \u202e, zero width \u200b")
        == "c1 �31m, override �, zero width �"
    )
    assert plain("é 漢字 🙂 ≥") == "é 漢字 🙂 ≥"


def test_a_warning_is_wrapped_below_its_first_word() -> None:
    lines = warning("word " * 40).splitlines()
    assert lines[0].startswith("  warning: word word")
    assert all(line.startswith(" " * 11 + "word") for line in lines[1:])
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("charset", "shown"),
    [
        ("utf-8", "9 rows → a.jsonl … café"),
        ("ascii", "9 rows -> a.jsonl ... caf\\xe9"),
        ("latin-1", "9 rows -> a.jsonl ... café"),
    ],
)
def test_a_terminal_gets_what_its_characters_can_say(charset: str, shown: str) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding=charset)
    terminal.speak_its_charset(out, None)
    out.write("9 rows → a.jsonl … café")
    out.flush()
    assert out.buffer.getvalue().decode(charset) == shown  # pyright: ignore[reportAttributeAccessIssue]


def test_a_name_that_is_no_utf_8_can_be_shown() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    terminal.speak_its_charset(out)
    out.write("caf\udce9")
    out.flush()
    assert out.buffer.getvalue() == b"caf\\udce9"  # pyright: ignore[reportAttributeAccessIssue]
