"""A composite to its picture."""

from __future__ import annotations

from PIL import Image

from lycoris_composite.composites.join import join_panels
from lycoris_composite.composites.plan import Composite
from lycoris_composite.data.images import panel_picture


def composite_picture(composite: Composite) -> Image.Image:
    """The composite as training crops it. Raises UserError for an image that is gone."""
    panels = [panel_picture(panel.image.path, panel.size, panel.flipped) for panel in composite.panels]
    return Image.fromarray(join_panels(panels, composite.boxes, axes=(0, 1)))
