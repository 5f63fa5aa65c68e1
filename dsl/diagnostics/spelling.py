"""The nearest legal spelling."""

from collections.abc import Iterable, Sequence

from qcc.dsl.diagnostics.other_tools import Place, told

LISTED_AT_MOST = 12


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that a mistyped word most likely meant, if any is near enough."""
    candidates = tuple(candidates)
    allowed = 1 if len(word) <= 4 else 2 if len(word) <= 8 else 3
    best: tuple[int, str] | None = None
    for candidate in candidates:
        distance = edit_distance(word.lower(), candidate.lower(), allowed)
        if distance < len(candidate) and distance <= allowed and (best is None or distance < best[0]):
            best = (distance, candidate)
    if best is not None:
        return best[1]
    # `grouping` for `group`, `ext` for `external_data`.
    begun = [
        one for one in candidates if min(len(one), len(word)) >= 3 and _one_begins_other(one.lower(), word.lower())
    ]
    return begun[0] if len(begun) == 1 else None


def _one_begins_other(left: str, right: str) -> bool:
    return left.startswith(right) or right.startswith(left)


def edit_distance(left: str, right: str, limit: int) -> int:
    """Insertions, deletions, replacements and swaps of neighbours between two words; above ``limit``, ``limit + 1``."""
    from rapidfuzz.distance import OSA  # a policy without mistakes needs none of it

    return OSA.distance(left, right, score_cutoff=limit)


def did_you_mean(word: str, candidates: Iterable[str], place: Place = "") -> str | None:
    """A help line: what another tool's word means here, the nearest candidate, or else what there is to choose from."""
    known = list(dict.fromkeys(candidates))
    help = told(word, place)
    if help is not None:
        return help
    near = nearest(word, known)
    if near is not None:
        return f"did you mean `{near}`?"
    return f"expected {one_of(known)}" if known else None


def one_of(words: Sequence[str]) -> str:
    """Words as a message lists them: ``one of `a`, `b` or `c` ``."""
    if len(words) > LISTED_AT_MOST:
        return f"one of {', '.join(f'`{word}`' for word in words[:LISTED_AT_MOST])}, ..."
    quoted = [f"`{word}`" for word in words]
    if len(quoted) < 2:
        return "".join(quoted)
    return f"one of {', '.join(quoted[:-1])} or {quoted[-1]}" if len(quoted) > 2 else f"{quoted[0]} or {quoted[1]}"
