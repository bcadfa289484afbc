"""What the terminal shows of tables."""

from astropy.table import Table

from xlatent.cli.ui import print_table


def test_words_stand_left_and_numbers_right_and_brackets_are_no_markup(capsys):
    print_table(Table({"name": ["a [red] b", "c"], "p": [0.00123, 0.5], "value": [1.23456, -20.0], "n": [1, 200]}))
    assert capsys.readouterr().out.splitlines() == [
        "name            p    value    n",
        "a [red] b  0.0012    1.235    1",
        "c             0.5  -20.000  200",
    ]


def test_long_words_are_wrapped_whole_or_cut_short(capsys):
    long = "word " * 29
    print_table({"name": [long], "z": ["+1.0"]}, words=("name",))
    assert capsys.readouterr().out.count("word") == 29
    print_table({"name": [long], "z": ["+1.0"]}, words=("name",), shortened=("name",), min_width={"z": 4})
    shown = capsys.readouterr().out
    assert shown.count("word") < 29 and "…" in shown and "+1.0" in shown
