"""The sample pool is what its generator writes, and its flaws are exactly those in truth.json.

Every computed answer is worked out again here, from the text of the question alone.
"""

import json
import re
import subprocess
import sys
from calendar import monthrange
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from fractions import Fraction
from itertools import pairwise, permutations
from pathlib import Path
from statistics import mean, median
from typing import Any

import pytest
from transformers import AutoTokenizer

from engine.assets.sample import banks, generate

ASSETS = Path(generate.__file__).parents[1]
POOL = ASSETS / "sample" / "pool.jsonl"
TRUTH = json.loads((ASSETS / "sample" / "truth.json").read_text())
LINES = POOL.read_text(encoding="utf-8").removesuffix("\n").split("\n")
MAX_TOKENS = 512
INTRO = (
    "Below is an instruction that describes a task{more}. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n{input}### Response:"
)
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [date(2000, number, 1).strftime("%B") for number in range(1, 13)]


def parsed() -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and row of every line that is JSON."""
    for number, line in enumerate(LINES, 1):
        if number not in TRUTH["unparsable"]:
            yield number, json.loads(line)


ROWS = dict(parsed())


def prompt(row: dict[str, Any]) -> str:
    """The row in Alpaca's wording, up to the response."""
    more = ", paired with an input that provides further context" if row["input"] else ""
    given = f"### Input:\n{row['input']}\n\n" if row["input"] else ""
    return INTRO.format(more=more, instruction=row["instruction"], input=given)


@pytest.fixture(scope="module")
def num_tokens() -> Callable[[str], int]:
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "nano-opt")
    return lambda text: len(tokenizer(text, truncation=False, verbose=False)["input_ids"])


# --- The file -----------------------------------------------------------------------------------


def test_regenerating_gives_the_committed_bytes(tmp_path: Path) -> None:
    generate.main(["--to", str(tmp_path / "pool.jsonl")])
    assert (tmp_path / "pool.jsonl").read_bytes() == POOL.read_bytes()
    assert (tmp_path / "truth.json").read_bytes() == (POOL.parent / "truth.json").read_bytes()


def test_the_hash_seed_changes_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "engine.assets.sample.generate", "--to", "pool.jsonl"]
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": str(ASSETS.parents[1])}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "pool.jsonl").read_bytes() == POOL.read_bytes()


def test_another_seed_gives_another_pool_of_the_same_size() -> None:
    other = [generate.line(row) for row in generate.pool(seed=1)]
    assert len(other) == len(LINES)
    assert other != LINES


def test_rows_have_the_promised_keys_and_no_others() -> None:
    for row in ROWS.values():
        assert list(row) == ["instruction", "input", "output", "task", "difficulty"]
        assert row["difficulty"] in (1, 2, 3, 4)
        assert all(isinstance(row[key], str) for key in list(row)[:4])


def test_counts() -> None:
    assert len(LINES) == 1228
    families = Counter(row["task"] for row in ROWS.values())
    assert len(families) == 21
    assert min(families.values()) >= 20
    with_input = sum(bool(row["input"]) for row in ROWS.values())
    assert 0.2 < with_input / len(ROWS) < 0.3
    levels = Counter((row["task"], row["difficulty"]) for row in ROWS.values())
    assert all(levels[task, level] >= 5 for task in families for level in (1, 2, 3, 4))


def test_lengths(num_tokens: Callable[[str], int]) -> None:
    prompts = {number: num_tokens(prompt(row)) for number, row in ROWS.items()}
    assert sorted(n for n, tokens in prompts.items() if tokens > MAX_TOKENS) == TRUTH["too_long"]
    whole = {number: num_tokens(prompt(row) + row["output"]) + 1 for number, row in ROWS.items()}
    assert all(t < MAX_TOKENS for n, t in whole.items() if n not in TRUTH["too_long"])
    assert mean(whole.values()) <= 100


# --- The flaws ----------------------------------------------------------------------------------


def test_how_many_flaws_there_are() -> None:
    assert {name: len(found) for name, found in TRUTH.items()} == {
        "empty_response": 4,
        "too_long": 3,
        "duplicate": 6,
        "wrong_answer": 12,
        "unparsable": 2,
    }


def test_the_flaws_are_spread_over_the_file() -> None:
    numbers = [n if isinstance(n, int) else n[1] for found in TRUTH.values() for n in found]
    assert len(set(numbers)) == len(numbers)
    quarters = Counter((n - 1) * 4 // len(LINES) for n in numbers)
    assert min(quarters[q] for q in range(4)) >= 2


def test_exactly_the_unparsable_lines_are_no_json() -> None:
    for number in TRUTH["unparsable"]:
        with pytest.raises(json.JSONDecodeError):
            json.loads(LINES[number - 1])


def test_exactly_the_empty_responses_are_blank() -> None:
    blank = [number for number, row in ROWS.items() if not row["output"].strip()]
    assert blank == TRUTH["empty_response"]


def test_exactly_the_duplicates_repeat_an_earlier_row() -> None:
    first_seen: dict[tuple[str, str], int] = {}
    repeats = []
    for number, row in ROWS.items():
        first = first_seen.setdefault((row["instruction"], row["input"]), number)
        if first != number:
            assert LINES[first - 1] == LINES[number - 1]
            repeats.append([first, number])
    assert repeats == TRUTH["duplicate"]


# --- The answers --------------------------------------------------------------------------------


def ends(output: str, *wanted: object) -> bool:
    """The last numbers of the output are the wanted ones."""
    found = re.findall(r"\d+(?:\.\d+)?", output)[-len(wanted) :]
    return [Fraction(x) for x in found] == [Fraction(str(x)) for x in wanted]


def says(output: str, *wanted: object) -> bool:
    """The output is the wanted text, apart from a final full stop."""
    return output.removesuffix(".") == ", ".join(map(str, wanted))


def day(text: str) -> date:
    number, month, year = text.split()
    return date(int(year), MONTHS.index(month) + 1, int(number))


def from_roman(text: str) -> int:
    worth = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
    values = [worth[c] for c in text]
    return sum(-v if v < max(values[i:]) else v for i, v in enumerate(values))


def from_words(text: str) -> int:
    ones = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    ones += "fifteen sixteen seventeen eighteen nineteen"
    tens = "twenty thirty forty fifty sixty seventy eighty ninety"
    value = {word: n for n, word in enumerate(ones.split(), 1)}
    value |= {word: 10 * n for n, word in enumerate(tens.split(), 2)}
    total = 0
    for word in re.findall(r"\w+", text.lower()):
        total = total * 100 if word == "hundred" else total + value.get(word, 0)
    return total


def next_term(terms: list[int]) -> int:
    """The continuation by the first rule that fits the terms."""
    steps = [b - a for a, b in pairwise(terms)]
    if len(set(steps)) == 1:
        return terms[-1] + steps[0]
    if all(terms[i] + terms[i + 1] == terms[i + 2] for i in range(len(terms) - 2)):
        return terms[-1] + terms[-2]
    if len({Fraction(b, a) for a, b in pairwise(terms)}) == 1:
        return terms[-1] * terms[1] // terms[0]
    bends = {b - a for a, b in pairwise(steps)}
    assert len(bends) == 1
    return terms[-1] + steps[-1] + bends.pop()


def ranked(clues: str) -> list[str]:
    """The one order, most first, that all the comparisons allow."""
    pairs = []
    for left, word, right in re.findall(r"(\w+) is (\w+) than (\w+)", clues):
        more = word in ("taller", "older", "faster", "heavier", "richer", "stronger")
        pairs.append((left, right) if more else (right, left))
    people = sorted({name for pair in pairs for name in pair})
    orders = [o for o in permutations(people) if all(o.index(a) < o.index(b) for a, b in pairs)]
    assert len(orders) == 1
    return list(orders[0])


def finish(clues: str) -> list[str]:
    """The one order of the race that all the clues allow."""
    after = re.findall(r"(\w+) came right after (\w+)", clues)
    later = re.findall(r"(\w+) came later than (\w+)", clues)
    last = re.findall(r"(\w+) was last", clues)
    people = {name for pair in after + later for name in pair} | set(last)
    orders = [
        order
        for order in permutations(people)
        if all(order.index(a) == order.index(b) + 1 for a, b in after)
        and all(order.index(a) > order.index(b) for a, b in later)
        and order[-1] == last[0]
    ]
    assert len(orders) == 1
    return list(orders[0])


def hens_and_cows(heads: int, legs: int) -> tuple[int, int]:
    fits = [(c, heads - c) for c in range(heads + 1) if 4 * c + 2 * (heads - c) == legs]
    assert len(fits) == 1
    return fits[0]


def nth_weekday(nth: str, name: str, month: str, year: int) -> date:
    number = MONTHS.index(month) + 1
    days = [date(year, number, d) for d in range(1, monthrange(year, number)[1] + 1)]
    matching = [d for d in days if d.weekday() == WEEKDAYS.index(name)]
    return matching[["first", "second", "third", "fourth"].index(nth)]


def written(d: date) -> str:
    return f"{d.day} {MONTHS[d.month - 1]} {d.year}"


def items(listed: str) -> list[str]:
    return listed.split(", ")


def true_order(what: str, listed: str) -> list[str]:
    order = dict(banks.SCALES)[what]
    return sorted(items(listed), key=order.index)


def by_points(table: str) -> list[str]:
    pairs = [entry.split() for entry in items(table)]
    return [name for name, points in sorted(pairs, key=lambda p: (-int(p[1]), p[0]))]


def clock(hour: int, minute: int, hours: int, minutes: int) -> str:
    end = (60 * (hour + hours) + minute + minutes) % (24 * 60)
    return f"At {end // 60:02}:{end % 60:02}"


def run_length(text: str) -> str:
    return "".join(f"{m[1]}{len(m[0])}" for m in re.finditer(r"(.)\1*", text))


N = r"(\d+)"
D = r"(\d+ \w+ \d{4})"
L = r"(.+)"
W = r"'(.+)'"
SOLVERS: dict[str, Callable[..., bool]] = {
    # arithmetic
    rf"What is {N} plus {N}\?": lambda out, a, b: ends(out, a + b),
    rf".* has {N} marbles and gives away {N}\. .*": lambda out, a, b: ends(out, a - b),
    rf".* fills {N} trays with {N} rolls each\. .*": lambda out, a, b: ends(out, a * b),
    rf"{N} chairs stand in {N} equal rows\. .*": lambda out, a, b: ends(out, Fraction(a, b)),
    rf".* buys {N} pens at {N} dollars each .* 50-dollar note\. .*": lambda out, a, b: ends(
        out, 50 - a * b
    ),
    rf"A bus carries {N} people\. {N} get off and {N} get on\. .*": lambda out, a, b, c: ends(
        out, a - b + c
    ),
    rf".* reads {N} pages a day for {N} days, and {N} .*": lambda out, a, b, c: ends(
        out, a * b + c
    ),
    rf"Three parcels weigh {N} kg, {N} kg and {N} kg\. .*": lambda out, *kg: ends(
        out, Fraction(sum(kg), 3)
    ),
    rf"A coat at {N} dollars is reduced by {N} percent\. .*": lambda out, a, p: ends(
        out, a - Fraction(a * p, 100)
    ),
    rf"A train covers {N} km in {N} hours\. .* in {N} hours\?": lambda out, s, t, u: ends(
        out, Fraction(s * u, t)
    ),
    rf"Divide {N} sweets .* ratio {N} to {N}\.": lambda out, n, a, b: ends(
        out, Fraction(n * a, a + b), Fraction(n * b, a + b)
    ),
    rf".* is {N} and in {N} years will be twice as old .*": lambda out, a, b: ends(
        out, Fraction(a + b, 2)
    ),
    rf"Three quarters of {N} pupils .* a third .*": lambda out, n: ends(out, Fraction(n, 4)),
    rf"One tap fills a tank in {N} hours, another in {N}\. .*": lambda out, a, b: ends(
        out, Fraction(a * b, a + b)
    ),
    rf"Two cyclists {N} km apart .* at {N} and {N} km/h\. .*": lambda out, d, u, v: ends(
        out, Fraction(d * u, u + v)
    ),
    rf"Savings of {N} dollars grow by 10 percent .* two years\?": lambda out, p: ends(
        out, Fraction(p * 121, 100)
    ),
    rf"Hens and cows have {N} heads and {N} legs\. .*": lambda out, h, legs: ends(
        out, *hens_and_cows(h, legs)
    ),
    rf"Three consecutive numbers add up to {N}\. .*": lambda out, s: ends(
        out, (s // 3 - 1) * (s // 3) * (s // 3 + 1)
    ),
    # unit conversion
    rf"Convert {N} kilometres to metres\.": lambda out, a: ends(out, a * 1000),
    rf"How many grams are {N} kilograms\?": lambda out, a: ends(out, a * 1000),
    rf"How many minutes are {N} hours\?": lambda out, a: ends(out, a * 60),
    rf"How many days are {N} weeks\?": lambda out, a: ends(out, a * 7),
    rf"Convert {N} millimetres to centimetres\.": lambda out, a: ends(out, Fraction(a, 10)),
    rf"Write {N} minutes as hours and minutes\.": lambda out, a: ends(out, *divmod(a, 60)),
    rf"Convert {N} kg {N} g to grams\.": lambda out, a, b: ends(out, 1000 * a + b),
    rf"A film lasts {N} h {N} min\. .*": lambda out, h, m: ends(out, 60 * h + m),
    rf"How many litres are {N} ml\?": lambda out, a: ends(out, Fraction(a, 1000)),
    rf"Convert {N} feet {N} inches to inches\.": lambda out, a, b: ends(out, 12 * a + b),
    rf"Convert {N} degrees Celsius to Fahrenheit\.": lambda out, c: ends(
        out, Fraction(9 * c, 5) + 32
    ),
    rf"Convert {N} degrees Fahrenheit to Celsius\.": lambda out, f: ends(
        out, Fraction(5 * (f - 32), 9)
    ),
    rf"With 2\.54 cm to the inch, .* is a {N}-inch shelf\?": lambda out, a: ends(
        out, Fraction(254 * a, 100)
    ),
    rf"Taking a mile as 1\.6 km, convert {N} .*": lambda out, a: ends(out, Fraction(16 * a, 10)),
    rf"Taking a pound as 0\.45 kg, what do {N} .*": lambda out, a: ends(out, Fraction(45 * a, 100)),
    rf"Convert {N} kilometres per hour to metres per second\.": lambda out, v: ends(
        out, Fraction(10 * v, 36)
    ),
    rf"How many square centimetres are {N} square metres\?": lambda out, a: ends(out, a * 100**2),
    rf"A leaking tap loses {N} ml a minute\. .* day\?": lambda out, a: ends(
        out, Fraction(a * 60 * 24, 1000)
    ),
    rf"A car burns {N} litres per 100 km\. .* {N} km\?": lambda out, a, d: ends(
        out, Fraction(a * d, 100)
    ),
    r"A runner takes ([\d.]+) minutes for each kilometre\. .*": lambda out, p: ends(
        out, 60 / Fraction(p)
    ),
    # dates
    rf"If today is (\w+), what day will it be in {N} days\?": lambda out, d, n: says(
        out, WEEKDAYS[(WEEKDAYS.index(d) + n) % 7]
    ),
    rf"If today is (\w+), what day was it {N} days ago\?": lambda out, d, n: says(
        out, WEEKDAYS[(WEEKDAYS.index(d) - n) % 7]
    ),
    rf"Which month comes {N} months after (\w+)\?": lambda out, n, m: says(
        out, MONTHS[(MONTHS.index(m) + n) % 12]
    ),
    rf"How many days are there in (\w+) {N}\?": lambda out, m, y: ends(
        out, monthrange(y, MONTHS.index(m) + 1)[1]
    ),
    r"How many days are there from (\d+ \w+) to (\d+ \w+)\?": lambda out, a, b: ends(
        out, (day(f"{b} 2023") - day(f"{a} 2023")).days
    ),
    rf"How many days are there from {D} to {D}\?": lambda out, a, b: ends(
        out, (day(b) - day(a)).days
    ),
    rf"Is {N} a leap year\?": lambda out, y: out.startswith(
        "Yes:" if monthrange(y, 2)[1] == 29 else "No:"
    ),
    rf"What date is {N} days after {D}\?": lambda out, n, d: says(
        out, written(day(d) + timedelta(n))
    ),
    rf"A night shift starts at {N}:{N} and lasts {N} h {N} min\. .*": lambda out, *t: says(
        out, clock(*t)
    ),
    rf".* was on {D}\. Which weekday was that\?": lambda out, d: says(
        out, f"It was a {WEEKDAYS[day(d).weekday()]}"
    ),
    rf"What date is the (\w+) (\w+) of (\w+) {N}\?": lambda out, *when: out.endswith(
        f" {written(nth_weekday(*when))}."
    ),
    rf".* was born on {D} and died on {D}\. .*": lambda out, a, b: ends(
        out, sum(date(y, day(a).month, day(a).day) <= day(b) for y in range(day(a).year + 1, 2030))
    ),
    # strings
    rf"Write {W} backwards\.": lambda out, w: says(out, "".join(reversed(w))),
    rf"How many letters are in the word {W}\?": lambda out, w: ends(out, len(w)),
    rf"Write {W} in capital letters\.": lambda out, s: says(out, s.upper()),
    rf"How many vowels are in {W}\?": lambda out, w: ends(out, sum(map(w.count, "aeiou"))),
    rf"Put the letters of {W} in alphabetical order\.": lambda out, w: (
        Counter(out) == Counter(w) and list(out) == sorted(out)
    ),
    rf"Remove the vowels from {W}\.": lambda out, w: says(
        out, "".join(c for c in w if c not in "aeiou")
    ),
    rf"Form an acronym from {W}\.": lambda out, p: says(
        out, "".join(re.findall(r"\b\w", p.upper()))
    ),
    rf"Is {W} a palindrome\?": lambda out, w: out.startswith("Yes" if w == w[::-1] else "No"),
    rf"Reverse the order of words: {L}": lambda out, s: out.split()[::-1] == s.split(),
    rf"Which letters occur more than once in {W}\?": lambda out, w: (
        re.findall(r"\b[a-z]\b", out) == sorted(c for c, n in Counter(w).items() if n > 1)
    ),
    rf"Write {W} in snake case\.": lambda out, s: out.split("_") == s.split(),
    rf"Move each letter of {W} {N} places forward .*": lambda out, w, n: (
        len(out) == len(w) and all((ord(b) - ord(a)) % 26 == n for a, b in zip(w, out, strict=True))
    ),
    rf"Take the first letter of each word, in reverse order: {L}": lambda out, s: (
        list(out[::-1]) == re.findall(r"\b\w", s)
    ),
    r"Are '(\w+)' and '(\w+)' anagrams of each other\?": lambda out, a, b: out.startswith(
        "Yes" if Counter(a) == Counter(b) else "No"
    ),
    rf"Write {W} as letters with counts\.": lambda out, s: says(out, run_length(s)),
    # sorting
    rf"Sort from smallest to largest: {L}": lambda out, s: says(out, *sorted(map(int, items(s)))),
    rf"Sort from largest to smallest: {L}": lambda out, s: says(
        out, *sorted(map(int, items(s)))[::-1]
    ),
    rf"Put these months in calendar order: {L}": lambda out, s: says(
        out, *[m for m in MONTHS if m in items(s)]
    ),
    rf"Which is the second largest of {L}\?": lambda out, s: ends(
        out, sorted(map(int, items(s)))[-2]
    ),
    rf"Put these \w+ in alphabetical order: {L}": lambda out, s: says(out, *sorted(items(s))),
    rf"Order these words by length, shortest first: {L}": lambda out, s: (
        sorted(items(out)) == sorted(items(s))
        and all(len(a) < len(b) for a, b in pairwise(items(out)))
    ),
    rf"Rank these (.+?): {L}": lambda out, what, s: says(out, *true_order(what, s)),
    rf"Order from smallest to largest: {L}": lambda out, s: says(
        out, *sorted(items(s), key=Fraction)
    ),
    rf"Rank by points, most first, and ties by name: {L}": lambda out, s: says(out, *by_points(s)),
    rf"Find the median of {L}\.": lambda out, s: ends(out, median(map(int, items(s)))),
    # numerals
    rf"Write {N} in Roman numerals\.": lambda out, n: from_roman(out) == n,
    r"What number is (\w+) in Roman numerals\?": lambda out, r: ends(out, from_roman(r)),
    rf"Write {N} in words\.": lambda out, n: from_words(out) == n,
    rf"Write {N} in binary\.": lambda out, n: int(out.split(",")[0], 2) == n,
    rf"Convert binary {N} to decimal\.": lambda out, b: ends(out, int(str(b), 2)),
    rf"Write {N} in hexadecimal\.": lambda out, n: int(out.rstrip(".").split()[-1], 16) == n,
    rf"Write {N} in base {N}\.": lambda out, n, b: int(out, b) == n,
    rf"Add the binary numbers {N} and {N}\.": lambda out, a, b: (
        out.split()[4] == f"{int(str(a), 2) + int(str(b), 2):b}"
    ),
    r"What is (\w+) minus (\w+), in Roman numerals\?": lambda out, a, b: (
        from_roman(out.rstrip(".").split()[-1]) == from_roman(a) - from_roman(b)
    ),
    # logic
    rf"What comes next: {L}\?": lambda out, s: out.startswith(
        f"{next_term([int(x) for x in items(s)])}:"
    ),
    r"(.* than .*)\. Who is the \w+est\?": lambda out, clues: says(out, ranked(clues)[0]),
    r"(.* than .*)\. Who is the (second|third) \w+\?": lambda out, clues, place: (
        out.split(":")[0] == ranked(clues)[("second", "third").index(place) + 1]
    ),
    rf"Four ran a race\. {L}\. Give the order\.": lambda out, clues: says(out, *finish(clues)),
}
RIDDLES = {question for pairs in banks.RIDDLES.values() for question, _ in pairs}
COMPUTED = {make.__name__ for make in generate.COMPUTED}


def is_right(row: dict[str, Any]) -> bool:
    """Whether the answer of a computed row is the one worked out here."""
    matches = [(re.fullmatch(p, row["instruction"]), solve) for p, solve in SOLVERS.items()]
    [(match, solve)] = [(m, solve) for m, solve in matches if m]
    return solve(row["output"], *(int(g) if g.isdecimal() else g for g in match.groups()))


def test_exactly_the_wrong_answers_are_wrong() -> None:
    checked = {
        number: row
        for number, row in ROWS.items()
        if row["task"] in COMPUTED
        and number not in TRUTH["empty_response"]
        and row["instruction"] not in RIDDLES
    }
    assert len(checked) > 470
    assert [n for n, row in checked.items() if not is_right(row)] == TRUTH["wrong_answer"]


def test_answers_about_long_inputs() -> None:
    """These rows are never scored, but their answers are right all the same."""
    for number in TRUTH["too_long"]:
        text, output = ROWS[number]["input"], ROWS[number]["output"]
        if "cash book" in ROWS[number]["instruction"]:
            assert ends(output, sum(int(x) for x in re.findall(r"for (\d+) dollars", text)))
        elif "warmest" in ROWS[number]["instruction"]:
            days = re.findall(r"Day (\d+): (\S+) degrees", text)
            assert ends(output, *max(days, key=lambda pair: float(pair[1])))
        else:
            [name] = re.findall(r"did (\w+) visit", ROWS[number]["instruction"])
            assert ends(output, len(re.findall(rf"\b{name} came", text)))


def code_rows(with_input: bool) -> list[dict[str, Any]]:
    unfit = TRUTH["empty_response"]
    rows = [row for n, row in ROWS.items() if row["task"] == "code" and n not in unfit]
    return [row for row in rows if bool(row["input"]) == with_input]


def python(program: str) -> str:
    """What a program prints, run on its own."""
    command = [sys.executable, "-I", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_programs_print_what_their_rows_say() -> None:
    rows = code_rows(with_input=True)
    assert len(rows) >= 28
    separator = "-" * 20
    # One process for all; each program gets a fresh namespace.
    program = "".join(f"exec({row['input']!r}, {{}})\nprint({separator!r})\n" for row in rows)
    printed = python(program).split(separator + "\n")
    assert printed[:-1] == [row["output"] + "\n" for row in rows]


CHECKS = {
    "larger": "larger(2, 5) == larger(5, 2) == 5",
    "is_even": "is_even(4) and not is_even(7)",
    "reverse": "reverse('abc') == 'cba'",
    "squares": "squares([1, -2, 3]) == [1, 4, 9]",
    "count_words": "count_words(' two  words ') == 2",
    "last": "last([3, 1, 2]) == 2",
    "to_fahrenheit": "to_fahrenheit(100) == 212",
    "join_names": "join_names(['Ana', 'Ben']) == 'Ana, Ben'",
    "vowels": "vowels('Orange') == 3",
    "factorial": "[factorial(n) for n in (0, 1, 5)] == [1, 1, 120]",
    "is_palindrome": "is_palindrome('level') and not is_palindrome('lever')",
    "mean": "mean([1, 2, 6]) == 3 and mean([]) is None",
    "unique": "unique([3, 1, 3, 2, 1]) == [3, 1, 2]",
    "digit_sum": "digit_sum(2048) == 14",
    "swap": "swap({'a': 1, 'b': 2}) == {1: 'a', 2: 'b'}",
    "longest": "longest(['a', 'ccc', 'bb']) == 'ccc'",
    "fibonacci": "fibonacci(7) == [0, 1, 1, 2, 3, 5, 8]",
    "is_prime": "[n for n in range(30) if is_prime(n)] == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]",
    "gcd": "gcd(84, 36) == 12 and gcd(7, 0) == 7",
    "flatten": "flatten([[1, 2], [3]]) == [1, 2, 3]",
    "chunks": "chunks([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]",
    "transpose": "transpose([[1, 2, 3], [4, 5, 6]]) == [[1, 4], [2, 5], [3, 6]]",
    "anagrams": "anagrams('listen', 'silent') and not anagrams('aab', 'abb')",
    "counts": "counts('abca') == {'a': 2, 'b': 1, 'c': 1}",
    "search": "[search([1, 3, 5, 7], x) for x in (1, 7, 4, 9)] == [0, 3, -1, -1]",
    "subsets": "sorted(subsets([1, 2])) == [[], [1], [1, 2], [2]]",
    "quicksort": "quicksort([3, 1, 2, 3, 0]) == [0, 1, 2, 3, 3] and quicksort([]) == []",
    "balanced": "balanced('([]())') and not any(map(balanced, ('(]', '(', ')', '([)]')))",
    "cached": "cached(lambda x: [x])(1) == [1]",
    "best_run": "best_run([-2, 3, -1, 4, -5, 2]) == 6 and best_run([-3, -1]) == -1",
    "merge": "merge([1, 4], [2, 3, 5]) == [1, 2, 3, 4, 5]",
}


def test_functions_do_what_their_rows_ask() -> None:
    rows = code_rows(with_input=False)
    assert len(rows) >= 28
    names = [row["output"].removeprefix("def ").split("(")[0] for row in rows]
    checks = [f"assert {CHECKS[name]}, {name!r}" for name in names]
    python("\n".join(f"{row['output']}\n{check}" for row, check in zip(rows, checks, strict=True)))
