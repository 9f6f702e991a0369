"""What is supported is said in several places: they have to say the same. Versions are compared as numbers."""

from __future__ import annotations

import configparser
import re

import django_steps
from tests.matrix import ROOT, corners, expand, number, pairs

CONFIG = configparser.ConfigParser(interpolation=None)
CONFIG.read(ROOT / "setup.cfg")
README = (ROOT / "README.md").read_text()


def classified(prefix):
    """The versions in the classifiers that begin so."""
    pattern = rf"{re.escape(prefix)} :: (\d+\.\d+)"
    return {
        number(match[1])
        for line in CONFIG["metadata"]["classifiers"].splitlines()
        if (match := re.fullmatch(pattern, line))
    }


def pairs_in_readme():
    header, _, *rows = re.findall(r"^\|.*(?:Django|Python \d|---\|---\|---\|---).*\|$", README, re.MULTILINE)
    djangos = re.findall(r"Django (\d+\.\d+)", header)
    found = set()
    for row in rows:
        python, *cells = [cell.strip() for cell in row.strip("|").split("|")]
        for django, cell in zip(djangos, cells, strict=True):
            if cell == "yes":
                found.add((number(python.removeprefix("Python ")), number(django)))
    return found


def pairs_in_tox():
    return {(number(python), number(django)) for python, django in pairs()}


def test_readme_and_tox_have_the_same_pairs():
    assert pairs_in_readme() == pairs_in_tox()


def test_classifiers_have_the_same_versions_as_tox():
    assert classified("Programming Language :: Python") == {python for python, _ in pairs_in_tox()}
    assert classified("Framework :: Django") == {django for _, django in pairs_in_tox()}


def test_the_oldest_versions_are_what_the_package_requires():
    oldest_python, oldest_django = (min(versions) for versions in zip(*pairs_in_tox(), strict=True))
    assert number(CONFIG["options"]["python_requires"].removeprefix(">=")) == oldest_python
    assert f"Django>={'.'.join(map(str, oldest_django))}" in CONFIG["options"]["install_requires"].split()


def test_the_corners_of_the_matrix_are_the_newest_python_with_the_oldest_and_the_newest_django():
    found = [("3.11", "5.2"), ("3.13", "5.2"), ("3.13", "6.0"), ("3.13", "6.1")]
    assert corners(found) == [("3.13", "5.2"), ("3.13", "6.1")]
    assert corners(found[:1]) == [("3.11", "5.2")]


def test_every_django_of_tox_is_installed_by_it():
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "tox.ini")
    installed = set()
    for line in config["testenv"]["deps"].split("\n"):
        if match := re.fullmatch(r"django([\d.]+): Django>=([\d.]+),<([\d.]+)", line):
            name, lowest, next_one = map(number, match.groups())
            assert name == lowest < next_one
            installed.add(name)
    assert installed == {django for _, django in pairs_in_tox()}


def test_the_oldest_python_is_what_ruff_checks_against():
    oldest = min(python for python, _ in pairs_in_tox())
    assert f'target-version = "py{"".join(map(str, oldest))}"' in (ROOT / "ruff.toml").read_text()


def test_versions_are_compared_as_numbers():
    assert number("3.9") < number("3.11") < number("3.100")
    assert number("6.1") < number("2028.1")
    assert expand("py3.{12,13}-django{5.2,6.0}") == [
        "py3.12-django5.2",
        "py3.12-django6.0",
        "py3.13-django5.2",
        "py3.13-django6.0",
    ]


def test_the_changelog_begins_with_what_is_unreleased_or_with_this_version():
    first = re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first and first[1].split()[0] in ("Unreleased", django_steps.__version__)
