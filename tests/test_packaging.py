"""The wheel: what is in it, and that it works in an environment where nothing else of this project is."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.parser import Parser

import pytest

from tests.docs.story import ROOT, Block, Story, blocks

SOURCES = [
    *("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"),
    *("Makefile", "manage.py", "tox.ini", "ruff.toml", "compose.yaml"),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of what a clone has, since building leaves files behind."""
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        shutil.copy(ROOT / name, copy)
    for name in ("benchmarks", "django_steps", "docs", "testproject", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "_build", "*.sqlite3*"))
    return copy


@pytest.fixture(scope="module")
def sources(copy):
    """The files of the package, as paths in a wheel."""
    return {str(path.relative_to(copy)) for path in (copy / "django_steps").rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def distributions(copy, sources, tmp_path_factory):
    """The sdist, and the wheel that is built from it."""
    built = tmp_path_factory.mktemp("built")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(built), str(copy)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = built.glob("*.tar.gz"), built.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def wheel(distributions):
    with zipfile.ZipFile(distributions[1]) as archive:
        yield archive


def test_the_wheel_has_all_of_the_package_and_nothing_else(wheel, sources):
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert shipped == sources


def test_the_wheel_has_what_is_no_python(wheel):
    names = wheel.namelist()
    assert "django_steps/py.typed" in names
    for directory, suffix in (("templates", ".html"), ("static", ".css"), ("locale", ".mo")):
        assert any(name.startswith(f"django_steps/{directory}/") and name.endswith(suffix) for name in names), directory


def test_the_metadata_says_what_is_needed(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode())
    required = {line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line}
    assert required == {"Django>=5.2", "cronsim>=2.6", "django-admin-rangefilter>=0.13"}
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().startswith("# django-steps")


def test_the_extra_of_traces_needs_the_api_of_opentelemetry_only(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    needed = Parser().parsestr(wheel.read(name).decode()).get_all("Requires-Dist")
    of_extra = {line.partition(";")[0].strip() for line in needed if line.endswith('extra == "opentelemetry"')}
    assert of_extra == {"opentelemetry-api>=1.24"}


def test_the_entry_point_is_the_pytest_plugin(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    points = configparser.ConfigParser()
    points.read_string(wheel.read(name).decode())
    assert {section: dict(points[section]) for section in points.sections()} == {
        "pytest11": {"django_steps": "django_steps.pytest_plugin"}
    }


def test_the_sdist_can_be_tested(distributions, sources):
    with tarfile.open(distributions[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "tests/conftest.py",
        "benchmarks/__main__.py",
        "testproject/settings.py",
        "docs/index.md",
        "tox.ini",
        "LICENSE",
    } <= names
    assert sources <= names


def test_the_readme_works_with_the_wheel_in_an_empty_environment(distributions, tmp_path):
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True, timeout=60)
    python = environment / "bin" / "python"
    install = ["--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(distributions[1])]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, timeout=60)
    # Django comes from where these tests run; a .pth file in there is not read, so an editable install is not seen.
    (site_packages,) = environment.glob("lib/python*/site-packages")
    (site_packages / "django.pth").write_text(sysconfig.get_path("purelib") + "\n")

    directory = tmp_path / "story"
    directory.mkdir()
    with Story(ROOT / "README.md", directory, python=python, path=None) as story:
        story.tell(Block("bash", 'python -c "import django_steps; print(django_steps.__file__)"', 0, 0, 0))
        assert story.printed.startswith(str(environment))
        for block in blocks(ROOT / "README.md"):
            story.tell(block)
