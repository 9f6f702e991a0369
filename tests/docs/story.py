"""Does what a page of the documentation says: writes its files, runs its commands, compares their output.

A page is a story that is told from top to bottom in a directory of its own:

- a `python` block that begins with `# path/to/file.py` is that file; with `, at the end` it is added to the file; with
  ``, after `text` `` it stands behind the line with that text, with ``, instead of `text` `` it replaces the text; a
  `markdown` block does the same with `<!-- path/to/page.md -->`;
- any other `python` block is executed in the project, with the names of the blocks before it; `pycon` is compared too;
- a `bash` block is run; a `text` block right after it is what it prints, but for ids, times and spacing; a line `…`
  stands for any lines.

The pages of `docs/internals/` are about this code itself: their project is a copy of it.

`python -m tests.docs.story PAGE...` writes what the commands really print into the `text` blocks.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
INTERPRETER = Path(__file__).with_name("interpreter.py")

# Shown and not run; the commands in them are parsed.
ONLY_SHOWN = {"ini", "dockerfile", "cron", "yaml", "diff"}

_FENCE = re.compile(r"^(?P<fence>```+)(?P<language>[\w-]+)\n(?P<text>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(
    r"(?:# |<!-- )(?P<path>[\w./-]+\.(py|html|toml|md))"
    r"(?:, (?P<place>at the end|after `(?P<line>[^`\n]+)`|instead of `(?P<replaced>[^`\n]+)`))?(?: -->)?\n"
)
_TIMEOUT = 30  # seconds; less than a lease and what comes after it, which none of these commands should wait for
_TIMEOUT_OF_TESTS = 120  # of pages about the code, whose commands execute tests

_CHANGING = [
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?(\.\d+)?( ?[+-]\d\d:?\d\d|Z| UTC)?"), "<time>"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "<time>"),
    (re.compile(r"\b\d+(\.\d+)?( ?)(ms|s|m|min|seconds?)( ago)?\b"), "<duration>"),
    (re.compile(r"\bpid \d+|\bprocess \d+"), "<process>"),
    (re.compile(r"'default':\s+\S+db\.sqlite3"), "'default': <file>"),
    (re.compile(r"[^\s'\"]*/django_steps/"), "django_steps/"),
    (re.compile(r"line \d+"), "line <number>"),
    (re.compile(r"Django version \S+"), "Django version <version>"),
    (re.compile(r"-{5,}"), "-----"),
    (re.compile(r"[ \t]+"), " "),
]


@dataclass
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    line: int
    start: int
    end: int


def pages() -> list[Path]:
    """The README and every page of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    source = page.read_text()
    for match in _FENCE.finditer(source):
        line = source.count("\n", 0, match.start()) + 1
        yield Block(match["language"], match["text"], line, match.start("text"), match.end("text"))


def normal(output: str) -> list[str]:
    """The lines of an output, without what differs from one time to the next."""
    for pattern, replacement in _CHANGING:
        output = pattern.sub(replacement, output)
    return [line.strip() for line in output.strip().splitlines()]


def is_same(shown: str, printed: str) -> bool:
    """Whether a page shows what was printed, or parts of it with `…` between them."""
    pattern = "".join(r"(?:.*\n)?" if line == "…" else re.escape(line) + r"\n" for line in normal(shown))
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in normal(printed)), re.DOTALL) is not None


class Story:
    """Tells the blocks of one page, in a directory: with this Python, and `django_steps` from this path."""

    def __init__(
        self, page: Path, directory: Path, python: Path = Path(sys.executable), path: Path | None = ROOT
    ) -> None:
        self.page, self.directory, self.python = page, directory, python
        self.printed = ""
        self._interpreter: subprocess.Popen[str] | None = None
        is_about_the_code = is_internal(page)
        path = directory if is_about_the_code else path
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("DATABASE", "DJANGO"))},
            "DJANGO_SETTINGS_MODULE": "tests.settings" if is_about_the_code else "mysite.settings",
            "PATH": os.pathsep.join([str(_commands(directory)), str(python.parent), os.environ["PATH"]]),
            "PYTHONPATH": str(path or ""),
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "error",
            "COLUMNS": "100",
        }

    def __enter__(self) -> Story:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_interpreter()

    def tell(self, block: Block) -> None:
        """Do what a block says; AssertionError if that fails or something else comes out."""
        try:
            tell = {
                "python": self._python,
                "markdown": self._write,
                "pycon": self._execute,
                "bash": self._bash,
                "text": self._text,
            }
            if block.language not in ONLY_SHOWN:
                tell[block.language](block)
        except AssertionError as error:
            raise AssertionError(f"{self.page.relative_to(ROOT)}, line {block.line}: {error}") from None

    def _python(self, block: Block) -> None:
        if _FILE.match(block.text) is None:
            self._execute(block)
        else:
            self._write(block)

    def _write(self, block: Block) -> None:
        match = _FILE.match(block.text)
        assert match is not None, "which file is it?"
        path = self.directory / match["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_changed(path, match, block.text[match.end() :]))
        self._end_interpreter()  # the next one imports what the file says now

    def _bash(self, block: Block) -> None:
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", block.text],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=_TIMEOUT_OF_TESTS if is_internal(self.page) else _TIMEOUT,
        )
        self.printed = done.stdout
        assert done.returncode == 0, f"exit code {done.returncode}:\n{done.stdout}"

    def _text(self, block: Block) -> None:
        assert is_same(block.text, self.printed), f"printed was\n{self.printed}"

    # -- Python -----------------------------------------------------------------------------------

    def _execute(self, block: Block) -> None:
        if self._interpreter is None:
            self._interpreter = subprocess.Popen(
                [str(self.python), str(INTERPRETER)],
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._interpreter.stdin is not None and self._interpreter.stdout is not None
        self._interpreter.stdin.write(json.dumps([block.language, block.text]) + "\n")
        self._interpreter.stdin.flush()
        answer = json.loads(self._interpreter.stdout.readline() or '{"error": "the interpreter ended"}')
        self.printed = answer.get("printed", "")
        assert not answer["error"], answer["error"]

    def _end_interpreter(self) -> None:
        if self._interpreter is not None:
            self._interpreter.communicate(timeout=_TIMEOUT)
            self._interpreter = None


def _changed(path: Path, match: re.Match[str], text: str) -> str:
    """What a file holds after a block."""
    if match["place"] is None:
        return text
    before = path.read_text()
    if match["line"]:
        lines = [line for line in before.splitlines(keepends=True) if match["line"] in line]
        assert len(lines) == 1, f"{match['path']} has {len(lines)} lines with {match['line']!r}"
        return before.replace(lines[0], lines[0] + text)
    if match["replaced"]:
        assert match["replaced"] in before, f"{match['path']} has no {match['replaced']!r}"
        return before.replace(match["replaced"], text.rstrip("\n"))
    return before + "\n\n" + text


_COMMANDS = {"pip": 'test "$1" = install', "django-admin": 'exec python -m django "$@"'}


def _commands(directory: Path) -> Path:
    """A directory of commands beside the story's: what is installed already isn't installed again."""
    commands = directory.parent / "commands"
    commands.mkdir(exist_ok=True)
    for name, script in _COMMANDS.items():
        (commands / name).write_text(f"#!/bin/sh\n{script}\n")
        (commands / name).chmod(0o755)
    return commands


# -- The project that how-to guides go on from -----------------------------------------------------

STARTS_EMPTY = {"README.md", "docs/tutorial.md"}


# What a page about the code needs of it.
_CODE = ("django_steps", "docs", "testproject", "tests", "manage.py", "setup.cfg", "README.md", "CHANGELOG.md")


def is_internal(page: Path) -> bool:
    """Whether a page is about the code of this project, not about using it."""
    return page.parent == ROOT / "docs" / "internals"


def prepare(page: Path, directory: Path, project: Path) -> Path:
    """The directory in which a page is told: empty, or a copy of a project in which everything is set up."""
    story = directory / "story"
    if is_internal(page):
        copy_code(story)
    elif str(page.relative_to(ROOT)) in STARTS_EMPTY:
        story.mkdir()
    else:
        shutil.copytree(project, story)
    return story


def copy_code(directory: Path) -> None:
    """Make a copy of this project, so that a page may change it."""
    directory.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "_build", "*.sqlite3*", ".*_cache")
    for name in _CODE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, directory / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, directory / name)


def make_project(directory: Path) -> Path:
    """The project of the README's first blocks, up to its settings, migrated."""
    page = ROOT / "README.md"
    project = directory / "project"
    project.mkdir()
    with Story(page, project) as story:
        for block in blocks(page):
            story.tell(block)
            if "INSTALLED_APPS" in block.text:
                story.tell(Block("bash", "python manage.py migrate\n", block.line, 0, 0))
                break
    return project


# -- Keeping the output up to date -----------------------------------------------------------------


def update(page: Path, directory: Path) -> None:
    """Tell a page, and write into its `text` blocks what its commands print."""
    source, changes = page.read_text(), []
    with Story(page, prepare(page, directory, make_project(directory))) as story:
        for block in blocks(page):
            if block.language != "text":
                story.tell(block)
            elif not is_same(block.text, story.printed):
                changes.append((block, re.sub(r"[^\s'\"]*/story/", "/home/you/mysite/", story.printed.strip()) + "\n"))
    for block, text in reversed(changes):
        source = source[: block.start] + text + source[block.end :]
    page.write_text(source)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as temporary:
            update(Path(name).resolve(), Path(temporary))
