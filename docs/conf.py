"""How Sphinx builds the documentation: `make docs`. Warnings are errors."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.settings")

import django  # noqa: E402
from pygments.lexers.shell import BashLexer  # noqa: E402
from sphinx.highlighting import lexers  # noqa: E402

django.setup()

import django_steps  # noqa: E402

project = "django-steps"
author = "The django-steps contributors"
release = version = django_steps.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
root_doc = "index"
exclude_patterns = ["_build"]

# Docstrings are plain text with `code` in backticks.
default_role = "literal"
autodoc_member_order = "bysource"
# Types are in the docstrings, where they matter; the overloads are for type checkers.
autodoc_typehints = "none"
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
add_module_names = False

lexers["cron"] = BashLexer()

html_theme = "furo"
html_title = f"django-steps {release}"
html_copy_source = False
html_show_copyright = False
