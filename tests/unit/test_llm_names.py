"""What the name of an LLM means."""

from pathlib import Path

import pytest

from hydra_edge.errors import UnknownModelError
from hydra_edge.llm.models import check_name
from hydra_edge.llm.names import read_name


@pytest.mark.parametrize(
    ("text", "kind", "target"),
    [
        ("", "default", ""),
        (" \n", "default", ""),
        (" SmolLM2 ", "packaged", "smollm2"),
        ("gemma3", "packaged", "gemma3"),
        ("own.GGUF", "file", "own.GGUF"),
        ("./own", "file", "./own"),
        ("chat:smollm2", "file", "smollm2"),
        (" openai: org/model.gguf ", "remote", "org/model.gguf"),
        ("openai:", "remote", ""),
        ("OpenAI:m", "unknown", "openai:m"),
        ("gpt-9", "unknown", "gpt-9"),
    ],
)
def test_name_is_of_one_kind_and_means_one_thing(text, kind, target):
    name = read_name(text)
    assert (name.kind, name.target) == (kind, target)
    assert name.text == text.strip()
    assert name.chat is text.startswith("chat:")


def test_name_of_a_file_is_the_same_file_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert read_name("chat:own.gguf").anywhere() == f"chat:{tmp_path}/own.gguf"
    assert read_name("~/own.gguf").anywhere() == f"{tmp_path}/home/own.gguf"
    assert read_name(" openai:m ").anywhere() == "openai:m"


@pytest.mark.parametrize(
    "text", ["~nobody-here/own.gguf", "chat:~nobody-here/x", "a" * 300 + ".gguf"]
)
def test_name_no_file_can_have_is_of_no_file(text):
    name = read_name(text)
    assert not name.has_file()
    with pytest.raises(UnknownModelError, match="No model file") as caught:
        check_name(name)
    assert Path(text.removeprefix("chat:")).name in str(caught.value)
