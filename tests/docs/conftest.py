"""The documentation's examples use a SQLite project of their own: once is enough, whatever databases the tests run on."""

import os

if os.environ.get("DATABASE", "sqlite") != "sqlite":
    collect_ignore_glob = ["test_*.py"]
