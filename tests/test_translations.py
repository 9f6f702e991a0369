"""What people see can be translated: everything goes through gettext, and its tools can read it."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import django_steps

PACKAGE = Path(django_steps.__file__).parent
# Modules whose strings are read by operators and visitors; other exceptions speak to programmers, in English.
SEEN = [
    *PACKAGE.glob("admin/**/*.py"),
    *PACKAGE.glob("callbacks/**/*.py"),
    *PACKAGE.glob("forms/**/*.py"),
    *PACKAGE.glob("management/**/*.py"),
    *PACKAGE.glob("presentation/**/*.py"),
    PACKAGE / "models" / "diagnosis.py",
    PACKAGE / "worker" / "supervisor.py",
]
TEMPLATES = sorted(PACKAGE.glob("templates/**/*.html"))

# Arguments and calls whose text is shown as it is.
ARGUMENTS = {"help", "description", "short_description", "verbose_name", "label", "help_text", "empty_label", "epilog"}
CALLS = {"CommandError", "message_user", "success", "info", "warning", "error", "write", "say", "ValidationError"}
NOT_SHOWN = {"logger"}

_WORD = re.compile(r"[^\W\d_]{2,}")
_NOT_TEXT = [
    re.compile(r"\{%\s*block (?:coltype|bodyclass)\s*%\}.*?\{%\s*endblock", re.DOTALL),  # names of CSS classes
    re.compile(r"\{%\s*comment.*?endcomment\s*%\}", re.DOTALL),
    re.compile(r"\{%\s*blocktrans.*?endblocktrans(?:late)?\s*%\}", re.DOTALL),
    re.compile(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", re.DOTALL),
    re.compile(r"<script.*?</script>|<style.*?</style>|<!--.*?-->", re.DOTALL),
    re.compile(r"<[^>]*>", re.DOTALL),
    re.compile(r"&\w+;"),
]
_ATTRIBUTE = re.compile(r"""\b(?:title|alt|placeholder|aria-label|value)="([^"]*)\"""")


def text_of(source):
    """What a template shows by itself, without tags, variables and what is translated."""
    for pattern in _NOT_TEXT[:4]:
        source = pattern.sub(" ", source)
    attributes = " ".join(_ATTRIBUTE.findall(source))
    for pattern in _NOT_TEXT[4:]:
        source = pattern.sub(" ", source)
    return " ".join(f"{source} {attributes}".split())


def untranslated(tree):
    """The literal sentences that a module shows, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in ARGUMENTS and is_sentence(node.value):
            yield node.value.lineno, ast.unparse(node.value)
        if isinstance(node, ast.Call) and name_of(node.func) in CALLS and owner_of(node.func) not in NOT_SHOWN:
            for argument in node.args:
                if is_sentence(argument):
                    yield argument.lineno, ast.unparse(argument)


def is_sentence(node):
    """Whether it is text with a space between words, written out in the code."""
    if isinstance(node, ast.JoinedStr):
        text = " ".join(value.value for value in node.values if isinstance(value, ast.Constant))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
    else:
        return False
    return len(_WORD.findall(text)) > 1


def name_of(function):
    return getattr(function, "attr", getattr(function, "id", ""))


def owner_of(function):
    return getattr(getattr(function, "value", None), "id", "")


@pytest.mark.parametrize("path", SEEN, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_a_module_shows_goes_through_gettext(path):
    assert list(untranslated(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_what_a_template_shows_goes_through_gettext(path):
    assert not _WORD.search(text_of(path.read_text()))


def test_untranslated_text_would_be_noticed():
    found = untranslated(ast.parse('add("--x", help="Two words"); raise CommandError(f"No run {id} here"); _("a b")'))
    assert sorted(text for _, text in found) == ["'Two words'", "f'No run {id} here'"]
    assert (
        text_of('<p class="x">{% translate "fine" %}</p><b title="Not fine">{{ run }} neither</b>')
        == "neither Not fine"
    )


if shutil.which("xgettext"):  # the rest needs gettext's tools, which CI has

    @pytest.fixture(scope="module")
    def catalog(tmp_path_factory):
        """All messages of the package, extracted into an empty catalog."""
        copy = tmp_path_factory.mktemp("messages") / "django_steps"
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "locale"))
        (copy / "locale").mkdir()
        command = [sys.executable, "-m", "django", "makemessages", "--locale", "de", "--verbosity", "0"]
        environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=60)
        return done, copy / "locale" / "de" / "LC_MESSAGES" / "django.po"

    def test_makemessages_has_nothing_to_complain_about(catalog):
        done, _ = catalog
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_the_catalog_is_valid_and_nothing_in_it_is_fuzzy(catalog):
        _, path = catalog
        for po in [path, *PACKAGE.glob("locale/*/LC_MESSAGES/django.po")]:
            command = ["msgfmt", "--check-format", "--check-domain", "--statistics", "--output-file=/dev/null", str(po)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=30)
            assert done.returncode == 0, done.stderr
            assert "fuzzy" not in done.stderr
            assert "#, fuzzy" not in po.read_text().partition("\n\n")[2]

    def test_a_message_of_each_kind_is_in_the_catalog(catalog):
        text = catalog[1].read_text()
        assert 'msgid "workflow run"' in text  # a model
        assert 'msgid "Start a run of a workflow."' in text  # a command
