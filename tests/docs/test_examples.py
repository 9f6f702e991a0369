"""Every example of the README and of the documentation works, and prints what the page says."""

from __future__ import annotations

import re
import shlex

import pytest
from django.core.management import get_commands, load_command_class

from .story import ONLY_SHOWN, ROOT, Block, Story, blocks, make_project, normal, pages, prepare

_RUN = {"python", "markdown", "pycon", "bash", "text"}
_COMMAND = re.compile(r"manage\.py (?P<command>\w+)(?P<arguments>[^\n]*)")


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("documented"))


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_does_what_it_says(page, tmp_path, project):
    with Story(page, prepare(page, tmp_path, project)) as story:
        for block in blocks(page):
            story.tell(block)


def test_every_block_is_of_a_known_language():
    unknown = [
        f"{page.name}:{block.line}: {block.language}"
        for page in pages()
        for block in blocks(page)
        if block.language not in _RUN | ONLY_SHOWN
    ]
    assert unknown == []


def test_commands_in_blocks_that_are_only_shown_can_be_parsed():
    """Units, container files and crontabs: each `manage.py …` in them has the options that it uses."""
    parsed = 0
    for page in pages():
        for block in blocks(page):
            if block.language in ONLY_SHOWN:
                for match in _COMMAND.finditer(block.text.replace('", "', " ").replace('"]', "")):
                    parse(match["command"], match["arguments"])
                    parsed += 1
    assert parsed


def parse(name, arguments):
    if name == "db_worker":  # of another package
        return
    app = get_commands()[name]
    command = load_command_class(app, name) if isinstance(app, str) else app
    parser = command.create_parser("manage.py", name)
    parser.parse_args(shlex.split(arguments))


@pytest.mark.parametrize(
    "place, expected",
    [
        ("", "new\n"),
        (", at the end", "one = 1\ntwo = 2\n\n\nnew\n"),
        (", after `one`", "one = 1\nnew\ntwo = 2\n"),
        (", instead of `= 1`", "one new\ntwo = 2\n"),
    ],
)
def test_a_block_changes_a_file(tmp_path, place, expected):
    (tmp_path / "story").mkdir()
    path = tmp_path / "story" / "module.py"
    path.write_text("one = 1\ntwo = 2\n")
    with Story(ROOT / "README.md", path.parent) as story:
        story.tell(Block("python", f"# module.py{place}\nnew\n", 1, 0, 0))
    assert path.read_text() == expected


@pytest.mark.parametrize("place", ["after `three`", "after ` = `", "instead of `three`"])
def test_a_block_that_does_not_fit_its_file_is_noticed(tmp_path, place):
    (tmp_path / "story").mkdir()
    (tmp_path / "story" / "module.py").write_text("one = 1\ntwo = 2\n")
    with Story(ROOT / "README.md", tmp_path / "story") as story, pytest.raises(AssertionError, match=r"module\.py has"):
        story.tell(Block("python", f"# module.py, {place}\nnew\n", 1, 0, 0))


def test_a_different_output_is_noticed():
    same = "run 019aa0b5-7c4c-7cf0-a3d2-0a4c7f3a9c11   took 12 ms"
    assert normal(same) == normal("run 019aa0b5-0000-7cf0-b3d2-0a4c7f3a9c12 took 8 ms\n")
    assert normal(same) != normal("run 019aa0b5-0000-7cf0-b3d2-0a4c7f3a9c12 failed")
