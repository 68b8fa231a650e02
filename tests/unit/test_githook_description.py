"""What is staged, as the query the hook asks: files, prose and definitions of a change."""

import hook_runner
import pytest
from hook_runner import PARSER

from hydra_edge.errors import ConfigError
from hydra_edge.githook import Repository, describe_staged
from hydra_edge.githook.description import describe

repo = hook_runner.repo


def test_describe_names_files_prose_and_definitions(repo):
    repo.write("src/parser.py", "def old():\n    pass\n")
    repo.write("gone.py", "x = 1\n")
    repo.write("old_name.py", "y = [\n" + "    1,\n" * 30 + "]\n")
    repo.git("commit", "-q", "-m", "start")
    repo.write("src/parser.py", "# The header of a file is read here.\n" + PARSER)
    repo.write("docs/new.md", "# Headers\n\nEvery file begins with a header of four bytes.\n")
    repo.git("rm", "-q", "gone.py")
    repo.git("mv", "old_name.py", "new_name.py")
    text = describe_staged(Repository(repo.path))

    assert text.startswith("Change parser.py. Add new.md. Delete gone.py. "
                           "Rename old_name.py to new_name.py.")  # fmt: skip
    assert "The header of a file is read here." in text
    assert "Read the header, which may be empty." in text
    assert "Every file begins with a header of four bytes." in text
    assert "Add read_header. Remove old." in text
    assert not set("@{}<>") & set(text)


def test_describe_nothing_staged_is_empty(repo):
    repo.write("a.py", "x = 1\n")
    repo.git("commit", "-q", "-m", "start")
    (repo.path / "a.py").write_text("x = 2\n")

    assert describe_staged(Repository(repo.path)) == ""


def test_description_line_of_blanks_is_read_once():
    blanks = 200_000 * " "
    lines = [f"+# Read{blanks}the header first", "+func (" * 40_000, f"+//{blanks}x{blanks}", "+"]
    raw, patch = ":0 0 0 0 A\0a.go\0", "\n".join(("+++ b/a.go", "@@ -0,0 +1 @@", *lines))

    assert describe(raw, patch) == "Add a.go. Read the header first."


@pytest.mark.parametrize(
    ("line", "prose"),
    [
        ("# Read the  header ", "Read the header"),
        ("  // Read the header", "Read the header"),
        ("/* Read the header */", "Read the header"),
        ("/** Read the header */ ", "Read the header"),
        (" * Read the header", "Read the header"),
        ("-- Read the header", "Read the header"),
        (";; Read the header", "Read the header"),
        ("<!-- Read the header -->", "Read the header"),
        ('    r"""Read the header."""', "Read the header."),
        ("'''Read the header'''", "Read the header"),
        ('"""', ""), ('""""""', ""), ("/**/", ""), ("#", ""), ("* ", ""),
        ("#include <the a b>", ""), ("#!/usr/bin/env the header", ""), ("*the header is", ""),
    ],
)  # fmt: skip
def test_description_comment_is_its_text_without_the_marks(line, prose):
    raw, patch = ":0 0 0 0 A\0a.c\0", f"+++ b/a.c\n@@ -0,0 +1 @@\n+{line}"

    assert describe(raw, patch) == " ".join(["Add a.c.", prose and prose.rstrip(".") + "."]).strip()


def test_describe_changed_function_is_named(repo):
    repo.write("a.py", "def first():\n    x = 1\n    y = 2\n    return x\n")
    repo.git("commit", "-q", "-m", "start")
    repo.write("a.py", "def first():\n    x = 1\n    y = 2\n    return y\n")

    assert describe_staged(Repository(repo.path)) == "Change a.py. Change first."


def test_describe_huge_and_binary_changes_stay_short(repo):
    for i in range(40):
        repo.write(f"f{i}.py", "".join(f"def f{i}_{j}():\n    pass\n" for j in range(400)))
    (repo.path / "b.bin").write_bytes(bytes(range(256)) * 64)
    repo.git("add", "b.bin")
    text = describe_staged(Repository(repo.path))

    assert 5 < len(text.split()) < 130
    assert "and 35 more" in text


@pytest.mark.parametrize("name", ["ä ö.py", 'quo"te.py', "tab\there.py", "-dash.py"])
def test_describe_unusual_names_are_read(repo, name):
    repo.write(name, PARSER)
    text = describe_staged(Repository(repo.path))

    assert text.startswith(f"Add {name}.")
    if name in {"ä ö.py", "-dash.py"}:  # git quotes the others in a patch
        assert "read_header" in text


def test_describe_settings_of_the_repository_do_not_matter(repo, tmp_path):
    trap = tmp_path / "ran"
    (repo.path / ".gitattributes").write_text("*.py diff=trap\n")
    for name in ("diff.external", "diff.trap.command", "diff.trap.textconv", "core.fsmonitor"):
        repo.git("config", name, f"touch {trap}; true")
    repo.git("config", "diff.noprefix", "true")
    repo.git("config", "color.ui", "always")
    repo.write("a.py", PARSER)
    trap.unlink(missing_ok=True)  # adding a file is where git itself starts the monitor

    assert "read_header" in describe_staged(Repository(repo.path))
    assert not trap.exists()


def test_repository_elsewhere_is_refused(tmp_path, repo):
    with pytest.raises(ConfigError, match="git repository"):
        Repository(tmp_path)
    with pytest.raises(ConfigError, match="no folder"):
        Repository(tmp_path / "missing")
