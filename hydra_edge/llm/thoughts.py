"""The marks that models put around what they think aloud before an answer.

APIs mostly take them off; servers that do not know a model's marks hand them on as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Marks:
    """Where a thought begins and ends; ``around`` is what may enclose the answer behind it."""

    begin: str
    end: str
    around: tuple[str, str] = ("", "")


_THINK = Marks("<think>", "</think>")
_FINAL = "<|channel|>final<|message|>"
# Of Qwen, DeepSeek and most others; of models told or trained to use such tags; then of Gemini,
# Magistral, Kimi, Seed, MiniMax, OpenThinker, Cohere's, Gemma's and gpt-oss.
THOUGHTS = (
    _THINK,
    Marks("<thinking>", "</thinking>"),
    Marks("<reasoning>", "</reasoning>", ("<answer>", "</answer>")),
    Marks("<thought>", "</thought>"),
    Marks("[THINK]", "[/THINK]"),
    Marks("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    Marks("<seed:think>", "</seed:think>"),
    Marks("<mm:think>", "</mm:think>"),
    Marks(
        "<|begin_of_thought|>", "<|end_of_thought|>",
        ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ),
    Marks(
        "<|START_THINKING|>", "<|END_THINKING|>", ("<|START_RESPONSE|>", "<|END_RESPONSE|>")
    ),
    Marks("<|channel>thought", "<channel|>"),
    # What comes before the last channel is not meant to be read, whatever its name.
    Marks("<|channel|>", _FINAL),
    Marks("<|start|>assistant<|channel|>", _FINAL),
)  # fmt: skip


def marks_beside(examples: Sequence[str]) -> tuple[Marks, ...]:
    """Return the marks of thoughts where answers of the user's are known, who may write some.

    The first is a thought's in any case: in records, too, that came with a model's thoughts.
    """
    return tuple(
        marks
        for marks in THOUGHTS
        if marks is _THINK or not any(e.lstrip().startswith(marks.begin) for e in examples)
    )
