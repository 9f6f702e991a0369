"""What the templates of the admin need beyond the context that Django gives them.

Django imports this wherever it renders templates, so the admin is imported only when the tag is used.
"""

from __future__ import annotations

from typing import Any

from django import template

from ..models import WorkflowRun

register = template.Library()


@register.inclusion_tag("admin/django_steps/workflowrun/overview_body.html", takes_context=True)
def runs_overview(context: dict[str, Any]) -> dict[str, Any]:
    """The overview of the runs, for those who may see them on the site that answers."""
    from django.contrib.admin.sites import all_sites

    from ..admin import WorkflowRunAdmin
    from ..admin.overview.page import context as overview

    request = context["request"]
    for site in all_sites:
        if site.name == getattr(request, "current_app", None) and site.is_registered(WorkflowRun):
            admin: Any = site.get_model_admin(WorkflowRun)
            if isinstance(admin, WorkflowRunAdmin) and admin.has_view_permission(request):
                return overview(admin, request)
    return {}
