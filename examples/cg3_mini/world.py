"""A drawn world whose truth is known: figures side by side in front of one background, and the tags of what was drawn.

Everything comes from the generator handed in. A figure stands in a slot 64 pixels wide and high, the leftmost first;
a picture of n figures is 64 n pixels wide, its background continuous. Drawn four times as large, then scaled down.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields

from PIL import Image, ImageDraw

SIDE = 64  # of a slot, in pixels
_SCALE = 4
_S = SIDE * _SCALE  # of a slot, as drawn

HAIR = {
    "red": (206, 44, 40),
    "blonde": (246, 208, 72),
    "green": (48, 150, 72),
    "blue": (52, 92, 214),
    "pink": (244, 134, 184),
    "black": (42, 38, 50),
}
HAIR_CUTS = ("short hair", "long hair", "twintails", "ponytail")
OUTFIT = {
    "red": (214, 58, 50),
    "yellow": (250, 216, 84),
    "green": (70, 168, 88),
    "blue": (64, 104, 220),
    "purple": (140, 80, 184),
    "white": (248, 246, 242),
}
OUTFITS = ("dress", "shirt", "overalls")
ACCESSORIES = ("", "hat", "ribbon", "glasses")
EXPRESSIONS = ("smile", "open mouth", "frown")
POSES = ("arms up", "arms down", "waving")
PLAIN = {
    "white": (238, 236, 232),
    "grey": (158, 160, 166),
    "cream": (240, 224, 196),
    "aqua": (158, 214, 214),
    "lilac": (202, 186, 226),
}
SCENES = ("beach", "forest", "city", "night sky", "room", "meadow")
BACKGROUNDS = (*(f"{colour} background" for colour in PLAIN), "gradient background", *SCENES)

_SKIN = (252, 222, 198)
_LINE = (66, 46, 52)
_BLUSH = (244, 174, 160)


@dataclass(frozen=True)
class Figure:
    """One person. The first five fields are who somebody is, the last two what they do."""

    hair: str
    cut: str
    colour: str
    outfit: str
    accessory: str
    expression: str
    pose: str

    @property
    def identity(self) -> tuple[str, ...]:
        return tuple(getattr(self, name) for name in IDENTITY)

    @property
    def looks(self) -> list[str]:
        """The tags of who it is."""
        hair = f"{self.hair} {self.cut}"
        return [tag for tag in (hair, f"{self.colour} {self.outfit}", self.accessory) if tag]

    @property
    def doings(self) -> list[str]:
        """The tags of what it does."""
        return [self.expression, self.pose]


IDENTITY = tuple(field.name for field in fields(Figure))[:5]
CHOICES = {
    "hair": tuple(HAIR),
    "cut": HAIR_CUTS,
    "colour": tuple(OUTFIT),
    "outfit": OUTFITS,
    "accessory": ACCESSORIES,
    "expression": EXPRESSIONS,
    "pose": POSES,
}
# People whom the base model knows by name, as a real one knows many; it has only seen them alone. See `cast`.
NAMES = (
    *[
        "alice",
        "anna",
        "bella",
        "clara",
        "daisy",
        "ella",
        "emma",
        "eva",
        "fiona",
        "grace",
        "hannah",
        "helen",
        "ida",
        "iris",
        "jane",
        "julia",
        "kate",
        "laura",
        "lily",
        "lucy",
    ],
    *[
        "maria",
        "mary",
        "megan",
        "molly",
        "nina",
        "nora",
        "olivia",
        "paula",
        "rachel",
        "rosa",
        "ruby",
        "sara",
        "sophie",
        "stella",
        "susan",
        "tina",
        "vera",
        "zoe",
        "amy",
    ],
    *[
        "audrey",
        "betty",
        "bianca",
        "bonnie",
        "brenda",
        "brooke",
        "carla",
        "carmen",
        "carol",
        "chloe",
        "cindy",
        "cynthia",
        "dana",
        "deborah",
        "diana",
        "doris",
    ],
    *[
        "dorothy",
        "edith",
        "eileen",
        "elena",
        "emily",
        "erica",
        "erin",
        "esther",
        "faith",
        "felicia",
        "florence",
        "frances",
        "gina",
        "gloria",
        "gwen",
        "haley",
    ],
    *[
        "harriet",
        "hazel",
        "heather",
        "heidi",
        "hilary",
        "holly",
        "ingrid",
        "irene",
        "isabel",
        "ivy",
        "jackie",
        "janet",
        "jasmine",
        "jenny",
        "jessica",
        "joan",
    ],
    *[
        "judith",
        "karen",
        "katie",
        "kelly",
        "kim",
        "lana",
        "leah",
        "linda",
        "lisa",
        "lola",
        "louise",
        "lydia",
        "mabel",
        "marilyn",
        "martha",
        "maya",
        "melissa",
        "mia",
    ],
    *["miranda", "nancy", "naomi", "natalie", "nicole", "norma", "pamela"],
)
CHARACTERS = {
    "uzuki": ("pink", "long hair", "yellow", "dress", "ribbon"),
    "rin": ("black", "twintails", "blue", "shirt", ""),
    "mio": ("blonde", "short hair", "green", "overalls", "hat"),
}


def random_figure(rng: random.Random) -> Figure:
    """Anybody but the named characters, whom the base model must not know."""
    while True:
        figure = Figure(**{name: rng.choice(values) for name, values in CHOICES.items()})
        if all(figure.identity[:4] != identity[:4] for identity in CHARACTERS.values()):
            return figure


def cast() -> dict[str, tuple[str, ...]]:
    """The identity of each of NAMES, always the same; no two have the same hair and clothes."""
    rng, found = random.Random("cast"), {}
    for name in NAMES:
        while (identity := random_figure(rng).identity)[:4] in {known[:4] for known in found.values()}:
            pass
        found[name] = identity
    return found


def character(name: str, rng: random.Random) -> Figure:
    """A named character doing something."""
    return Figure(*CHARACTERS[name], rng.choice(EXPRESSIONS), rng.choice(POSES))


def caption(figures: Sequence[Figure], background: str) -> str:
    """The tags of a picture: how many, each figure's from left to right, the background."""
    count = "1girl" if len(figures) == 1 else f"{len(figures)}girls"
    return ", ".join([count, *(tag for figure in figures for tag in (*figure.looks, *figure.doings)), background])


def draw(figures: Sequence[Figure | None], background: str, rng: random.Random) -> Image.Image:
    """The figures side by side, RGB, 64 pixels high; None leaves a slot empty. What the tags leave open (places, sizes,
    tints) is drawn from rng."""
    canvas = new_canvas(len(figures))
    _draw_background(canvas, background, rng)
    return stand(figures, canvas, rng)


def new_canvas(slots: int) -> Image.Image:
    """To draw a background on, which `stand` then puts figures in front of."""
    return Image.new("RGB", (_S * slots, _S))


def stand(figures: Sequence[Figure | None], canvas: Image.Image, rng: random.Random) -> Image.Image:
    """The picture of figures in front of a background, in its final size."""
    for slot, figure in enumerate(figures):
        if figure is not None:
            _draw_figure(ImageDraw.Draw(canvas), figure, slot, rng)
    return canvas.reduce(_SCALE)


# --- backgrounds -------------------------------------------------------------------------------------------------


def _draw_background(canvas: Image.Image, name: str, rng: random.Random) -> None:
    pen, width = ImageDraw.Draw(canvas), canvas.width
    if name == "gradient background":
        _gradient(canvas, rng.choice(list(PLAIN.values())), rng.choice([(236, 150, 130), (120, 150, 206), (130, 190, 150)]))
    elif name.removesuffix(" background") in PLAIN:
        pen.rectangle((0, 0, width, _S), fill=_tinted(PLAIN[name.removesuffix(" background")], rng, 6))
    else:
        _SCENERY[name](canvas, pen, rng)


def _gradient(canvas: Image.Image, top: tuple, bottom: tuple) -> None:
    column = Image.new("RGB", (1, 2))
    column.putdata([top, bottom])
    canvas.paste(column.resize(canvas.size, Image.Resampling.BILINEAR))


def _beach(canvas: Image.Image, pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    sea, sand = rng.uniform(0.40, 0.50) * _S, rng.uniform(0.64, 0.74) * _S
    pen.rectangle((0, 0, canvas.width, sea), fill=_tinted((150, 208, 244), rng))
    pen.rectangle((0, sea, canvas.width, sand), fill=_tinted((44, 128, 190), rng))
    pen.rectangle((0, sand, canvas.width, _S), fill=_tinted((236, 212, 158), rng))


def _forest(canvas: Image.Image, pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    pen.rectangle((0, 0, canvas.width, _S), fill=_tinted((172, 206, 170), rng))
    ground = rng.uniform(0.74, 0.84) * _S
    x = -rng.uniform(0, 0.3) * _S
    while x < canvas.width:
        wide = rng.uniform(0.08, 0.14) * _S
        pen.rectangle((x, 0, x + wide, ground), fill=_tinted((112, 84, 62), rng))
        x += wide + rng.uniform(0.18, 0.34) * _S
    pen.rectangle((0, 0, canvas.width, 0.14 * _S), fill=_tinted((60, 118, 70), rng))
    pen.rectangle((0, ground, canvas.width, _S), fill=_tinted((86, 138, 78), rng))


def _city(canvas: Image.Image, pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    pen.rectangle((0, 0, canvas.width, _S), fill=_tinted((250, 206, 168), rng))
    x = -rng.uniform(0, 0.2) * _S
    while x < canvas.width:
        wide, top = rng.uniform(0.16, 0.32) * _S, rng.uniform(0.12, 0.5) * _S
        pen.rectangle((x, top, x + wide, _S), fill=_tinted((128, 122, 142), rng, 16))
        for row in range(int(top + 0.05 * _S), int(0.8 * _S), int(0.11 * _S)):
            for column in range(int(x + 0.03 * _S), int(x + wide - 0.05 * _S), int(0.1 * _S)):
                pen.rectangle((column, row, column + 0.04 * _S, row + 0.05 * _S), fill=(250, 226, 150))
        x += wide
    pen.rectangle((0, 0.84 * _S, canvas.width, _S), fill=_tinted((98, 96, 104), rng))


def _night_sky(canvas: Image.Image, pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    _gradient(canvas, _tinted((26, 30, 74), rng, 6), _tinted((84, 76, 140), rng, 6))
    for _ in range(9 * canvas.width // _S):
        x, y, r = rng.uniform(0, canvas.width), rng.uniform(0, 0.8 * _S), rng.uniform(0.008, 0.018) * _S
        pen.ellipse((x - r, y - r, x + r, y + r), fill=(252, 248, 214))
    x, y, r = rng.uniform(0.1, 0.9) * canvas.width, rng.uniform(0.08, 0.2) * _S, 0.09 * _S
    pen.ellipse((x - r, y - r, x + r, y + r), fill=(250, 240, 196))


def _room(canvas: Image.Image, pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    pen.rectangle((0, 0, canvas.width, _S), fill=_tinted((226, 196, 172), rng))
    x = -rng.uniform(0, 0.3) * _S
    while x < canvas.width:
        pen.rectangle((x, 0.10 * _S, x + 0.32 * _S, 0.42 * _S), fill=(250, 250, 250))
        pen.rectangle((x + 0.03 * _S, 0.13 * _S, x + 0.29 * _S, 0.39 * _S), fill=_tinted((156, 204, 236), rng))
        pen.line((x + 0.16 * _S, 0.13 * _S, x + 0.16 * _S, 0.39 * _S), fill=(250, 250, 250), width=5)
        x += rng.uniform(0.55, 0.8) * _S
    pen.rectangle((0, rng.uniform(0.76, 0.82) * _S, canvas.width, _S), fill=_tinted((150, 104, 72), rng))


def _meadow(canvas: Image.Image, pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    pen.rectangle((0, 0, canvas.width, _S), fill=_tinted((166, 216, 246), rng))
    for _ in range(2 * canvas.width // _S):
        x, y = rng.uniform(0, canvas.width), rng.uniform(0.06, 0.3) * _S
        pen.ellipse((x - 0.16 * _S, y - 0.05 * _S, x + 0.16 * _S, y + 0.05 * _S), fill=(250, 252, 252))
    pen.ellipse((-0.3 * _S, rng.uniform(0.5, 0.6) * _S, canvas.width + 0.3 * _S, 2.2 * _S), fill=_tinted((122, 190, 92), rng))
    for _ in range(8 * canvas.width // _S):
        x, y, r = rng.uniform(0, canvas.width), rng.uniform(0.7, 1) * _S, 0.018 * _S
        pen.ellipse((x - r, y - r, x + r, y + r), fill=rng.choice([(250, 250, 250), (250, 220, 90), (240, 140, 170)]))


_SCENERY = dict(zip(SCENES, (_beach, _forest, _city, _night_sky, _room, _meadow), strict=True))


def _tinted(colour: tuple[int, int, int], rng: random.Random, spread: int = 9) -> tuple[int, int, int]:
    return tuple(max(0, min(255, channel + rng.randint(-spread, spread))) for channel in colour)


# --- figures -----------------------------------------------------------------------------------------------------


class _Pen:
    """Shapes about a figure's middle: x from -0.5 to 0.5 of a slot, y from 0 at the top to 1."""

    def __init__(self, pen: ImageDraw.ImageDraw, middle: float, size: float) -> None:
        self._pen, self._middle, self._size = pen, middle, size

    def _points(self, points: Sequence[float]) -> list[float]:
        xs = [self._middle + x * self._size * _S for x in points[::2]]
        ys = [_S + (y - 1) * self._size * _S for y in points[1::2]]
        return [value for pair in zip(xs, ys, strict=True) for value in pair]

    def ellipse(self, *box: float, fill: tuple, line: bool = True) -> None:
        self._pen.ellipse(self._points(box), fill=fill, outline=_LINE if line else None, width=4)

    def polygon(self, *points: float, fill: tuple) -> None:
        corners = self._points(points)
        self._pen.polygon(corners, fill=fill)
        self._pen.line([*corners, *corners[:2]], fill=_LINE, width=4, joint="curve")

    def line(self, *points: float, fill: tuple = _LINE, width: int = 5) -> None:
        self._pen.line(self._points(points), fill=fill, width=width, joint="curve")

    def chord(self, *box: float, start: int, end: int, fill: tuple) -> None:
        self._pen.chord(self._points(box), start, end, fill=fill, outline=_LINE, width=4)

    def arc(self, *box: float, start: int, end: int) -> None:
        self._pen.arc(self._points(box), start, end, fill=_LINE, width=6)


def _draw_figure(canvas: ImageDraw.ImageDraw, figure: Figure, slot: int, rng: random.Random) -> None:
    size = rng.uniform(0.93, 1.0)
    pen = _Pen(canvas, (slot + 0.5 + rng.uniform(-0.03, 0.03)) * _S, size)
    hair = _tinted(HAIR[figure.hair], rng, 6)
    _draw_hair_behind(pen, figure.cut, hair)
    _draw_arms(pen, figure)
    _draw_outfit(pen, figure, rng)
    pen.ellipse(-0.19, 0.17, 0.19, 0.57, fill=_SKIN)
    _draw_face(pen, figure.expression)
    _draw_hair_before(pen, hair)
    _draw_accessory(pen, figure.accessory)


def _draw_hair_behind(pen: _Pen, cut: str, hair: tuple) -> None:
    if cut == "long hair":
        pen.polygon(-0.23, 0.30, 0.23, 0.30, 0.29, 0.88, 0.16, 0.94, -0.16, 0.94, -0.29, 0.88, fill=hair)
    elif cut == "twintails":
        pen.ellipse(-0.45, 0.20, -0.18, 0.76, fill=hair)
        pen.ellipse(0.18, 0.20, 0.45, 0.76, fill=hair)
    elif cut == "ponytail":
        pen.polygon(-0.14, 0.20, -0.34, 0.10, -0.45, 0.26, -0.42, 0.62, -0.32, 0.44, fill=hair)
    pen.ellipse(-0.235, 0.10, 0.235, 0.54, fill=hair)


def _draw_hair_before(pen: _Pen, hair: tuple) -> None:
    pen.chord(-0.225, 0.11, 0.225, 0.55, start=188, end=352, fill=hair)


def _draw_arms(pen: _Pen, figure: Figure) -> None:
    sleeve = OUTFIT["white"] if figure.outfit == "overalls" else OUTFIT[figure.colour]
    raised = {"arms up": (True, True), "arms down": (False, False), "waving": (False, True)}[figure.pose]
    for side, up in zip((-1, 1), raised, strict=True):
        hand = (side * 0.37, 0.40) if up else (side * 0.27, 0.84)
        for fill, width in ((_LINE, 30), (sleeve, 22)):
            pen.line(side * 0.10, 0.65, *hand, fill=fill, width=width)
        pen.ellipse(hand[0] - 0.055, hand[1] - 0.055, hand[0] + 0.055, hand[1] + 0.055, fill=_SKIN)


def _draw_outfit(pen: _Pen, figure: Figure, rng: random.Random) -> None:
    colour = _tinted(OUTFIT[figure.colour], rng, 5)
    if figure.outfit == "dress":
        pen.polygon(-0.09, 0.56, 0.09, 0.56, 0.14, 0.72, 0.30, 1.0, -0.30, 1.0, -0.14, 0.72, fill=colour)
    elif figure.outfit == "shirt":
        pen.polygon(-0.15, 0.58, 0.15, 0.58, 0.16, 0.84, -0.16, 0.84, fill=colour)
        pen.polygon(-0.16, 0.84, 0.16, 0.84, 0.17, 1.0, -0.17, 1.0, fill=(70, 66, 84))
    else:
        pen.polygon(-0.15, 0.58, 0.15, 0.58, 0.16, 0.80, -0.16, 0.80, fill=OUTFIT["white"])
        pen.polygon(
            -0.09, 0.66, 0.09, 0.66, 0.10, 0.76, 0.18, 0.78, 0.18, 1.0, -0.18, 1.0, -0.18, 0.78, -0.10, 0.76, fill=colour
        )
        for side in (-1, 1):
            pen.line(side * 0.07, 0.68, side * 0.10, 0.57, fill=colour, width=10)


def _draw_face(pen: _Pen, expression: str) -> None:
    for side in (-1, 1):
        pen.ellipse(side * 0.085 - 0.03, 0.335, side * 0.085 + 0.03, 0.425, fill=(52, 40, 60), line=False)
        pen.ellipse(side * 0.085 - 0.02, 0.345, side * 0.085 + 0.004, 0.375, fill=(255, 255, 255), line=False)
        pen.ellipse(side * 0.13 - 0.03, 0.43, side * 0.13 + 0.03, 0.465, fill=_BLUSH, line=False)
    if expression == "smile":
        pen.arc(-0.06, 0.42, 0.06, 0.50, start=10, end=170)
    elif expression == "open mouth":
        pen.ellipse(-0.045, 0.44, 0.045, 0.53, fill=(190, 60, 66))
    else:
        pen.arc(-0.06, 0.47, 0.06, 0.55, start=190, end=350)


def _draw_accessory(pen: _Pen, accessory: str) -> None:
    if accessory == "hat":
        pen.ellipse(-0.28, 0.09, 0.28, 0.20, fill=(124, 78, 52))
        pen.polygon(-0.16, 0.15, -0.13, 0.01, 0.13, 0.01, 0.16, 0.15, fill=(124, 78, 52))
    elif accessory == "ribbon":
        pen.polygon(0.0, 0.13, -0.17, 0.03, -0.17, 0.22, fill=(226, 52, 60))
        pen.polygon(0.0, 0.13, 0.17, 0.03, 0.17, 0.22, fill=(226, 52, 60))
    elif accessory == "glasses":
        for side in (-1, 1):
            pen.ellipse(side * 0.09 - 0.075, 0.315, side * 0.09 + 0.075, 0.445, fill=None)
        pen.line(-0.02, 0.37, 0.02, 0.37)
