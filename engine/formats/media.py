"""What tells of pictures, films and sound: names of keys, and the marks that stand in a text."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from engine.formats.values import is_empty

_KINDS: Final = "image|img|picture|photo|video|audio"
_SUFFIXES: Final = (
    *("path", "file", "filename", "filepath", "name", "id", "idx", "url", "uri", "link", "src"),
    *("base64", "b64", "bytes", "data", "content", "ref", "list", "array", "tensor", "folder"),
)
_NAME: Final = re.compile(
    rf"(?:\w+_)?(?:{_KINDS})s?\d*(?:(?:_?(?:{'|'.join(_SUFFIXES)})s?\d*)*|_\w+)"
    rf"|(?:wav|speech|media)s?\d*(?:_?(?:{'|'.join(_SUFFIXES)})s?\d*)*",
    re.ASCII,
)
# Words in such a name that make it a text or a number about a picture, or a mark of one.
_ABOUT: Final = re.compile(
    r"(?:^|_)(?:has|is|no|num|n|count|caption|description|title|type|size|width|height|format|"
    r"tags?|category|license|docker|alt|text|prompt|duration|length|rate|quality|score|"
    r"transcript|transcription|summary|style|class|label|topic|language|lang)s?(?:_|$)"
)
_NUMBERED: Final = re.compile(rf"(?:{_KINDS})s?(?:_?(?:id|idx)s?)?")
"""A number under one of these names a picture, as those of COCO have numbers."""
# As chat templates and data sets write them. With attributes or in back quotes they are what a text
# about HTML or SVG says, and so is `<video>` with its end; but `<img>a.jpg</img>` is a picture.
_MARK: Final = re.compile(
    r"(?<!`)<(?:"
    r"(?:image|video|audio)[ _-]?(?:\d+|pad|placeholder|token|soft_token|here)>"
    r"|(?:image|img)>|(video|audio)>(?!.*</\1>)"
    r"|\|(?:image|img|video|audio)(?:[ _-]?(?:\d+|pad|placeholder))?\|>"
    r"|\|vision_start\|>|start_of_image>)",
    re.ASCII | re.IGNORECASE | re.DOTALL,
)


@lru_cache(4096)
def is_media_name(name: str) -> bool:
    """Whether a key of a row or a turn names or holds what is no text, in any case.

    ``decoded_image``, ``imageUrl`` and ``images_path`` do, ``image_count`` and ``image_caption``
    do not.
    """
    lower = name.lower()
    return _NAME.fullmatch(lower) is not None and _ABOUT.search(lower) is None


def is_media(name: str, value: object) -> bool:
    """Whether a key holds a picture or the like: a text, bytes, a list or an object, none of it
    empty; or a number that is a picture's name.

    ``has_image: 0`` and ``image: false`` are no images.
    """
    if not is_media_name(name):
        return False
    if isinstance(value, str | bytes | list | dict):
        return not is_empty(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return bool(value) and not is_empty(value) and _NUMBERED.fullmatch(name.lower()) is not None


def has_mark(text: str) -> bool:
    """Whether a place for a picture, film or sound is in a prompt."""
    return "<" in text and _MARK.search(text) is not None
