"""Who meets whom, how often, and that chance enters by one door only."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lycoris_composite.composites.groups import epoch_groups
from lycoris_composite.randomness import generator
from tests.helpers import fast, thorough

seeds = st.integers(0, 2**32 - 1)
epochs = st.integers(1, 1000)
lengths = st.integers(1, 300)


equal = st.just(1)


@st.composite
def casts(draw: st.DrawFn, weights: st.SearchStrategy[int] = equal) -> tuple[list[int], list[int]]:
    """Two to six characters: how many images each has, and its num_repeats."""
    characters = draw(st.integers(2, 6))
    counts = draw(st.lists(st.integers(1, 9), min_size=characters, max_size=characters))
    return counts, draw(st.lists(weights, min_size=characters, max_size=characters))


def pairs_of(groups) -> Counter:
    return Counter(map(tuple, groups.characters.tolist()))


@thorough
@given(casts(), lengths, seeds, epochs)
def test_every_ordered_pair_comes_equally_often(cast, composites, seed, epoch):
    counts, weights = cast
    seen = pairs_of(epoch_groups(counts, weights, composites, seed, epoch))
    often = [seen[pair] for pair in permutations(range(len(counts)), 2)]
    assert sum(often) == composites  # so nobody met themselves either
    assert max(often) - min(often) <= 1


@thorough
@given(st.integers(2, 40), lengths, seeds, epochs)
def test_everybody_stands_left_and_right_equally_often(characters, composites, seed, epoch):
    """Also where an epoch has far fewer composites than there are pairs."""
    groups = epoch_groups([2] * characters, [1] * characters, composites, seed, epoch)
    for side in (0, 1):
        often = np.bincount(groups.characters[:, side], minlength=characters)
        assert often.max() - often.min() <= 1


def test_with_repeats_nobody_is_left_out_over_the_epochs():
    often = np.zeros((2, 20))
    for epoch in range(1, 11):
        groups = epoch_groups([2] * 20, [1, 2] * 10, 60, 42, epoch)
        often += [np.bincount(groups.characters[:, side], minlength=20) for side in (0, 1)]
    for single, double in (often[0].reshape(10, 2).T, often[1].reshape(10, 2).T):
        assert (abs(single - 20) < 10).all()
        assert (abs(double - 40) < 15).all()


@thorough
@given(casts(st.integers(1, 12)), lengths, seeds, epochs)
def test_a_pair_comes_as_often_as_its_repeats_are_worth(cast, composites, seed, epoch):
    counts, weights = cast
    seen = pairs_of(epoch_groups(counts, weights, composites, seed, epoch))
    worth = {(left, right): weights[left] * weights[right] for left, right in permutations(range(len(counts)), 2)}
    for pair, value in worth.items():
        assert abs(seen[pair] - composites * value / sum(worth.values())) < 1


@thorough
@given(casts(st.integers(1, 5)), lengths, seeds, epochs)
def test_every_image_of_a_character_comes_equally_often(cast, composites, seed, epoch):
    counts, weights = cast
    groups = epoch_groups(counts, weights, composites, seed, epoch)
    for character, count in enumerate(counts):
        seen = Counter(groups.images[groups.characters == character].tolist())
        assert set(seen) <= set(range(count))
        often = [seen[image] for image in range(count)]
        assert max(often) - min(often) <= 1


@fast
@given(casts(st.integers(1, 5)), lengths, seeds, epochs)
def test_nobody_meets_themselves(cast, composites, seed, epoch):
    groups = epoch_groups(*cast, composites, seed, epoch)
    assert groups.characters.shape == groups.images.shape == (composites, 2)
    assert (groups.characters[:, 0] != groups.characters[:, 1]).all()


def test_left_and_right_swap():
    seen = pairs_of(epoch_groups([5, 5], [1, 1], 10, 42, 1))
    assert seen == {(0, 1): 5, (1, 0): 5}


def test_no_pair_is_always_the_one_that_comes_once_more():
    """Seven composites of six pairs: over the epochs each pair has its turn."""
    favoured = {pairs_of(epoch_groups([3] * 3, [1] * 3, 7, 42, epoch)).most_common(1)[0][0] for epoch in range(1, 61)}
    assert favoured == set(permutations(range(3), 2))


def test_pairs_are_mixed_over_an_epoch():
    """Not first all of one pair and then all of the next: the first half has every pair, about half as often."""
    groups = epoch_groups([50] * 3, [1] * 3, 600, 42, 1)
    seen = Counter(map(tuple, groups.characters[:300].tolist()))
    assert len(seen) == 6
    assert all(30 <= often <= 70 for often in seen.values())


def test_images_meet_in_many_ways_over_the_epochs():
    met = set()
    for epoch in range(1, 41):
        groups = epoch_groups([4, 4], [1, 1], 8, 42, epoch)
        met |= {
            frozenset(zip(*pair, strict=True)) for pair in zip(groups.characters.tolist(), groups.images.tolist(), strict=True)
        }
    assert len(met) == 16  # 4 x 4 images: all of them


def arrays(seed: int, epoch: int) -> list:
    groups = epoch_groups([7, 5, 6], [1, 2, 1], 40, seed, epoch)
    return [groups.characters.tolist(), groups.images.tolist()]


@fast
@given(seeds, epochs)
def test_the_same_seed_and_epoch_give_the_same_groups(seed, epoch):
    assert arrays(seed, epoch) == arrays(seed, epoch)


@fast
@given(seeds, epochs)
def test_consecutive_epochs_and_seeds_differ(seed, epoch):
    assert arrays(seed, epoch) != arrays(seed, epoch + 1)
    assert arrays(seed, epoch) != arrays(seed + 1, epoch)


@fast
@given(seeds, epochs)
def test_the_next_seed_does_not_repeat_this_ones_next_epoch(seed, epoch):
    """Upstream adds seed and epoch, so there seed 42's second epoch is seed 43's first."""
    assert arrays(seed, epoch + 1) != arrays(seed + 1, epoch)


def test_a_seed_means_the_same_in_the_next_release():
    """What seed 42 gave in the first one: a run that is resumed after an update goes on with the same composites."""
    groups = epoch_groups([2, 3], [1, 1], 4, 42, 1)
    assert groups.characters.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert groups.images.tolist() == [[2, 1], [2, 1], [0, 0], [0, 1]]
    assert generator(42, 1, 0, "caption").getrandbits(32) == 4081618652


def test_no_global_random_state_is_read_or_changed():
    drawn = []
    for state in (1, 2):
        random.seed(state)
        np.random.seed(state)
        before = random.getstate(), np.random.get_state()[1].tolist()
        drawn.append([arrays(42, 1), generator(42, 1, 0, "caption").random()])
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("counts", [[], [3]])
def test_fewer_than_two_characters_is_an_error(counts):
    with pytest.raises(ValueError, match=rf"{len(counts)} character\(s\): a composite needs 2"):
        epoch_groups(counts, [1] * len(counts), 4, 42, 1)


@fast
@given(seeds, epochs, st.integers(0, 10_000))
def test_a_generator_is_its_own_for_each_purpose_index_and_epoch(seed, epoch, index):
    keys = [(epoch, index, "caption"), (epoch, index, "flip"), (epoch, index + 1, "caption"), (epoch + 1, index, "caption")]
    draws = [generator(seed, *key).random() for key in keys]
    assert len(set(draws)) == len(keys)
    assert draws == [generator(seed, *key).random() for key in keys]


def test_drawing_for_one_purpose_does_not_shift_another():
    alone = generator(42, 1, 7, "flip").random()
    captions = generator(42, 1, 7, "caption")
    [captions.random() for _ in range(5)]
    assert generator(42, 1, 7, "flip").random() == alone


def test_keys_are_told_apart_where_their_digits_run_together():
    assert generator(1, 11, 1, "flip").random() != generator(11, 1, 1, "flip").random()
    assert generator(1, 1, 11, "flip").random() != generator(1, 11, 1, "flip").random()


# --- more panels than two ------------------------------------------------------------------------------------------


@fast
@given(st.lists(st.integers(1, 3), min_size=3, max_size=6), st.integers(1, 300), st.sampled_from([3, 4]))
def test_every_tuple_of_different_characters_comes_as_often_as_its_weight_says(weights, composites, panels):
    assume(len(weights) >= panels)
    groups = epoch_groups([3] * len(weights), weights, composites, 42, 1, panels)
    assert groups.characters.shape == groups.images.shape == (composites, panels)
    worth = {group: math.prod(weights[c] for c in group) for group in permutations(range(len(weights)), panels)}
    seen = Counter(map(tuple, groups.characters.tolist()))
    assert set(seen) <= set(worth)
    for group, weight in worth.items():
        assert abs(seen[group] - composites * weight / sum(worth.values())) < 1 + 1e-9
