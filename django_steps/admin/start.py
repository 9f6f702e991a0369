"""Starting a workflow from the admin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import HttpRequest, HttpResponse

if TYPE_CHECKING:
    from .runs import WorkflowRunAdmin


def start_page(admin: WorkflowRunAdmin, request: HttpRequest) -> HttpResponse:
    raise NotImplementedError
