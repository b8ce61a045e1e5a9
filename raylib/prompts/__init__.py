"""Prompts: perspectives as versioned files, the form of questions and answers."""

from raylib.prompts.answers import PAIR_FIELDS, PARSE_ERRORS, format_answer, format_pair, label_start, parse_answer
from raylib.prompts.chat import encode_prompt, render
from raylib.prompts.perspectives import PERSPECTIVES, UNIFIED, Perspective, load_perspective

__all__ = [
    "PAIR_FIELDS",
    "PARSE_ERRORS",
    "PERSPECTIVES",
    "UNIFIED",
    "Perspective",
    "encode_prompt",
    "format_answer",
    "format_pair",
    "label_start",
    "load_perspective",
    "parse_answer",
    "render",
]
