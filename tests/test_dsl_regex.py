"""Regular expressions' own law: they find what Python's find, and never take more than linear time."""

import random
import re

import pytest

from qcc.dsl.policy.regex import LARGEST, Regex, RegexError

ATOMS = ("a", "b", ".", "[ab]", "[^a]", "[]x]", r"\w", r"\d", r"\s", r"\.", r"\x61", "^", "$", r"\b", r"\B", "_", r"\Z")
REPEATS = ("*", "+", "?", "{2}", "{1,3}", "{0,2}", "{,2}", "{2,}", "*?", "{}")


def draw(rng: random.Random, depth: int = 0) -> str:
    kind = rng.random()
    if depth > 3 or kind < 0.45:
        return rng.choice(ATOMS)
    if kind < 0.7:
        return "".join(draw(rng, depth + 1) for _ in range(rng.randint(0, 3)))
    inside = "|".join(draw(rng, depth + 1) for _ in range(rng.randint(1, 3)))
    return f"({rng.choice(('', '?:'))}{inside})" + (rng.choice(REPEATS) if kind > 0.85 else "")


@pytest.mark.slow
def test_finds_what_python_finds() -> None:
    rng = random.Random(0)
    drawn = {(rng.choice(("", "", "(?i)", "(?is)")) + draw(rng))[:60] for _ in range(600)}
    compared = 0
    for pattern in sorted(drawn):
        try:
            theirs, ours = re.compile(pattern), Regex(pattern)
        except (re.error, RegexError):
            continue
        for _ in range(8):
            text = "".join(rng.choice("abAx_.1\n -") for _ in range(rng.randint(1, 8)))
            assert ours.found_in(text) == bool(theirs.search(text)), (pattern, text)
            compared += 1
    assert compared > 1000


@pytest.mark.parametrize("pattern", ["(a+)+b", "a*" * 90 + "b", "(a|aa)+$|b", "a{1,100}a{1,100}b", "(|a)*b"])
def test_a_name_of_a_thousand_letters_takes_no_time(pattern: str) -> None:
    # Python's matcher would not end within the test run: this test fails by hanging.
    assert not Regex(pattern).found_in("a" * 999 + "c")
    assert Regex(pattern).found_in("a" * 999 + "b")


@pytest.mark.parametrize("pattern", ["((){1000}){1000}", "(((a{9}){9}){9}){9}", "a{1,1000}a", f"a{{{LARGEST + 1}}}"])
def test_what_grows_when_written_out_is_refused(pattern: str) -> None:
    with pytest.raises(RegexError, match="more than"):
        Regex(pattern)


@pytest.mark.parametrize(
    "pattern", ["(?=a)", "(?<=a)b", r"(a)\1", "(?P<n>a)(?P=n)", "(a)?(?(1)b|c)", "a*+", "(?>a)", "(?m)^a"]
)
def test_what_needs_to_go_back_is_refused(pattern: str) -> None:
    with pytest.raises(RegexError):
        Regex(pattern)
