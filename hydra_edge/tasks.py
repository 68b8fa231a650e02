"""Task specs: how a record is shown to an LLM, and how answers are compared.

Owns the built-in tasks, inferring one from outputs, and finding one by its name. It knows
nothing of users, stores, models, or files (``taskfile`` reads those). ``closedset`` says which
answers can be members of a set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import get_args

from hydra_edge.closedset import (
    ADDED_BYTES,
    MOST,
    answer_key,
    each_once,
    fit_a_prompt,
    is_label,
    is_scale,
    room_of,
)
from hydra_edge.errors import ConfigError, UnknownTaskError
from hydra_edge.spelling import number, rating_value
from hydra_edge.types import DEFAULT_TASK, Kind

NEWS_SECTIONS = (
    "BLACK VOICES", "BUSINESS", "COMEDY", "CRIME", "CULTURE & ARTS", "EDUCATION",
    "ENTERTAINMENT", "ENVIRONMENT", "FOOD & DRINK", "HOME & LIVING", "IMPACT",
    "LATINO VOICES", "MEDIA", "MONEY", "PARENTING", "POLITICS", "QUEER VOICES", "RELIGION",
    "SCIENCE", "SPORTS", "STYLE & BEAUTY", "TECH", "TRAVEL", "U.S. NEWS", "WEDDINGS",
    "WEIRD NEWS", "WELLNESS", "WOMEN", "WORLD NEWS",
)  # fmt: skip
MOVIE_TAGS = (
    "sci-fi", "based on a book", "comedy", "action", "twist ending", "dystopia",
    "dark comedy", "classic", "psychology", "fantasy", "romance", "thought-provoking",
    "social commentary", "violence", "true story",
)  # fmt: skip

LONG_ANSWER = 256  # tokens of an answer of several lines, at least, where no task file says more
_CLOSE = 0.75  # how alike two names must be for one to be called a slip of the other
_LATEST = 16  # ratings that tell another scale, if most of them are beyond the one there was
# Steps of a scale that a slip lies beyond it at least: of 1 and 2 alone, a rare 5 is none.
_FAR = 4
_INFERRED_WORDS = 6  # of a label that nothing but the answers says is one
_INFERRED_MOST = 60  # different ones of these


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """How one kind of query is put to an LLM and how its answers are compared.

    ``labels`` is the closed answer set of a ``label`` task, or the ordered set of a
    ``rating`` task from lowest to highest; empty means: the user's own outputs.
    ``multiline`` answers may span lines; all others end at the first newline.
    """

    name: str
    kind: Kind = "text"
    instruction: str = "Answer the way I did before."
    input_label: str = "Input"
    output_label: str = "Output"
    labels: tuple[str, ...] = ()
    max_tokens: int = 48
    multiline: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(
                f"Task {self.name!r} has kind {self.kind!r}; expected one of "
                f"{', '.join(get_args(Kind))}. Correct it in its task file."
            )
        if self.kind == "rating" and any(number(label) is None for label in self.labels):
            raise ConfigError(
                f"Task {self.name!r} is a rating but its labels are {list(self.labels)}; "
                "expected numbers only. Correct them, or use kind = 'label'."
            )

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings at which the answer of a model ends that continues a text.

        Nothing but an empty line parts the next block of a prompt from an answer of several lines,
        which may itself have a line that begins as one: an e-mail address, a worked example.
        """
        return (f"\n\n{self.input_label}:",) if self.multiline else ("\n",)

    @property
    def span(self) -> float:
        """Distance between the lowest and the highest rating (1.0 where there is none)."""
        values = [v for v in map(number, self.labels) if v is not None]
        return (max(values) - min(values)) or 1.0 if values else 1.0


BUILTIN: dict[str, TaskSpec] = {
    spec.name: spec
    for spec in (
        TaskSpec(
            DEFAULT_TASK, max_tokens=LONG_ANSWER, multiline=True,
            instruction="Answer the last input the way I answered the earlier ones.",
        ),
        TaskSpec(
            "commit_subject", max_tokens=24,
            instruction="Write the subject line of a git commit in my style.",
            input_label="Text", output_label="Subject",
        ),
        TaskSpec(
            "news_category", "label", labels=NEWS_SECTIONS, max_tokens=8,
            instruction="Name the section this article belongs to.",
            input_label="Text", output_label="Category",
        ),
        TaskSpec(
            "movie_tag", "label", labels=MOVIE_TAGS, max_tokens=8,
            instruction="Choose the tag I would give this film.",
            input_label="Film", output_label="Tag",
        ),
        TaskSpec(
            "film_rating", "rating", labels=("1", "2", "3", "4", "5"), max_tokens=4,
            instruction="Rate the film from 1 to 5 as I would, given my review.",
            input_label="Review", output_label="Rating",
        ),
        TaskSpec(
            "news_headline", max_tokens=24,
            instruction="Write the headline of this article in my style.",
            input_label="Text", output_label="Headline",
        ),
        TaskSpec(
            "paper_title", max_tokens=32,
            instruction="Write the title of this paper in my style.",
            input_label="Abstract", output_label="Title",
        ),
        TaskSpec(
            "tweet", max_tokens=48,
            instruction="Rewrite this tweet the way I would.",
            input_label="Text", output_label="Tweet",
        ),
        TaskSpec(
            "product_rating", "rating", labels=("1", "2", "3", "4", "5"), max_tokens=4,
            instruction="Rate the product from 1 to 5 as I would, given my review.",
            input_label="Review", output_label="Rating",
        ),
        TaskSpec(
            "citation", "label", max_tokens=48,
            instruction="Choose the paper I would cite.",
            input_label="Paper", output_label="Citation",
        ),
        TaskSpec(
            "email_subject", max_tokens=24,
            instruction="Write the subject line of this e-mail in my style.",
            input_label="Text", output_label="Subject",
        ),
        TaskSpec(
            "email_reply", max_tokens=LONG_ANSWER, multiline=True,
            instruction="Reply to the last e-mail the way I replied to the earlier ones.",
            input_label="E-mail", output_label="Reply",
        ),
        TaskSpec(
            "message_reply", max_tokens=LONG_ANSWER, multiline=True,
            instruction="Reply to the last message the way I replied to the earlier ones.",
            input_label="Message", output_label="Reply",
        ),
        TaskSpec(
            "note_title", max_tokens=24,
            instruction="Write the title of this note in my style.",
            input_label="Text", output_label="Title",
        ),
        TaskSpec(
            "chat", max_tokens=LONG_ANSWER, multiline=True,
            instruction="Answer the last message the way the earlier ones were answered.",
            input_label="Message", output_label="Answer",
        ),
    )
}  # fmt: skip


def canonical_name(name: str) -> str:
    """Return a task's stored name: ``Commit-Subject`` and ``commit_subject`` are one task."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def near_task(name: str, known: Iterable[str]) -> str:
    """Return the known name that another may be a slip of; "" if there is none."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, list(known), n=1, cutoff=_CLOSE)), "")


def infer_task(name: str, outputs: Sequence[str]) -> TaskSpec:
    """Infer the spec of an unknown task from the answers seen so far.

    Few distinct numbers make a rating, few distinct short strings a set of labels, all else text.
    At least 8 answers are needed before anything but text is assumed. A few answers of another sort
    (N/A among numbers, a sentence among labels, 45 among ratings from 1 to 5) are slips, and left
    out of the set. ``outputs`` are oldest first, where they are one person's.
    """
    given = [o.strip() for o in outputs]
    # More than any set has, slips included: of tens of thousands none need be looked at.
    if len(set(given)) > _INFERRED_MOST + (1.0 - MOST) * len(given) + 1:
        return _inferred_text(name, outputs)
    numbers = [o for o in given if number(o) is not None]
    short = [o for o in given if is_label(o) and len(o.split()) <= _INFERRED_WORDS]
    rated = is_scale(given)
    is_set = len(short) >= MOST * len(given)
    given = _near_each_other(numbers) if rated else short if is_set else given
    distinct = sorted(set(given))
    closed = len(given) >= 8 and len(distinct) <= max(2, min(_INFERRED_MOST, len(given) // 3))
    closed = closed and all(map(is_label, distinct)) and fit_a_prompt(distinct)
    if closed and rated:
        ratings = sorted(each_once(given, "rating").values(), key=rating_value)
        return TaskSpec(
            name, "rating", labels=tuple(ratings), max_tokens=6,
            instruction="Rate the last input the way I rated the earlier ones.",
            output_label="Rating",
        )  # fmt: skip
    if closed and is_set:
        return TaskSpec(
            name, "label", labels=tuple(each_once(given, "label").values()), max_tokens=16,
            instruction="Choose the label I would choose.",
            output_label="Label",
        )  # fmt: skip
    return _inferred_text(name, outputs)


def _near_each_other(ratings: Sequence[str]) -> list[str]:
    """Leave out a few ratings that are much too high, or below 0, to be of the others' scale.

    They lie further from the others than these from each other. A low one that is rare is no slip:
    scales begin at 0 or 1. ``ratings`` are oldest first.
    """
    times = Counter(map(rating_value, ratings))
    values, few = sorted(times), (1.0 - MOST) * len(ratings)

    def is_far(value: float, rest: Sequence[float]) -> bool:
        if len(rest) < 2:
            return False
        span, step = rest[-1] - rest[0], min(b - a for a, b in pairwise(rest))
        return min(abs(value - rest[0]), abs(value - rest[-1])) > max(span, _FAR * step)

    scale = values
    for i in range(len(values) - 1, 0, -1):
        if sum(times[v] for v in values[i:]) < few and is_far(values[i], values[:i]):
            scale = values[:i]
    for i in range(1, len(scale)):
        if scale[i - 1] < 0.0 and is_far(scale[i - 1], scale[i:]):
            scale = scale[i:]
            break
    ends = {scale[0], scale[-1]} if scale else set()
    spec = TaskSpec("", "rating", labels=tuple(r for r in ratings if rating_value(r) in ends))
    return on_scale(spec, ratings, in_order=True)


def _inferred_text(name: str, outputs: Sequence[str]) -> TaskSpec:
    multiline = any("\n" in o for o in outputs)
    return replace(
        BUILTIN[DEFAULT_TASK],
        name=name,
        multiline=multiline,
        max_tokens=LONG_ANSWER if multiline else 48,
    )


def closed_task(name: str, labels: Sequence[str]) -> TaskSpec | None:
    """Return the spec of a task whose answers are known to be these; None if they are no set."""
    spec = infer_task(name, [*labels] * 8)
    whole = len(spec.labels) == len(each_once(labels, spec.kind))  # none is taken for a slip
    return spec if spec.kind != "text" and whole else None


class CustomTasks(dict[str, TaskSpec]):
    """The user's own specs by name; a file that cannot be used concerns its own task only.

    ``broken`` holds what is wrong, by the name of the task that the file describes. ``unlimited``
    are the tasks whose files leave open how long an answer may be.
    """

    def __init__(
        self,
        specs: dict[str, TaskSpec],
        broken: dict[str, ConfigError],
        unlimited: Iterable[str] = (),
    ) -> None:
        super().__init__(specs)
        self.broken = broken
        self.unlimited = frozenset(unlimited)

    def __bool__(self) -> bool:
        """Return whether any file is there, usable or not."""
        return bool(len(self) or self.broken)


def says_length(custom: dict[str, TaskSpec], name: str) -> bool:
    """Tell whether the user's own spec of a task says how long an answer may be."""
    return name in custom and not (isinstance(custom, CustomTasks) and name in custom.unlimited)


def find_task(
    name: str,
    *,
    custom: dict[str, TaskSpec] | None = None,
    outputs: Iterable[str] = (),
    used: Iterable[str] = (),
) -> TaskSpec:
    """Return the spec of a task; its closed set includes what the user has answered.

    Answers that are no labels (long, or of several lines) are left out, and so are the rarest
    ones where there are more than a prompt has room for, and a rating far from all others: a slip.
    A task that names no labels itself is taken for free text where most answers are no labels, or
    too many to be named.

    Parameters
    ----------
    name
        Any spelling ``canonical_name`` accepts.
    custom
        The user's own specs, which win over the built-in ones.
    outputs
        The user's own answers for this task, oldest first: they complete a closed set, and an
        unknown task is inferred from them.
    used
        Names of the tasks the user has records of, to be listed where this one is unknown.

    Raises
    ------
    ConfigError
        If the task's own file cannot be used.
    UnknownTaskError
        If the name is neither known nor backed by any answer.
    """
    name = canonical_name(name)
    if isinstance(custom, CustomTasks) and name in custom.broken:
        raise custom.broken[name]
    known = BUILTIN | (custom or {})
    answers = list(outputs)
    spec = known.get(name)
    if spec is None:
        if not answers:
            names = sorted(known.keys() | set(used))
            near = near_task(name[:80], names)
            raise UnknownTaskError(
                f"No task {name!r:.80}{f'; did you mean {near!r}?' if near else '.'} "
                f"Known tasks: {', '.join(names)}. "
                "Import records under this name first, or describe it in a task file."
            )
        return infer_task(name, answers)
    if spec.kind == "text":
        return spec
    usable = [a for a in answers if is_label(a)]
    if spec.kind == "rating":
        usable = on_scale(spec, [a for a in usable if number(a) is not None], in_order=True)
    if not spec.labels and 2 * len(usable) < len(answers):
        return _as_text(spec, answers)
    present = {answer_key(label, spec.kind) for label in spec.labels}
    extra = {key: a for key, a in each_once(usable, spec.kind).items() if key not in present}
    if not fit_a_prompt(extra.values()):
        if not spec.labels:
            return _as_text(spec, answers)
        extra = _most_given(extra, Counter(answer_key(a, spec.kind) for a in answers))
    if spec.kind == "rating":
        ratings = sorted((*spec.labels, *extra.values()), key=rating_value)
        return replace(spec, labels=tuple(ratings))
    return replace(spec, labels=(*spec.labels, *extra.values()))


def _as_text(spec: TaskSpec, answers: Sequence[str]) -> TaskSpec:
    """Return a task whose answers are no closed set as one of free text, with room for them."""
    multiline = spec.multiline or any("\n" in a.strip() for a in answers)
    room = max(spec.max_tokens, LONG_ANSWER if multiline else 48)
    return replace(spec, kind="text", multiline=multiline, max_tokens=room)


def on_scale(spec: TaskSpec, ratings: Sequence[str], *, in_order: bool = False) -> list[str]:
    """Leave out ratings beyond a task's own labels while they are too few to be another scale.

    ``in_order``: they are one person's, oldest first. Where most of the latest are beyond, that is
    the scale in use now.
    """
    known = [rating_value(label) for label in spec.labels]
    on = [not known or min(known) <= rating_value(r) <= max(known) for r in ratings]
    few = on.count(False) < (1.0 - MOST) * len(on)
    latest = on[-_LATEST:] if in_order else []
    if few and 2 * latest.count(False) <= len(latest):
        return [r for r, is_on in zip(ratings, on, strict=True) if is_on]
    return list(ratings)


def fits(spec: TaskSpec, answers: Sequence[str]) -> bool:
    """Tell whether answers could be of a task that names its own: few others, or none.

    A set of labels takes up others, and so may have as many of them as of its own.
    """
    if spec.kind == "text" or not spec.labels:
        return True
    if spec.kind == "rating":
        scale = [rating_value(label) for label in spec.labels]
        values = [rating_value(answer) for answer in answers if number(answer) is not None]
        known = sum(min(scale) <= value <= max(scale) for value in values)
        return known >= MOST * len(answers)
    labels = {answer_key(label, spec.kind) for label in spec.labels}
    return 2 * sum(answer_key(answer, spec.kind) in labels for answer in answers) >= len(answers)


def _most_given(
    answers: dict[str | float, str], times: Counter[str | float]
) -> dict[str | float, str]:
    """Return, in their order, those of the answers given most often that a prompt has room for."""
    often = sorted(answers, key=lambda key: -times[key])
    filled = accumulate(room_of(answers[key]) for key in often)
    kept = {key for key, size in zip(often, filled, strict=True) if size <= ADDED_BYTES}
    return {key: answer for key, answer in answers.items() if key in kept}
