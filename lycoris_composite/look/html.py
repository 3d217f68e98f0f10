"""Templates to pages of one file each, which need no network. What looks like markup in a caption is text on a page."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

TEMPLATES = Path(__file__).parent / "templates"
_QUALITY = 85  # of JPEG; a page of a hundred pictures stays a few megabytes


def render(template: str, **values: Any) -> str:
    """A page from a template of this package. All values are escaped."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(**values)


def jpeg_uri(picture: Image.Image, most_height: int) -> str:
    """A picture as data URI, made smaller where it is higher than `most_height` pixels."""
    small, buffer = picture.convert("RGB"), BytesIO()
    small.thumbnail((small.width, most_height), Image.Resampling.LANCZOS)
    small.save(buffer, "JPEG", quality=_QUALITY)
    return data_uri(buffer.getvalue(), "image/jpeg")


def data_uri(content: bytes, media_type: str) -> str:
    """A file's content as text, which a page can hold in place of its address."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
