"""Where texts that are forgotten stand in others: long ones inside, short ones only whole."""

from __future__ import annotations

import pytest
from filled_store import SECRET_IN
from hypothesis import given
from hypothesis import strategies as st

from hydra_edge.store import traces
from hydra_edge.store.traces import Traces


@pytest.mark.parametrize(
    ("text", "touched"),
    [
        (SECRET_IN, True),
        (f"before {SECRET_IN} after", True),
        (SECRET_IN.replace(" ", "\n "), True),
        (SECRET_IN[:-1], False),
        (SECRET_IN.upper(), False),
        ("yes", True),
        (" yes ", True),
        ("yes indeed", False),
        ("", False),
    ],
)
def test_traces_long_texts_are_found_inside_short_ones_only_whole(text: str, touched: bool) -> None:
    sought = Traces(["id"], [SECRET_IN, SECRET_IN + " and on", "yes", " "])
    assert sought.touch([], [text]) is touched
    assert sought.touch(["other", None], ["no"]) is False
    assert sought.touch(["id"], []) is True


@pytest.mark.parametrize("around", ["{}", "{} after", "before {}", "before {} after"])
@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("looks", [0, 1])
def test_traces_of_many_texts_are_found_at_either_end_of_another(
    monkeypatch: pytest.MonkeyPatch, around: str, more: int, looks: int
) -> None:
    monkeypatch.setattr(traces, "_LOOKS", looks)
    text = "x" * (traces.DISTINCTIVE + more)
    others = [f"another text that is forgotten {i}" for i in range(100)]
    assert list(Traces([], [*others, text]).long_ones_in(around.format(text))) == [text]


@pytest.mark.parametrize("many", [0, 100])
def test_traces_text_is_not_found_in_two_that_only_together_hold_it(many: int) -> None:
    others = [f"another text that is forgotten {i}" for i in range(many)]
    sought = Traces([], ["behind the harbour at midnight", *others])
    assert sought.touch([], ["behind the harbour", "at midnight"]) is False
    assert sought.touch([], ["nothing", "right behind the harbour at midnight"]) is True


def test_traces_of_many_texts_are_made_ready_for_many_only_once_it_pays() -> None:
    sought = Traces([], [f"another text that is forgotten {i}" for i in range(100)])
    for _ in range(traces._LOOKS):
        assert sought.touch([], ["this is another text that is forgotten 7, too"])
    assert "_parts" not in vars(sought)
    assert sought.touch([], ["this is another text that is forgotten 7, too"])
    assert "_parts" in vars(sought)


words = st.sampled_from(["alpha ", "beta ", "x", "xx", "日本", "harbour at midnight "])
few_words = st.lists(words, min_size=1, max_size=8).map("".join)


@given(texts=st.lists(few_words, max_size=6), around=few_words, within=st.integers(0, 5))
def test_traces_few_or_many_are_found_alike(texts: list[str], around: str, within: int) -> None:
    sought = Traces([], texts)
    text = " ".join(f"{around} {''.join(texts[within : within + 1])} {around}".split())
    one_by_one = set(sought.long_ones_in(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(traces, "_FEW", -1)
        assert set(sought.long_ones_in(text)) == one_by_one
        patch.setattr(traces, "_LOOKS", 0)
        assert set(sought.long_ones_in(text)) == one_by_one
    folded = {" ".join(known.split()) for known in texts}
    assert one_by_one == {known for known in folded if len(known) >= 16 and known in text}
