"""The tags in the list: a link for each, and the filter behind it. What tags there are is never asked: nobody types them by
choosing among thousands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from ...core.tags import parse
from ...models import WorkflowRun
from ...models.tagging import having
from ...presentation import tags
from .. import html

PARAMETER = "tag"


class TagFilter(admin.SimpleListFilter):
    """By a tag that is typed, such as `tenant=acme`, or chosen by its link in the list."""

    title = gettext_lazy("tag")
    parameter_name = PARAMETER
    template = "admin/django_steps/workflowrun/tag_filter.html"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[Any, Any]]:
        return []

    def has_output(self) -> bool:
        return True

    def choices(self, changelist: Any) -> Iterator[Any]:
        """What the template shows."""
        value = self.value() or ""
        others = [
            (name, value) for name, value in changelist.get_filters_params().items() if name not in (PARAMETER, "p")
        ]
        if changelist.query:
            others.append(("q", changelist.query))
        yield {
            "value": value,
            "example": "tenant=acme",
            "is_wrong": value and _parsed(value) is None,
            "others": [(name, part) for name, found in others for part in _parts(found)],
            "without": changelist.get_query_string(remove=[PARAMETER]),
        }

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not self.value():
            return queryset
        tag = _parsed(self.value())
        return queryset.none() if tag is None else queryset.filter(pk__in=having(*tag))


def links(url_of: Callable[..., str], run: WorkflowRun, *, with_about: bool = True) -> SafeString:
    """The tags of a run, each with a link to the runs that have it."""
    found = tags.listed(run)
    if not with_about and run.about_text:
        found = found[1:]
    shown = (
        format_html('<a class="steps-tag" href="{}?{}">{}</a>', url_of("changelist"), html.query(tag=wanted), text)
        for wanted, text in found
    )
    return format_html_join(" ", "{}", ((link,) for link in shown))


def _parsed(text: Any) -> tuple[str, str] | None:
    try:
        return parse(str(text).strip())
    except ValueError:
        return None


def _parts(found: Any) -> list[str]:
    """A parameter's values, of which Django 5 has a list."""
    return [str(part) for part in found] if isinstance(found, list) else [str(found)]
