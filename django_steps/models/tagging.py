"""The tags of a run, and what it is about, as a mixin of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.db import models, router

from ..core import tags
from ..core.context import active_pass, refuse_control_outside_step
from ..ledger import database
from ..ledger import tags as ledger
from ..values import references
from .tag import WorkflowTag

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID


class RunTags:
    """What a run is found by."""

    if TYPE_CHECKING:
        pk: UUID
        tags_text: Any
        refresh_from_db: Callable[..., None]

    @property
    def tags(self) -> dict[str, str]:
        """The tags of the run: texts by their names. In the body: with what that has said so far."""
        found = self._all_tags()
        found.pop(tags.ABOUT, None)
        return found

    @property
    def about(self) -> models.Model | None:
        """The instance that the run is about, read from the database now; None if there is none, or it is gone."""
        text = self.about_text
        return references.referred(text) if text else None

    @property
    def about_text(self) -> str:
        """What the run is about as a text, such as `shop.order:7`, also where that is gone; empty for nothing."""
        return self._all_tags().get(tags.ABOUT, "")

    def set_tags(self, /, **given: str | None) -> None:
        """Give the run tags, or change some: `run.set_tags(stage="packed")`. None takes one away; the others stay.

        From outside it is one short transaction on the caller's connection, and locks the row of the run until that commits. In
        the body of this run, or in a step of it, it is a plain call that writes nothing by itself: the next record carries it,
        as with `update_details()`, and a pass that replays says nothing again. Runs that are invoked after that inherit it.

        - Names have at most 100 characters; values are texts of at most 255; a run has at most 20 tags.

        Raises `TypeError` for a value that is no text, `ValueError` or `InvalidName` for a name or value that can't be one, and
        for too many; `StartOutsideStep` in the body of another run outside a step.

        >>> run.set_tags(tenant="acme", draft=None)  # doctest: +SKIP
        """
        changes = tags.check_changes(given)
        current = active_pass.get()
        if current is not None and current.run_id == self.pk:
            current.set_tags(changes)
            return
        refuse_control_outside_step("set_tags")
        model: Any = type(self)
        connection = database.connection_for(router.db_for_write(model, instance=self))
        ledger.set_tags(connection, self.pk, changes)
        self.refresh_from_db(using=connection.alias, fields=["tags_text"])

    async def aset_tags(self, /, **given: str | None) -> None:
        """`set_tags()` for async code outside of runs."""
        await sync_to_async(self.set_tags)(**given)

    def _all_tags(self) -> dict[str, str]:
        current = active_pass.get()
        if current is not None and current.run_id == self.pk:
            return dict(current.tags())
        return tags.read(self.tags_text)


def having(name: str, value: str) -> Any:
    """The ids of the runs with a tag, for a subquery on whichever database: it reads nothing but an index."""
    return WorkflowTag._base_manager.filter(name=name, value=value).values("run")


def pairs(given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What `tagged()` is given, checked."""
    if not given:
        raise TypeError('tagged() takes at least one tag, as in tagged(tenant="acme").')
    return list(tags.check_tags(given, "tagged()").items())
