"""Writes the sample pool and the list of flaws planted in it.

    python -m engine.assets.sample.generate [--seed 0] [--to FILE]

`pool.jsonl` holds Alpaca rows (`instruction`, `input`, `output`) with two extra keys: `task`, the
family of the row, and `difficulty`, 1 (easy) to 4 (hard) within its family. `truth.json`, written
beside it, gives the flawed rows by 1-based line number: `empty_response`, `too_long` (the prompt
alone passes 512 tokens), `duplicate` (pairs: first line, later line), `wrong_answer` and
`unparsable`. The same seed gives the same bytes.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from engine.assets.sample import banks

Pair = tuple[str, str]  # instruction, output
Maker = Callable[[Random], Pair]
Task = tuple[str, str, str, int]  # instruction, input, output, difficulty

NUM_EMPTY, NUM_DUPLICATES, NUM_UNPARSABLE = 4, 6, 2
NUM_WRONG = {"arithmetic": 6, "unit_conversion": 3, "dates": 3}
PER_LEVEL = 18  # rows a computed family draws at each difficulty
WEEKDAYS = banks.words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = banks.words(
    "January February March April May June July August September October November December"
)
UNITS = banks.words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
)
TENS = ("", "", *banks.words("twenty thirty forty fifty sixty seventy eighty ninety"))
ORDINALS = ("first", "second", "third", "fourth")


@dataclass(frozen=True)
class Row:
    """One row of the pool; `flaw` names what was done to it and isn't written."""

    instruction: str
    input: str
    output: str
    task: str
    difficulty: int
    flaw: str = ""


def _pick(fill: Callable[..., Pair], *choices: Sequence[Any]) -> Maker:
    """A maker that fills a text with one draw from each of the choices."""
    return lambda rng: fill(*(rng.choice(c) for c in choices))


def _drawn(
    rng: Random, levels: dict[int, tuple[Maker, ...]], per_level: int = PER_LEVEL
) -> Iterator[Task]:
    """Rows of a computed family: the makers of a level in turn, no question twice."""
    seen: set[str] = set()
    for level, makers in levels.items():
        for i in range(per_level):
            question, answer = makers[i % len(makers)](rng)
            while question in seen:
                question, answer = makers[i % len(makers)](rng)
            seen.add(question)
            yield question, "", answer, level


def _from_bank(bank: banks.Graded) -> Iterator[Task]:
    """Rows whose question and answer both stand in a bank."""
    for level, pairs in bank.items():
        for question, answer in pairs:
            yield question, "", answer, level


def _with_input(bank: banks.Graded, asks: dict[int, Sequence[str]]) -> Iterator[Task]:
    """Rows whose text goes into `input`, under the wordings of their level in turn."""
    for level, pairs in bank.items():
        for i, (text, answer) in enumerate(pairs):
            yield asks[level][i % len(asks[level])], text, answer, level


def _shuffled(rng: Random, items: Sequence[Any]) -> list[Any]:
    return rng.sample(items, len(items))


def _written(day: date) -> str:
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def _weekday(day: date) -> str:
    return WEEKDAYS[day.weekday()]


# --- Arithmetic and units ---------------------------------------------------------------------


def arithmetic(rng: Random) -> Iterator[Task]:
    """Sums in words, from one step to several."""
    names, small = banks.NAMES, range(3, 13)
    easy = (
        _pick(lambda a, b: (f"What is {a} plus {b}?", f"{a + b}"), range(13, 90), range(13, 90)),
        _pick(
            lambda n, a, b: (
                f"{n} has {a} marbles and gives away {b}. How many are left?",
                f"{a - b} marbles.",
            ),
            names,
            range(25, 60),
            range(3, 20),
        ),
        _pick(
            lambda a, b: (
                f"A baker fills {a} trays with {b} rolls each. How many rolls is that?",
                f"{a * b} rolls.",
            ),
            small,
            range(6, 25),
        ),
        _pick(
            lambda a, b: (
                f"{a * b} chairs stand in {a} equal rows. How many are in each row?",
                f"{b} chairs.",
            ),
            small,
            range(4, 16),
        ),
    )
    two_steps = (
        _pick(
            lambda n, a, b: (
                f"{n} buys {a} pens at {b} dollars each and pays with a 50-dollar note. "
                "What is the change?",
                f"The pens cost {a * b} dollars, so the change is {50 - a * b} dollars.",
            ),
            names,
            range(2, 7),
            range(2, 8),
        ),
        _pick(
            lambda a, b, c: (
                f"A bus carries {a} people. {b} get off and {c} get on. How many are on it now?",
                f"{a} - {b} + {c} = {a - b + c}",
            ),
            range(20, 50),
            range(3, 15),
            range(2, 12),
        ),
        _pick(
            lambda n, a, b, c: (
                f"{n} reads {a} pages a day for {b} days, and {c} pages are left. "
                "How long is the book?",
                f"{a} x {b} + {c} = {a * b + c} pages.",
            ),
            names,
            range(11, 40),
            range(4, 10),
            range(15, 90),
        ),
        _pick(
            lambda a, b, mean: (
                f"Three parcels weigh {a} kg, {b} kg and {3 * mean - a - b} kg. "
                "What is their mean weight?",
                f"{3 * mean} kg shared by 3 is {mean} kg.",
            ),
            range(4, 10),
            range(4, 10),
            range(7, 13),
        ),
    )
    levels = {1: easy, 2: two_steps, 3: _arithmetic_shares(), 4: _arithmetic_reasoned()}
    return _drawn(rng, levels)


def _arithmetic_shares() -> tuple[Maker, ...]:
    return (
        _pick(
            lambda k, p: (
                f"A coat at {20 * k} dollars is reduced by {p} percent. What does it cost now?",
                f"The cut is {k * p // 5} dollars, so it costs {20 * k - k * p // 5} dollars.",
            ),
            range(3, 16),
            (5, 10, 15, 20, 25, 30, 35, 40),
        ),
        _pick(
            lambda v, t, u: (
                f"A train covers {v * t} km in {t} hours. How far does it go in {u} hours?",
                f"It does {v} km an hour, so it goes {v * u} km.",
            ),
            range(60, 140, 5),
            (2, 3, 4),
            (5, 6, 7, 9),
        ),
        _pick(
            lambda r, k: (
                f"Divide {k * sum(r)} sweets between two children in the ratio {r[0]} to {r[1]}.",
                f"One share is {k} sweets, so they get {k * r[0]} and {k * r[1]}.",
            ),
            banks.RATIOS,
            range(4, 16),
        ),
        _pick(
            lambda n, age, b: (
                f"{n} is {2 * age - b} and in {b} years will be twice as old as Leo is now. "
                "How old is Leo?",
                f"In {b} years {n} will be {2 * age}, so Leo is {age}.",
            ),
            banks.NAMES,
            range(9, 25),
            range(2, 9),
        ),
        _pick(
            lambda k: (
                f"Three quarters of {4 * k} pupils play a sport, and a third of the players swim. "
                "How many swim?",
                f"{3 * k} pupils play, so {k} swim.",
            ),
            range(5, 30),
        ),
    )


def _arithmetic_reasoned() -> tuple[Maker, ...]:
    return (
        _pick(
            lambda t: (
                f"One tap fills a tank in {t[0]} hours, another in {t[1]}. How long do both take?",
                f"Each hour they fill 1/{t[0]} + 1/{t[1]} = 1/{t[2]} of it, so {t[2]} hours.",
            ),
            banks.TAPS,
        ),
        _pick(
            lambda u, v, t: (
                f"Two cyclists {t * (u + v)} km apart ride towards each other at {u} and {v} km/h. "
                "How far has the first gone when they meet?",
                f"They close {u + v} km an hour and meet after {t} hours; it has gone {t * u} km.",
            ),
            range(12, 21),
            range(21, 30),
            (2, 3, 4),
        ),
        _pick(
            lambda k: (
                f"Savings of {100 * k} dollars grow by 10 percent a year. "
                "What are they after two years?",
                f"After one year {110 * k} dollars, and after two {121 * k} dollars.",
            ),
            range(2, 40),
        ),
        _pick(
            lambda c, h: (
                f"Hens and cows have {c + h} heads and {4 * c + 2 * h} legs. "
                "How many of each are there?",
                f"Hens alone would have {2 * (c + h)} legs. The other {2 * c} legs mean {c} cows, "
                f"so there are {h} hens.",
            ),
            range(4, 15),
            range(5, 20),
        ),
        _pick(
            lambda m: (
                f"Three consecutive numbers add up to {3 * m}. What is their product?",
                f"They are {m - 1}, {m} and {m + 1}, with product {(m - 1) * m * (m + 1)}.",
            ),
            range(5, 25),
        ),
    )


def unit_conversion(rng: Random) -> Iterator[Task]:
    """Metric steps first, then mixed units, given factors, and compound units."""
    few = range(2, 30)
    easy = (
        _pick(lambda a: (f"Convert {a} kilometres to metres.", f"{a * 1000} metres."), few),
        _pick(lambda a: (f"How many grams are {a} kilograms?", f"{a * 1000} grams."), few),
        _pick(lambda a: (f"How many minutes are {a} hours?", f"{a * 60} minutes."), few),
        _pick(lambda a: (f"How many days are {a} weeks?", f"{a * 7} days."), few),
        _pick(lambda a: (f"Convert {a * 10} millimetres to centimetres.", f"{a} cm."), few),
    )
    mixed = (
        _pick(
            lambda h, m: (
                f"Write {60 * h + m} minutes as hours and minutes.",
                f"{h} h {m} min.",
            ),
            range(2, 9),
            range(5, 60),
        ),
        _pick(
            lambda a, b: (f"Convert {a} kg {b} g to grams.", f"{1000 * a + b} g."),
            range(2, 9),
            range(50, 1000, 50),
        ),
        _pick(
            lambda h, m: (
                f"A film lasts {h} h {m} min. How many minutes is that?",
                f"{60 * h + m} minutes.",
            ),
            (1, 2, 3),
            range(5, 60),
        ),
        _pick(lambda k: (f"How many litres are {250 * k} ml?", f"{k / 4:g} litres."), range(3, 40)),
        _pick(
            lambda a, b: (f"Convert {a} feet {b} inches to inches.", f"{12 * a + b} inches."),
            range(3, 9),
            range(2, 12),
        ),
    )
    levels = {1: easy, 2: mixed, 3: _conversions_by_factor(), 4: _conversions_compound()}
    return _drawn(rng, levels)


def _conversions_by_factor() -> tuple[Maker, ...]:
    return (
        _pick(
            lambda k: (
                f"Convert {5 * k} degrees Celsius to Fahrenheit.",
                f"{5 * k} x 9/5 + 32 = {9 * k + 32} degrees Fahrenheit.",
            ),
            range(1, 40),
        ),
        _pick(
            lambda k: (
                f"Convert {9 * k + 32} degrees Fahrenheit to Celsius.",
                f"({9 * k + 32} - 32) x 5/9 = {5 * k} degrees Celsius.",
            ),
            range(1, 40),
        ),
        _pick(
            lambda a: (
                f"With 2.54 cm to the inch, how wide in centimetres is a {a}-inch shelf?",
                f"{a} x 2.54 = {a * 254 / 100:g} cm.",
            ),
            range(10, 60),
        ),
        _pick(
            lambda k: (
                f"Taking a mile as 1.6 km, convert {5 * k} miles to kilometres.",
                f"{5 * k} x 1.6 = {8 * k} km.",
            ),
            range(2, 40),
        ),
        _pick(
            lambda k: (
                f"Taking a pound as 0.45 kg, what do {20 * k} pounds weigh in kilograms?",
                f"{20 * k} x 0.45 = {9 * k} kg.",
            ),
            range(1, 20),
        ),
    )


def _conversions_compound() -> tuple[Maker, ...]:
    return (
        _pick(
            lambda k: (
                f"Convert {18 * k} kilometres per hour to metres per second.",
                f"{18 * k} x 1000 / 3600 = {5 * k} metres per second.",
            ),
            range(1, 20),
        ),
        _pick(
            lambda a: (
                f"How many square centimetres are {a} square metres?",
                f"A square metre is 100 x 100 cm, so {a * 10000} square centimetres.",
            ),
            range(2, 60),
        ),
        _pick(
            lambda k: (
                f"A leaking tap loses {25 * k} ml a minute. How many litres is that in a day?",
                f"A day has 1440 minutes, so {25 * k * 1440} ml or {36 * k} litres.",
            ),
            range(1, 12),
        ),
        _pick(
            lambda a, k: (
                f"A car burns {a} litres per 100 km. How much does it burn in {50 * k} km?",
                f"{a} x {50 * k} / 100 = {a * k / 2:g} litres.",
            ),
            range(4, 11),
            range(3, 16),
        ),
        _pick(
            lambda p: (
                f"A runner takes {p} minutes for each kilometre. What is that in km/h?",
                f"60 / {p} = {60 / p:g} km/h.",
            ),
            (3, 4, 5, 6, 7.5, 8, 10, 12),
        ),
    )


# --- Dates ------------------------------------------------------------------------------------


def _span(rng: Random, first_month: int, last_month: int) -> tuple[date, date]:
    """Two dates of one year, the first in `first_month`, the second in a month after it."""
    year, later = rng.randint(1995, 2030), rng.randint(first_month + 1, last_month)
    return date(year, first_month, rng.randint(1, 28)), date(year, later, rng.randint(1, 28))


def _days_between(rng: Random) -> Pair:
    # From March on, so that the year need not be named.
    start, end = _span(rng, rng.randint(3, 8), 9)
    return (
        f"How many days are there from {_written(start)[:-5]} to {_written(end)[:-5]}?",
        f"{(end - start).days} days.",
    )


def _days_across_february(rng: Random) -> Pair:
    start, end = _span(rng, rng.randint(1, 2), 4)
    return (
        f"How many days are there from {_written(start)} to {_written(end)}?",
        f"{(end - start).days} days.",
    )


def _days_after(rng: Random) -> Pair:
    start, _ = _span(rng, rng.randint(1, 11), 12)
    days = rng.randint(20, 90)
    return (
        f"What date is {days} days after {_written(start)}?",
        f"{_written(start + timedelta(days))}.",
    )


def _shift_end(rng: Random) -> Pair:
    start, length = (
        60 * rng.randint(19, 23) + rng.randint(1, 11) * 5,
        60 * rng.randint(5, 9) + 5 * rng.randint(1, 11),
    )
    end = (start + length) % 1440
    return (
        f"A night shift starts at {start // 60}:{start % 60:02} and lasts "
        f"{length // 60} h {length % 60} min. When does it end?",
        f"At {end // 60:02}:{end % 60:02}.",
    )


def _nth_weekday(nth: int, weekday: int, month: int, year: int) -> Pair:
    first = date(year, month, 1)
    day = first + timedelta((weekday - first.weekday()) % 7 + 7 * nth)
    return (
        f"What date is the {ORDINALS[nth]} {WEEKDAYS[weekday]} of {MONTHS[month - 1]} {year}?",
        f"The 1st is a {_weekday(first)}, so it is {_written(day)}.",
    )


def _leap(year: int) -> Pair:
    question = f"Is {year} a leap year?"
    if year % 400 == 0:
        return question, "Yes: it is a century, but it divides by 400."
    if year % 100 == 0:
        return question, "No: it is a century and doesn't divide by 400."
    if year % 4 == 0:
        return question, "Yes: it divides by 4 and isn't a century."
    return question, "No: it doesn't divide by 4."


def _month_length(month: int, year: int) -> Pair:
    after = date(year + month // 12, month % 12 + 1, 1)
    days = (after - date(year, month, 1)).days
    return f"How many days are there in {MONTHS[month - 1]} {year}?", f"{days} days."


def _age(life: tuple[str, banks.Date, banks.Date]) -> Pair:
    name, born, died = life
    age = died[0] - born[0] - (died[1:] < born[1:])
    return (
        f"{name} was born on {_written(date(*born))} and died on {_written(date(*died))}. "
        "At what age?",
        f"At the age of {age}.",
    )


def dates(rng: Random) -> Iterator[Task]:
    """Weekdays, months and calendars, from counting on to whole centuries."""
    days, months = range(7), range(12)
    easy = (
        _pick(
            lambda d, n: (
                f"If today is {WEEKDAYS[d]}, what day will it be in {n} days?",
                f"{WEEKDAYS[(d + n) % 7]}.",
            ),
            days,
            range(2, 7),
        ),
        _pick(
            lambda m, n: (
                f"Which month comes {n} months after {MONTHS[m]}?",
                f"{MONTHS[(m + n) % 12]}.",
            ),
            months,
            range(2, 8),
        ),
        _pick(_month_length, range(1, 13), range(2015, 2031)),
    )
    counting = (
        _pick(
            lambda d, n: (
                f"If today is {WEEKDAYS[d]}, what day was it {n} days ago?",
                f"{WEEKDAYS[(d - n) % 7]}.",
            ),
            days,
            range(8, 40),
        ),
        _days_between,
        _pick(_leap, (1700, 1900, 2000, 2100, 2400, *range(1950, 2050))),
    )
    centuries = (
        _pick(
            lambda event: (
                f"{event[0]} was on {_written(date(*event[1]))}. Which weekday was that?",
                f"It was a {_weekday(date(*event[1]))}.",
            ),
            banks.EVENTS,
        ),
        _pick(_nth_weekday, range(4), days, range(1, 13), range(2020, 2031)),
        _pick(_age, banks.LIVES),
    )
    across = (_days_after, _days_across_february, _shift_end)
    return _drawn(rng, {1: easy, 2: counting, 3: across, 4: centuries})


# --- Strings, sorting, numerals ---------------------------------------------------------------


def _repeated_letters(word: str) -> Pair:
    twice = sorted({c for c in word if word.count(c) > 1})
    return (
        f"Which letters occur more than once in '{word}'?",
        f"Only {', '.join(twice)}." if twice else "None of them.",
    )


def _palindrome(word: str) -> Pair:
    same = word == word[::-1]
    answer = "Yes: it reads the same both ways." if same else f"No: backwards it is '{word[::-1]}'."
    return f"Is '{word}' a palindrome?", answer


def _anagram(pair: Pair) -> Pair:
    left, right = ("".join(sorted(word)) for word in pair)
    answer = f"Yes: sorted, both give '{left}'."
    if left != right:
        answer = f"No: sorted, they give '{left}' and '{right}'."
    return f"Are '{pair[0]}' and '{pair[1]}' anagrams of each other?", answer


def _caesar(word: str, shift: int) -> Pair:
    moved = "".join(chr((ord(c) - 97 + shift) % 26 + 97) for c in word)
    return f"Move each letter of '{word}' {shift} places forward in the alphabet.", moved


def strings(rng: Random) -> Iterator[Task]:
    """Work on letters and words."""
    words, sentences = banks.WORDS, banks.SENTENCES
    easy = (
        _pick(lambda w: (f"Write '{w}' backwards.", w[::-1]), words),
        _pick(lambda w: (f"How many letters are in the word '{w}'?", f"{len(w)}"), words),
        _pick(lambda s: (f"Write '{s}' in capital letters.", s.upper()), sentences),
    )
    letters = (
        _pick(
            lambda w: (f"How many vowels are in '{w}'?", f"{sum(c in 'aeiou' for c in w)}"), words
        ),
        _pick(
            lambda w: (f"Put the letters of '{w}' in alphabetical order.", "".join(sorted(w))),
            words,
        ),
        _pick(lambda w: (f"Remove the vowels from '{w}'.", re.sub("[aeiou]", "", w)), words),
        _pick(
            lambda p: (
                f"Form an acronym from '{p}'.",
                "".join(w[0] for w in p.split()).upper(),
            ),
            banks.PHRASES,
        ),
    )
    rules = (
        _pick(_palindrome, (*banks.PALINDROMES, *words[:8])),
        _pick(
            lambda s: (f"Reverse the order of words: {s}", " ".join(reversed(s.split()))),
            sentences,
        ),
        _pick(_repeated_letters, words),
        _pick(lambda s: (f"Write '{s}' in snake case.", s.replace(" ", "_")), sentences),
    )
    codes = (
        _pick(_caesar, words, range(1, 6)),
        _pick(
            lambda s: (
                f"Take the first letter of each word, in reverse order: {s}",
                "".join(w[0] for w in reversed(s.split())),
            ),
            sentences,
        ),
        _pick(_anagram, banks.PAIRS),
        _pick(
            lambda a, b, c, i, j, k: (
                f"Write '{a * i}{b * j}{c * k}' as letters with counts.",
                f"{a}{i}{b}{j}{c}{k}",
            ),
            "abc",
            "xyz",
            "mno",
            *[range(1, 6)] * 3,
        ),
    )
    return _drawn(rng, {1: easy, 2: letters, 3: rules, 4: codes})


def _unsorted(
    rng: Random, items: Sequence[Any], count: int, key: Callable[[Any], Any]
) -> list[Any]:
    """That many of the items, in any order but the right one."""
    chosen = rng.sample(items, count)
    while chosen == sorted(chosen, key=key):
        chosen = rng.sample(items, count)
    return chosen


def _put_in_order(
    rng: Random, ask: str, items: Sequence[Any], key: Callable[[Any], Any], count: int = 4
) -> Pair:
    chosen = _unsorted(rng, items, count, key)
    listed, answer = (", ".join(map(str, x)) for x in (chosen, sorted(chosen, key=key)))
    return f"{ask}: {listed}", answer


def _sorted_numbers(rng: Random) -> Pair:
    if rng.random() < 0.5:
        return _put_in_order(rng, "Sort from smallest to largest", range(2, 100), int, 5)
    return _put_in_order(rng, "Sort from largest to smallest", range(2, 100), int.__neg__, 5)


def _months_in_order(rng: Random) -> Pair:
    return _put_in_order(rng, "Put these months in calendar order", MONTHS, MONTHS.index)


def _second_largest(rng: Random) -> Pair:
    numbers = rng.sample(range(2, 100), 5)
    listed = ", ".join(map(str, numbers))
    return f"Which is the second largest of {listed}?", f"{sorted(numbers)[-2]}"


def _alphabetical(rng: Random) -> Pair:
    group, words = rng.choice(banks.GROUPS)
    return _put_in_order(rng, f"Put these {group} in alphabetical order", words, str, 5)


def _by_length(rng: Random) -> Pair:
    # One word of each length, so that the order has no ties.
    by_length = {len(word): word for word in _shuffled(rng, banks.WORDS + banks.PALINDROMES)}
    by_length[3] = rng.choice(("cat", "sun", "map", "tea"))
    words = sorted(by_length.values())
    return _put_in_order(rng, "Order these words by length, shortest first", words, len)


def _ranked(rng: Random) -> Pair:
    what, true_order = rng.choice(banks.SCALES)
    return _put_in_order(rng, f"Rank these {what}", true_order, true_order.index)


def _fractions_in_order(rng: Random) -> Pair:
    return _put_in_order(rng, "Order from smallest to largest", banks.FRACTIONS, Fraction)


def _league(rng: Random) -> Pair:
    names, points = rng.sample(banks.NAMES, 4), [rng.randint(3, 6) for _ in range(4)]
    table = dict(zip(names, points, strict=True))
    return (
        "Rank by points, most first, and ties by name: "
        + ", ".join(f"{name} {won}" for name, won in table.items()),
        ", ".join(sorted(table, key=lambda name: (-table[name], name))),
    )


def _median(rng: Random) -> Pair:
    numbers = rng.sample(range(2, 60), 6)
    low, high = sorted(numbers)[2:4]
    return (
        f"Find the median of {', '.join(map(str, numbers))}.",
        f"The middle two are {low} and {high}, so it is {(low + high) / 2:g}.",
    )


def sorting(rng: Random) -> Iterator[Task]:
    """Lists put in order: by size, by alphabet, by what one knows of the world."""
    levels: dict[int, tuple[Maker, ...]] = {
        1: (_sorted_numbers, _months_in_order, _second_largest),
        2: (_alphabetical, _by_length),
        3: (_ranked,),
        4: (_fractions_in_order, _league, _median),
    }
    return _drawn(rng, levels)


def _roman(number: int) -> str:
    steps = zip(
        (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
        banks.words("M CM D CD C XC L XL X IX V IV I"),
        strict=True,
    )
    text = ""
    for value, sign in steps:
        count, number = divmod(number, value)
        text += sign * count
    return text


def _in_base(number: int, base: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, base)
        digits = "0123456789ABCDEF"[digit] + digits
    return digits


def _in_words(number: int) -> str:
    """A number from 1 to 999 in English."""
    hundreds, rest = divmod(number, 100)
    if hundreds:
        head = f"{UNITS[hundreds]} hundred"
        return f"{head} and {_in_words(rest)}" if rest else head
    if rest < 20:
        return UNITS[rest]
    tens, unit = divmod(rest, 10)
    return TENS[tens] + (f"-{UNITS[unit]}" if unit else "")


def _powers(number: int) -> str:
    return " + ".join(str(1 << bit) for bit in range(9, -1, -1) if number >> bit & 1)


def numerals(rng: Random) -> Iterator[Task]:
    """Roman numerals and bases other than ten."""
    small, large = range(4, 40), range(41, 2100)

    def to_roman(n: int) -> Pair:
        return f"Write {n} in Roman numerals.", _roman(n)

    def from_roman(n: int) -> Pair:
        return f"What number is {_roman(n)} in Roman numerals?", f"{n}"

    easy = (
        _pick(to_roman, small),
        _pick(from_roman, small),
        _pick(lambda n: (f"Write {n} in words.", _in_words(n).capitalize()), range(21, 1000)),
    )
    long = (_pick(to_roman, large), _pick(from_roman, large))
    binary = (
        _pick(
            lambda n: (f"Write {n} in binary.", f"{n:b}, since {n} = {_powers(n)}."),
            range(9, 128),
        ),
        _pick(
            lambda n: (f"Convert binary {n:b} to decimal.", f"{_powers(n)} = {n}"), range(9, 128)
        ),
    )
    bases = (
        _pick(
            lambda n: (f"Write {n} in hexadecimal.", f"{n // 16} x 16 + {n % 16}, so {n:X}."),
            range(20, 250),
        ),
        _pick(lambda n, b: (f"Write {n} in base {b}.", _in_base(n, b)), range(20, 250), (3, 5, 7)),
        _pick(
            lambda a, b: (
                f"Add the binary numbers {a:b} and {b:b}.",
                f"{a:b} + {b:b} = {a + b:b} ({a} + {b} = {a + b}).",
            ),
            range(5, 40),
            range(5, 40),
        ),
        _pick(
            lambda a, b: (
                f"What is {_roman(a)} minus {_roman(b)}, in Roman numerals?",
                f"{a} - {b} = {a - b}, which is {_roman(a - b)}.",
            ),
            range(500, 2000),
            range(20, 490),
        ),
    )
    return _drawn(rng, {1: easy, 2: long, 3: binary, 4: bases})


# --- Logic and code ---------------------------------------------------------------------------


def _ranking(size: int, place: int) -> Maker:
    """A chain of comparisons, told out of order; asks for the holder of one place."""

    def make(rng: Random) -> Pair:
        more, less, most = rng.choice(banks.ATTRIBUTES)
        people = rng.sample(banks.NAMES, size)
        clues = [
            f"{high} is {more} than {low}" if rng.random() < 0.5 else f"{low} is {less} than {high}"
            for high, low in pairwise(people)
        ]
        rank = f"{ORDINALS[place]} {most}" if place else most
        answer = f"{people[0]}." if not place else f"{people[place]}: {' > '.join(people)}."
        return f"{'. '.join(_shuffled(rng, clues))}. Who is the {rank}?", answer

    return make


def _finish(rng: Random) -> Pair:
    a, b, c, d = people = rng.sample(banks.NAMES, 4)
    clues = [f"{b} came right after {a}", f"{c} came later than {b}", f"{d} was last"]
    return (
        f"Four ran a race. {'. '.join(_shuffled(rng, clues))}. Give the order.",
        f"{', '.join(people)}.",
    )


def _sequence(term: Callable[[int], int], rule: str) -> Pair:
    shown = ", ".join(str(term(i)) for i in range(5))
    return f"What comes next: {shown}?", f"{term(5)}: {rule}."


def _fibonacci_like(a: int, b: int) -> Pair:
    terms = [a, b]
    while len(terms) < 6:
        terms.append(terms[-1] + terms[-2])
    return _sequence(terms.__getitem__, "each is the sum of the two before it")


def logic(rng: Random) -> Iterator[Task]:
    """Who is tallest, what comes next, what follows; and old riddles with their reasons."""
    few = range(2, 12)
    levels: dict[int, tuple[Maker, ...]] = {
        1: (
            _ranking(3, 0),
            _pick(lambda a, d: _sequence(lambda i: a + d * i, f"add {d} each time"), few, few),
        ),
        2: (
            _ranking(4, 1),
            _pick(
                lambda a, q: _sequence(lambda i: a * q**i, f"multiply by {q} each time"),
                few,
                (2, 3, 4),
            ),
        ),
        3: (
            _finish,
            _pick(
                lambda c: _sequence(lambda i: (i + 1) ** 2 + c, "the steps are 3, 5, 7, 9, 11"),
                range(30),
            ),
        ),
        4: (_ranking(5, 2), _pick(_fibonacci_like, few, few)),
    }
    yield from _drawn(rng, levels, per_level=12)
    yield from _from_bank(banks.RIDDLES)


def code(rng: Random) -> Iterator[Task]:
    """Small Python functions to write, and small programs to read."""
    yield from _from_bank(banks.FUNCTIONS)
    yield from _with_input(banks.PRINTS, dict.fromkeys(banks.PRINTS, banks.PRINT_ASKS))


# --- Language and knowledge -------------------------------------------------------------------


def translation(rng: Random) -> Iterator[Task]:
    """Short phrases into French and Spanish."""
    for level, rows in banks.TRANSLATION.items():
        for english, french, spanish in rows:
            yield "Translate into French.", english, french, level
            yield "Translate into Spanish.", english, spanish, level


def extraction(rng: Random) -> Iterator[Task]:
    """Questions that a short text answers, outright or by inference."""
    for text, questions in banks.EXTRACTION:
        for level, question, answer in questions:
            yield question, text, answer, level


def grammar(rng: Random) -> Iterator[Task]:
    """Sentences to put right."""
    return _with_input(banks.GRAMMAR, dict.fromkeys(banks.GRAMMAR, banks.GRAMMAR_ASKS))


def classification(rng: Random) -> Iterator[Task]:
    """Sentiment and topic, from plain words to sarcasm."""
    return _with_input(banks.CLASSIFICATION, dict(banks.CLASSIFICATION_ASKS))


def summary(rng: Random) -> Iterator[Task]:
    """Two or three sentences told in one."""
    return _with_input(banks.SUMMARY, dict.fromkeys(banks.SUMMARY, banks.SUMMARY_ASKS))


COMPUTED = (arithmetic, unit_conversion, dates, strings, sorting, numerals, logic)
READ = (code, translation, extraction, grammar, classification, summary)
PLAIN = {
    "vocabulary": banks.VOCABULARY,
    "analogies": banks.ANALOGIES,
    "rewriting": banks.REWRITING,
    "geography": banks.GEOGRAPHY,
    "science": banks.SCIENCE,
    "proverbs": banks.PROVERBS,
    "how_to": banks.HOW_TO,
    "poems": banks.POEMS,
}


# --- Flaws ------------------------------------------------------------------------------------


def _cash_book(rng: Random) -> Row:
    """A cash book far longer than 512 tokens, with its total as the answer."""
    groups = dict(banks.GROUPS)
    stock = groups["fruits"] + groups["tools"]
    goods = [(rng.choice(stock), rng.randint(2, 99)) for _ in range(80)]
    lines = [
        f"Day {day}: {rng.choice(banks.NAMES)} sold the {what} for {price} dollars."
        for day, (what, price) in enumerate(goods, 1)
    ]
    total = sum(price for _, price in goods)
    question = "Add up the takings in this cash book."
    return Row(question, "\n".join(lines), f"{total} dollars.", "extraction", 4, "too_long")


def _weather(rng: Random) -> Row:
    """A weather log far longer than 512 tokens, with its warmest day as the answer."""
    heat = rng.sample(range(-100, 300), 80)
    lines = [f"Day {day}: {tenths / 10} degrees at noon." for day, tenths in enumerate(heat, 1)]
    answer = f"Day {heat.index(max(heat)) + 1}, at {max(heat) / 10} degrees."
    question = "Which day in this log was the warmest?"
    return Row(question, "\n".join(lines), answer, "extraction", 4, "too_long")


def _visitors(rng: Random) -> Row:
    """A visitors' book far longer than 512 tokens, with one person's visits as the answer."""
    names = [rng.choice(banks.NAMES) for _ in range(90)]
    animals = dict(banks.GROUPS)["animals"]
    lines = [f"{name} came to see the {rng.choice(animals)}." for name in names]
    question = f"How often did {names[0]} visit?"
    answer = f"{names.count(names[0])} times."
    return Row(question, " ".join(lines), answer, "extraction", 3, "too_long")


def _spoilt(rng: Random, row: Row) -> Row:
    """The row with a wrong answer: its last number, or its weekday, is another one."""
    shown = re.findall(r"\d+(?:\.\d+)?|[A-Z][a-z]+day", row.output)[-1]
    if shown in WEEKDAYS:
        wrong = rng.choice([day for day in WEEKDAYS if day != shown])
    else:
        wrong = f"{float(shown) + rng.choice((1, 2, 3, 10)):g}"
    head, _, tail = row.output.rpartition(shown)
    return replace(row, output=head + wrong + tail, flaw="wrong_answer")


def _can_spoil(row: Row) -> bool:
    # In the dates family only a weekday is sure to be the answer itself.
    if row.task == "dates":
        return bool(re.fullmatch(r"(It was a )?[A-Z][a-z]+day\.", row.output))
    return True


def _with_flaws(rng: Random, rows: list[Row]) -> list[Row]:
    """The rows with flaws planted, long rows added and some rows copied further down."""
    rows = list(rows)
    for task, count in NUM_WRONG.items():
        able = [i for i, row in enumerate(rows) if row.task == task and _can_spoil(row)]
        for i in rng.sample(able, count):
            rows[i] = _spoilt(rng, rows[i])
    sound = [i for i, row in enumerate(rows) if not row.flaw]
    chosen = rng.sample(sound, NUM_EMPTY + NUM_UNPARSABLE)
    for blank, i in zip(("", " ", "", "\n"), chosen, strict=False):
        rows[i] = replace(rows[i], output=blank, flaw="empty_response")
    for i in chosen[NUM_EMPTY:]:
        rows[i] = replace(rows[i], flaw="unparsable")
    for long in (_cash_book(rng), _weather(rng), _visitors(rng)):
        rows.insert(rng.randrange(len(rows)), long)
    for _ in range(NUM_DUPLICATES):
        first = rng.choice([i for i, row in enumerate(rows[:-100]) if not row.flaw])
        copy = replace(rows[first], flaw="duplicate")
        rows[first] = replace(rows[first], flaw="copied")
        rows.insert(rng.randrange(first + 1, len(rows)), copy)
    return rows


# --- The pool ---------------------------------------------------------------------------------


def pool(seed: int = 0) -> list[Row]:
    """All rows in file order, flawed ones included."""
    rng = Random(seed)
    rows = [
        Row(q, i, a, make.__name__, level)
        for make in COMPUTED + READ
        for q, i, a, level in make(rng)
    ]
    for task, bank in PLAIN.items():
        rows += [Row(q, i, a, task, level) for q, i, a, level in _from_bank(bank)]
    return _with_flaws(rng, _shuffled(rng, rows))


def line(row: Row) -> str:
    """The row as one line of JSON, cut off in the middle if it is to be unparsable."""
    fields = asdict(row)
    del fields["flaw"]
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    return text[: len(text) * 2 // 3] if row.flaw == "unparsable" else text


def truth(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The planted flaws, each with its 1-based line numbers in ascending order."""
    found: dict[str, list[Any]] = {
        name: [number for number, row in enumerate(rows, 1) if row.flaw == name]
        for name in ("empty_response", "too_long", "duplicate", "wrong_answer", "unparsable")
    }
    lines = [line(row) for row in rows]
    found["duplicate"] = [[lines.index(lines[n - 1]) + 1, n] for n in found["duplicate"]]
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Write the pool, and `truth.json` beside it."""
    here = Path(__file__).parent / "pool.jsonl"
    parser = argparse.ArgumentParser(description="Write the sample pool and its planted flaws.")
    parser.add_argument("--seed", type=int, default=0, help="seed of every draw (default 0)")
    parser.add_argument(
        "--to", type=Path, default=here, help="the pool file; truth.json goes beside"
    )
    arguments = parser.parse_args(argv)
    rows = pool(arguments.seed)
    arguments.to.write_bytes("".join(line(row) + "\n" for row in rows).encode())
    flaws = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in truth(rows).items())
    arguments.to.with_name("truth.json").write_bytes(f"{{\n{flaws}\n}}\n".encode())


if __name__ == "__main__":
    main()
