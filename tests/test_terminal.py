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
