"""Sample prompts for a config that gives none: each character alone, pairs, and pairs without the template's mark."""

from __future__ import annotations

from collections import Counter
from itertools import chain, combinations, permutations
from typing import Any

from lycoris_composite.composites.captions import holds_captions, marker, render
from lycoris_composite.composites.plan import Plan
from lycoris_composite.data.buckets import Size
from lycoris_composite.data.characters import Character
from lycoris_composite.data.tags import whole_text
from lycoris_composite.randomness import generator

# Pairs grow with the square of the cast, and every prompt is a picture at every sampling.
MOST_CHARACTERS = 4
_MOST_TAGS = 6


def sample_prompts(plan: Plan, single_size: Size, is_guided: bool = True) -> list[dict[str, Any]]:
    """Prompts as upstream's JSON prompt files hold them: each character alone at `single_size`, then each ordered
    group, then each group with the template's mark (`COMPOSITE`) in the negative prompt, sized like the composites. The
    last are left out where no negative prompt changes a sample of the model, which `is_guided` says."""
    template, size = plan.options.caption, _usual_size(plan)
    cast = {character.trigger: character for character in plan.characters[:MOST_CHARACTERS]}
    mark = marker(template) if is_guided else None
    unmarked = list(combinations(cast, plan.panels)) if mark else []
    if holds_captions(template):
        texts = {name: _own_caption(character) for name, character in cast.items()}
        alone, sides = list(texts.values()), {name: [text] for name, text in texts.items()}
        without_mark = [" ".join([f"{', '.join(group)}.", *(texts[name] for name in group)]) for group in unmarked]
    else:
        sides = {name: _common_tags(character) for name, character in cast.items()}
        alone = [", ".join([name, *tags]) for name, tags in sides.items()]
        without_mark = [", ".join([*group, *chain.from_iterable(sides[name] for name in group)]) for group in unmarked]
    marked = [render(template, group, [sides[name] for name in group]) for group in permutations(cast, plan.panels)]
    return [
        *(_prompt(text, single_size) for text in alone),
        *(_prompt(text, size) for text in marked),
        *(_prompt(text, size, mark) for text in without_mark),
    ]


def _prompt(text: str, size: Size, negative: str | None = None) -> dict[str, Any]:
    prompt = {"prompt": text, "width": size[0], "height": size[1], "seed": 1}
    return {**prompt, "negative_prompt": negative} if negative else prompt


def _common_tags(character: Character) -> list[str]:
    """The tags that half of the captions or more have, the commonest first."""
    return [tag for tag, count in character.tag_counts() if count * 2 >= len(character.captions)][:_MOST_TAGS]


def _own_caption(character: Character) -> str:
    """Its first image's caption, the same draw of its wildcards every time."""
    return whole_text(character.captions[0], character.subset.rules, generator(0, 0, 0, "sample caption"))


def _usual_size(plan: Plan) -> Size:
    return Counter(plan.composite(1, index).size for index in range(min(plan.composites, 200))).most_common(1)[0][0]
