"""Columns and indexes that mean the same on every database.

Used by the models and their migrations only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models

if TYPE_CHECKING:
    from typing import TypeVar

    ST = TypeVar("ST")
    GT = TypeVar("GT")

    class _CharField(models.CharField[ST, GT]): ...
else:
    # For type checkers only a field is generic in what is set and what is got.
    ST, GT = "ST", "GT"
    _CharField = {(ST, GT): models.CharField}


class ExactCharField(_CharField[ST, GT]):
    """A string that is compared character by character, also on MySQL, where 'A' = 'a' otherwise."""

    def db_parameters(self, connection: Any) -> dict[str, Any]:
        parameters: dict[str, Any] = super().db_parameters(connection)
        if connection.vendor == "mysql":
            parameters["collation"] = "utf8mb4_bin"
        return parameters


class PartialIndex(models.Index):
    """An index over the rows that `where` selects; over all rows where the database has no partial indexes.

    The columns that `where` names should be part of `fields`, so that the full index serves the same queries.
    Django's own `condition` leaves the index out on such databases.
    """

    def __init__(self, *, where: models.Q, **options: Any) -> None:
        self.where = where
        super().__init__(**options)

    def deconstruct(self) -> Any:
        path, args, kwargs = super().deconstruct()
        return path, args, {**kwargs, "where": self.where}

    def create_sql(self, model: Any, schema_editor: Any, using: str = "", **kwargs: Any) -> Any:
        if not schema_editor.connection.features.supports_partial_indexes:
            return super().create_sql(model, schema_editor, using=using, **kwargs)
        partial = models.Index(fields=self.fields, name=self.name, condition=self.where)
        # An index learns the names of its columns from the model it is attached to.
        partial.fields_orders = self.fields_orders
        return partial.create_sql(model, schema_editor, using=using, **kwargs)
