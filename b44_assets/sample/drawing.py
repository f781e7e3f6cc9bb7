"""Chance with a seed, and what is drawn by it: identifiers, times, names and prose.

Only `random()` and `getrandbits()` are used of Python's generator: their sequences are promised to stay the same in
later versions of Python, those of `choice` and `shuffle` are not.
"""

# Prose in other scripts is what some of the strings are for.
# ruff: noqa: RUF001

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random
from typing import TypeVar

T = TypeVar("T")

# Times are whole milliseconds since the Unix epoch, UTC, as in Base44's store.
SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
_EPOCH = datetime(1970, 1, 1)
START = (datetime(2024, 1, 1) - _EPOCH) // timedelta(milliseconds=1)
END = (datetime(2026, 10, 1) - _EPOCH) // timedelta(milliseconds=1)

_OFFSETS = ((2 * HOUR, "+02:00"), (-5 * HOUR - 30 * MINUTE, "-05:30"), (9 * HOUR, "+09:00"))
_NANOID = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"

WORDS = tuple(
    """
    acorn almond anvil apricot arch aspen attic autumn badger barley basalt basket bellows birch blanket boulder
    bramble brass breeze brook buckle butter cabin cactus canal canvas caravan cedar cellar chalk chapel cherry
    chimney clay cliff clover cobalt compass coral cotton cradle crater cricket curtain cypress daisy dawn delta
    desert dune eagle echo elm falcon fennel fern ferry fiddle flint forest fountain foxglove gable galley ginger
    granite gravel grove gull hammock hazel heather hedge heron hollow honey hornet island ivory jasmine jetty
    juniper kettle kiln ladder lagoon lavender lemon lichen linen lobster loom magnet mallow mango marble marsh
    meridian mill mint mosaic moss mustard nectar needle nettle nutmeg oak oasis olive onyx opal otter oyster
    paddle parsley pebble pepper pier pigeon pine plateau plum pollen poppy prairie quarry quartz quill raven reed
    reef rosemary rudder saffron sail sand sparrow spruce squirrel starling steeple sumac swan tallow tansy
    terrace thistle thyme timber trellis tulip turret twig umber vault vineyard walnut weaver wharf wheat willow
    wren yarrow zephyr
    """.split()  # noqa: SIM905 - a list of literals is far longer to read
)

# Prose in other scripts, with signs beyond the Basic Multilingual Plane; no `<`, no `&`, and no space that HTML names.
_FOREIGN_SENTENCES = (
    "Der Fluß führt im März über die Wiesen.",
    "Où est passé le vieux phare ?",
    "Ночью над рекой стоит густой туман.",
    "市場は朝の七時に開きます。",
    "Το λιμάνι ξυπνά πριν από τον ήλιο.",
    "Łódka płynie powoli w stronę brzegu.",
    "The lamp was lit again 🎉 and stayed lit 🕯️.",
    "El año pasado llovió menos – casi nada.",
    "ताला पुराना है पर चलता है।",
    "“Half past nine,” she said — “or later.”",
)
_FOREIGN_TITLES = (
    "Über den Fluß und zurück",
    "Зимний сад",
    "日本語のノート",
    "Crème brûlée at 7° — a review",
    "Ψάρια και θάλασσα",
    "Party 🎉 plan",
)
_FORMULA_TITLES = (
    "=SUM(B2:B9) in five minutes",
    "+1 for longer evenings",
    "-4 degrees and falling",
    "@home with the printer",
)
_TAGS = (*WORDS[::6], "machine learning", "новости", "café au lait", "slow travel")
# Only for tags in a JSON array: a comma or a quote inside a tag would not survive a comma-separated list.
_ARRAY_TAGS = (*_TAGS, "salt, pepper", 'so-called "news"')


def iso(at: int) -> str:
    """A time as Base44 writes it: naive UTC, six digits of fraction or none.

    Args:
        at: Milliseconds since the epoch.
    """
    return (_EPOCH + timedelta(milliseconds=at)).isoformat()


class Draw:
    """A stream of chance of its own: what one purpose draws does not shift what another draws."""

    def __init__(self, seed: int, purpose: str) -> None:
        """Starts the stream.

        Args:
            seed: The seed of the whole sample.
            purpose: Tells the streams of one sample apart.
        """
        generator = Random(f"{purpose}:{seed}")
        self.random = generator.random
        self._bits = generator.getrandbits

    def below(self, bound: int) -> int:
        """A whole number from 0 to `bound` - 1, each as likely; `bound` is far below 2**53."""
        return int(self.random() * bound)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.random() < probability

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, each as likely."""
        return options[int(self.random() * len(options))]

    def moment(self) -> int:
        """A time from the start of 2024 to the end of September 2026, in milliseconds since the epoch."""
        return START + int(self.random() * (END - START))

    def object_id(self, at: int) -> str:
        """An ObjectId made at a time (milliseconds since the epoch): its first 8 digits are the second."""
        return f"{at // 1000:08x}{self._bits(64):016x}"

    def invented_id(self, at: int) -> str:
        """An id such as app code makes up: a nanoid, a prefix and a time, or a UUID."""
        kind = self.below(4)
        if kind == 0:
            return "".join([self.pick(_NANOID) for _ in range(21)])
        if kind == 1:
            return f"guest_{at}"
        if kind == 2:
            return f"custom-{at}"
        digits = f"{self._bits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"

    def service_id(self) -> str:
        """The creator of what an integration wrote: no user."""
        digits = f"{self._bits(128):032x}"
        return f"service_{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-b{digits[17:20]}-{digits[20:]}"

    def written_by_app(self, at: int) -> tuple[str, str]:
        """A time as it stands in a field that app code writes, in one of the mixed forms seen in real columns.

        Args:
            at: Milliseconds since the epoch.

        Returns:
            The text of the field, and the time that it means as ISO 8601 with `+00:00`. Forms other than Base44's own
            are rounded down to a minute, so that they mean the same in a dialect without fractions.
        """
        kind = self.below(8)
        if kind < 4:
            return iso(at), iso(at) + "+00:00"
        at -= at % MINUTE
        meaning = iso(at) + "+00:00"
        if kind == 4:
            return iso(at) + ".000Z", meaning
        if kind == 5:
            return iso(at) + "Z", meaning
        if kind == 6:
            return iso(at)[:16], meaning
        shift, offset = self.pick(_OFFSETS)
        return iso(at + shift) + offset, meaning

    def words(self, count: int) -> list[str]:
        """So many words, in lower case."""
        return [self.pick(WORDS) for _ in range(count)]

    def title(self) -> str:
        """A title of a post as its author typed it; some with blanks around, in other scripts, or like a formula."""
        kind = self.random()
        if kind < 0.02:
            return self.pick(_FOREIGN_TITLES)
        if kind < 0.04:
            return self.pick(_FORMULA_TITLES)
        text = " ".join(self.words(3 + self.below(5))).title()
        return f"  {text} " if kind < 0.14 else text

    def tags(self) -> tuple[list[str] | str | None, list[str]]:
        """The tags of a post as exported (a JSON array, a comma-separated list, blank or null), and what they mean."""
        kind = self.random()
        if kind < 0.15:
            return self.pick((None, None, "")), []
        count = self.below(5)
        if kind < 0.6:
            listed = [self.pick(_ARRAY_TAGS) for _ in range(count)]
            return listed, listed
        listed = [self.pick(_TAGS) for _ in range(count)]
        return self.pick((", ", ",")).join(listed), listed

    def sentence(self) -> str:
        """A sentence; one in 25 in another script. Neither `<` nor `&` is in it."""
        kind = self.random()
        if kind < 0.04:
            return self.pick(_FOREIGN_SENTENCES)
        words = self.words(6 + self.below(10))
        words[0] = words[0].capitalize()
        if kind < 0.1:
            words[2] = f'"{words[2]}"'
        if kind > 0.6:
            words[4] += ","
        return " ".join(words) + "."


class Prose:
    """Bodies of posts, put together from paragraphs that are made once: bodies differ, and drawing one is quick."""

    def __init__(self, seed: int, size: int = 600) -> None:
        """Makes the paragraphs.

        Args:
            seed: The seed of the whole sample.
            size: How many paragraphs of plain text to make, and how many of HTML.
        """
        draw = Draw(seed, "prose")
        self._plain = [self._paragraph(draw) for _ in range(size)]
        self._html = [self._marked_up(draw, self._paragraph(draw)) for _ in range(size)]

    @staticmethod
    def _paragraph(draw: Draw) -> str:
        return " ".join([draw.sentence() for _ in range(3 + draw.below(4))])

    @staticmethod
    def _marked_up(draw: Draw, text: str) -> str:
        # Only what every sanitizer leaves as it is, so that clean HTML comes through unchanged.
        kind = draw.below(8)
        if kind == 0:
            head, _, rest = text.partition(" ")
            text = f"<strong>{head}</strong> {rest}"
        elif kind == 1:
            head, _, tail = text.rpartition(" ")
            text = f"{head} <em>{tail}</em>"
        elif kind == 2:
            text += " Salt &amp; pepper."
        return f"<p>{text}</p>"

    def body(self, draw: Draw) -> tuple[str, bool]:
        """A body of a post.

        Args:
            draw: Where chance comes from.

        Returns:
            The text, and whether it is HTML. The other half is plain text with line breaks.
        """
        kind = draw.random()
        count = 1 + draw.below(4)
        if kind < 0.5:
            return "".join([draw.pick(self._html) for _ in range(count)]), True
        text = "\n\n".join([draw.pick(self._plain) for _ in range(count)])
        return (f"- {text}\n- and so on" if kind > 0.97 else text), False
