"""What tells of pictures and sound: keys by their names, marks in prompts."""

from __future__ import annotations

from typing import Any

import pytest

from engine import schema
from engine.config import FieldMap
from engine.formats import Turn, convert
from engine.formats.media import has_mark, is_media_name


def row(**more: object) -> dict[str, Any]:
    return {"prompt": "q", "response": "a", **more}


@pytest.mark.parametrize(
    "name",
    [
        *("image_count", "num_images", "has_image", "image_caption", "image_width", "video_title"),
        *(
            "imagery",
            "imagine",
            "speech_act",
            "hate_speech",
            "media_type",
            "docker_image",
            "prompt",
        ),
        *("image_prompt", "is_video", "no_image", "audio_transcript", "img_height", "wave"),
    ],
)
def test_names_that_are_about_media(name: str) -> None:
    assert not is_media_name(name)
    assert convert(row(**{name: "x"})).flag == schema.OK


@pytest.mark.parametrize(
    ("name", "value", "flag"),
    [
        ("image", 397133, schema.NON_TEXT_CONTENT),
        ("image_id", 397133, schema.NON_TEXT_CONTENT),
        ("images", 3.0, schema.NON_TEXT_CONTENT),
        ("image", 0, schema.OK),
        ("image", True, schema.OK),
        ("image", float("nan"), schema.OK),
        ("image_seed", 5, schema.OK),
    ],
)
def test_a_number_may_name_a_picture(name: str, value: object, flag: str) -> None:
    assert convert(row(**{name: value})).flag == flag


@pytest.mark.parametrize(
    "text",
    [
        *(
            "<image>",
            "<image>\nWhat is it?",
            "Compare <image> with <image>",
            "<Image>",
            "<image_1>",
        ),
        *(
            "<|image|>",
            "<|image_1|>",
            "<video>\nWhat happens?",
            "<audio>",
            "<img>a.jpg</img> What?",
        ),
        *("Picture 1: <|vision_start|>", "<image 2>", "<image_placeholder>", "<|image_pad|>"),
    ],
)
def test_marks(text: str) -> None:
    assert has_mark(text)
    first = {"prompt": text, "response": "a", "file_name": "a.jpg"}
    assert convert(first).flag == schema.NON_TEXT_CONTENT
    assert convert({"instruction": "q", "input": text, "output": "a"}).flag == (
        schema.NON_TEXT_CONTENT
    )
    assert convert(row(response=f"say {text}")).flag == schema.OK


@pytest.mark.parametrize(
    "text",
    [
        *('<image href="a.png"/>', "What does `<image>` do in SVG?", "<img src='a.png'>", "a < b"),
        *("<video><source src='a'></video>", "<images>", "the image", "<imagery>"),
    ],
)
def test_texts_that_are_no_marks(text: str) -> None:
    assert not has_mark(text)


def test_named_fields_leave_pictures_and_tools_in_sight() -> None:
    fields = FieldMap(prompt="p", response="r")
    found = convert({"p": "q", "r": "a", "img": "a.png"}, fields)
    assert (found.flag, found.unused) == (schema.NON_TEXT_CONTENT, ())
    assert found.turns[2] == Turn("img", '"a.png"')
    found = convert({"p": "q", "r": "a", "tools": [{"name": "add"}]}, fields)
    assert (found.flag, found.unused) == (schema.TOOL_TURN, ())
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    turns = convert({"chat": chat, "images": ["a.png"]}, FieldMap(turns="chat"))
    assert turns.flag == schema.NON_TEXT_CONTENT
    # A key that they name is what they say.
    named = FieldMap(prompt="image", response="tools")
    assert convert({"image": "q", "tools": "a"}, named) == (
        (Turn("user", "q"), Turn("assistant", "a")),
        schema.OK,
        (),
    )
