"""What is picked: the most expected change first, never two neighbours, room for the strange, a fair audit."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_pipeline.regions.picks import FOR_STRANGE, WORTH_A_LOOK, Candidate, Pick, pick


def grid(scores: list[float], columns: int = 6, strange: dict[int, float] | None = None) -> list[Candidate]:
    odd = strange or {}
    return [
        Candidate(i % columns, i // columns, 1000 * score, score, odd.get(i, 0.5)) for i, score in enumerate(scores)
    ]


def flagged(picks: list[Pick]) -> list[int]:
    return [p.index for p in picks if p.flagged]


grids = st.lists(st.floats(0, 0.6), min_size=1, max_size=60)


@given(
    scores=grids,
    most=st.integers(0, 12),
    audits=st.integers(0, 5),
    odd=st.dictionaries(st.integers(0, 59), st.floats(0, 3)),
)
@settings(max_examples=80, deadline=None)
def test_the_order_holds_every_tile_once_and_keeps_its_rules(
    scores: list[float], most: int, audits: int, odd: dict[int, float]
) -> None:
    tiles = grid(scores, strange=odd)
    picks = pick(tiles, most=most, audits=audits, key="s")
    assert sorted(p.index for p in picks) == list(range(len(tiles)))
    chosen = flagged(picks)
    assert len(chosen) <= most
    for i in chosen:
        assert tiles[i].share >= WORTH_A_LOOK or (tiles[i].strange or 0) > 1
        assert all(
            max(abs(tiles[i].column - tiles[j].column), abs(tiles[i].row - tiles[j].row)) > 1 for j in chosen if j != i
        )
    rest = [p for p in picks if not p.flagged]
    assert sum(p.audit for p in rest) == min(audits, len(rest))
    assert not any(p.audit and p.flagged for p in picks)
    handed_out = [p.flagged or p.audit for p in picks]
    assert handed_out == sorted(handed_out, reverse=True)
    for group in (chosen, [p.index for p in rest if not p.audit]):
        assert [tiles[i].score for i in group] == sorted((tiles[i].score for i in group), reverse=True)
    assert picks == pick(tiles, most=most, audits=audits, key="s")


def test_the_best_tile_hides_its_neighbours() -> None:
    assert flagged(pick(grid([0.3, 0.5, 0.4, 0.1, 0.2, 0.0]), most=6, audits=0, key="s")) == [1, 4]


def test_what_is_sure_is_not_flagged_however_few_there_are() -> None:
    assert flagged(pick(grid([0.01, 0.0, 0.03]), most=5, audits=0, key="s")) == []


def test_a_quarter_of_the_places_goes_to_strange_tiles() -> None:
    tiles = grid([0.5] * 400, columns=20, strange={i: 2.0 for i in range(320, 400)})
    chosen = flagged(pick(tiles, most=20, audits=0, key="s"))
    assert len(chosen) == 20
    assert sum(i >= 320 for i in chosen) == FOR_STRANGE * 20


def test_a_tile_of_the_audit_stands_anywhere_among_those_that_are_flagged() -> None:
    tiles = grid([0.5, 0, 0.4, 0, 0.3, 0, *[0.0] * 12])
    counts: Counter[int] = Counter()
    for slide in range(800):
        picks = pick(tiles, most=3, audits=1, key=f"slide-{slide}")
        counts[next(place for place, p in enumerate(picks) if p.audit)] += 1
    assert set(counts) == {0, 1, 2, 3}
    # 200 each; five standard deviations of a binomial are 61.
    assert all(abs(n - 200) < 61 for n in counts.values())


def test_the_audit_of_other_slides_is_another_and_each_tile_has_the_chance_that_it_states() -> None:
    tiles = grid([0.3] + [0.01] * 29)
    counts: Counter[int] = Counter()
    for slide in range(600):
        picks = pick(tiles, most=3, audits=4, key=f"slide-{slide}")
        assert {p.chance for p in picks if not p.flagged} == {4 / 29}
        counts.update(p.index for p in picks if p.audit)
    assert set(counts) == set(range(1, 30))
    # 600 · 4 / 29 = 83 each; five standard deviations of a binomial are 42.
    assert all(abs(n - 600 * 4 / 29) < 42 for n in counts.values())
