"""Sample prompts for a config that gives none: each character alone, pairs, and pairs without the template's mark."""

from __future__ import annotations

from collections import Counter
from itertools import chain, combinations, permutations
from typing import Any

from lycoris_composite.composites.captions import marker, render
from lycoris_composite.composites.plan import Plan
from lycoris_composite.data.buckets import Size
from lycoris_composite.data.characters import Character

# Pairs grow with the square of the cast, and every prompt is a picture at every sampling.
MOST_CHARACTERS = 4
_MOST_TAGS = 6


def sample_prompts(plan: Plan, single_size: Size) -> list[dict[str, Any]]:
    """Prompts as upstream's JSON prompt files hold them: each character alone at `single_size`, then each ordered
    group, then each group with the template's mark (`COMPOSITE`) in the negative prompt, sized like the composites."""
    template = plan.options.caption
    tags = {character.trigger: _common_tags(character) for character in plan.characters[:MOST_CHARACTERS]}
    prompts = [_prompt(", ".join([name, *tags[name]]), single_size) for name in tags]
    size = _usual_size(plan)
    for group in permutations(tags, plan.panels):
        prompts.append(_prompt(render(template, group, [tags[name] for name in group]), size))
    mark = marker(template)
    for group in combinations(tags, plan.panels) if mark else ():
        prompts.append(_prompt(", ".join([*group, *chain.from_iterable(tags[name] for name in group)]), size, mark))
    return prompts


def _prompt(text: str, size: Size, negative: str | None = None) -> dict[str, Any]:
    prompt = {"prompt": text, "width": size[0], "height": size[1], "seed": 1}
    return {**prompt, "negative_prompt": negative} if negative else prompt


def _common_tags(character: Character) -> list[str]:
    """The tags that half of the captions or more have, the commonest first."""
    return [tag for tag, count in character.tag_counts() if count * 2 >= len(character.captions)][:_MOST_TAGS]


def _usual_size(plan: Plan) -> Size:
    return Counter(plan.composite(1, index).size for index in range(min(plan.composites, 200))).most_common(1)[0][0]
