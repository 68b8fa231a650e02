"""Globs of what is left out, and notes that they leave out."""

import os

import pytest
from test_importers_markdown import note, read

from hydra_edge.errors import ConfigError
from hydra_edge.importers.globs import Globs


@pytest.mark.parametrize(
    ("glob", "path", "folder", "fits"),
    [
        ("*.draft.md", "a.draft.md", False, True),
        ("*.draft.md", "x/y/a.draft.md", False, True),
        ("*.draft.md", "a.md", False, False),
        ("templates", "templates", True, True),
        ("templates", "x/templates", True, True),
        ("templates/*", "templates/t.md", False, True),
        ("templates/*", "templates/sub", True, True),
        ("templates/*", "x/templates/t.md", False, False),
        ("**/templates/*", "x/templates/t.md", False, True),
        ("**/templates/*", "templates/t.md", False, True),
        ("a/**/b.md", "a/b.md", False, True),
        ("a/**/b.md", "a/x/y/b.md", False, True),
        ("a/**/b.md", "c/a/b.md", False, False),
        ("a/**", "a/x/y.md", False, True),
        ("a*/c.md", "a/b/c.md", False, False),
        ("/a.md", "a.md", False, True),
        ("/a.md", "x/a.md", False, False),
        ("./a.md", "a.md", False, True),
        ("drafts/", "drafts", True, True),
        ("drafts/", "x/drafts", True, True),
        ("drafts/", "drafts", False, False),
        ("n?.md", "n1.md", False, True),
        ("n[0-4].md", "n5.md", False, False),
        ("n[!0-4].md", "n5.md", False, True),
        ("A.md", "a.md", False, False),
        ("caf\u00e9.md", "cafe\u0301.md", False, True),
    ],
)
def test_glob_matches_as_gitignore_has_it(glob, path, folder, fits):
    globs = Globs([glob])
    assert globs.match(path, folder=folder) == fits
    assert globs.unused == ([] if fits else [glob])


def test_glob_by_itself_is_no_list_of_letters():
    globs = Globs("*.draft.md")
    assert not globs.match("a.md", folder=False)
    assert globs.match("a.draft.md", folder=False)


@pytest.mark.parametrize("glob", ["", "/", "./", "//"])
def test_glob_that_is_empty_is_refused(glob):
    with pytest.raises(ConfigError, match="expected a glob"):
        Globs([glob])


def test_notes_left_out_are_counted_and_a_glob_without_any_is_told(tmp_path):
    for name in ("a.md", "b.draft.md", "sub/c.draft.md", "templates/t.md", "templates/u/v.md"):
        note(tmp_path, name, "# Title\n\nText.\n")
    globs = ["*.draft.md", "templates/", "nothing/*"]
    records, log = read(tmp_path, exclude=globs)
    assert [record.id for record in records] == ["a.md"]
    assert log.skipped == {"left out by --exclude": 2, "folder left out by --exclude": 1}
    assert log.notes == ["--exclude 'nothing/*' matches no note or folder"]


def test_folder_that_is_a_link_or_locked_is_unread_unless_it_is_left_out(tmp_path, monkeypatch):
    note(tmp_path, "notes/a.md", "# Title\n\nText.\n")
    note(tmp_path, "locked/b.md", "# Title\n\nText.\n")
    (tmp_path / "link").symlink_to(tmp_path / "notes")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert set(read(tmp_path)[1].unread) == {
        "folder 'link', a link, which is not followed", "folder 'locked', which cannot be read",
    }  # fmt: skip
    assert not read(tmp_path, exclude=["link", "locked/"])[1].unread
