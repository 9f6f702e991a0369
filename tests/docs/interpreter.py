"""The Python process of a story: executes blocks one after the other, in one namespace, in the story's project."""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import sys
import traceback
from typing import Any

import django


def execute(language: str, text: str, names: dict[str, Any]) -> None:
    if language == "python":
        exec(compile(text, "<block>", "exec"), names)
        return
    # The names of one block are known to the next, which doctest would otherwise clear away.
    test = doctest.DocTestParser().get_doctest(text, names, "block", None, 0)
    test.globs = names
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE, verbose=False)
    report: list[str] = []
    runner.run(test, out=report.append, clear_globs=False)
    if runner.failures:
        raise AssertionError("".join(report))


def main() -> None:
    answers = sys.stdout
    sys.path.insert(0, "")
    django.setup()
    names: dict[str, Any] = {"__name__": "__main__"}
    for line in sys.stdin:
        printed, error = io.StringIO(), ""
        try:
            with contextlib.redirect_stdout(printed):
                execute(*json.loads(line), names)
        except Exception:
            error = traceback.format_exc()
        answers.write(json.dumps({"printed": printed.getvalue(), "error": error}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
