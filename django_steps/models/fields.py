"""Columns and indexes that mean the same on every database.

Used by the models and their migrations only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import models

from .. import durations

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

    def _check_backend_specific_checks(self, databases: Any = None, **options: Any) -> list[Any]:
        """Not that a unique text has more than 255 characters: an index may have 3,072 bytes today, which are 768 of them."""
        found: list[Any] = super()._check_backend_specific_checks(databases, **options)  # type: ignore[misc]
        return [message for message in found if message.id != "mysql.W003"]


class DurationTextField(_CharField[ST, GT]):
    """A duration as people write it, such as `10m`; empty for none."""

    def to_python(self, value: Any) -> Any:
        if value is None or value == "":
            return ""
        try:
            return durations.to_text(value)
        except (TypeError, ValueError) as error:
            raise ValidationError(str(error)) from None


class PartialIndex(models.Index):
    """An index over the rows that `where` selects; over all rows where the database has no partial indexes.

    The columns that `where` names should be part of `fields`, so that the full index serves the same queries; or of
    `otherwise`, the fields of the full index where those are to be in another order. Django's own `condition` leaves the
    index out on such databases.

    `unique`: no two of these rows have the same values, unless one of those is NULL.
    """

    def __init__(self, *, where: models.Q, unique: bool = False, otherwise: Sequence[str] = (), **options: Any) -> None:
        self.where, self.unique, self.otherwise = where, unique, list(otherwise)
        super().__init__(**options)

    def deconstruct(self) -> Any:
        path, args, kwargs = super().deconstruct()
        more: dict[str, Any] = {"unique": True} if self.unique else {}
        if self.otherwise:
            more["otherwise"] = self.otherwise
        return path, args, {**kwargs, "where": self.where, **more}

    def create_sql(self, model: Any, schema_editor: Any, using: str = "", **kwargs: Any) -> Any:
        if self.unique:
            kwargs["sql"] = schema_editor.sql_create_index.replace("CREATE INDEX", "CREATE UNIQUE INDEX")
        if not schema_editor.connection.features.supports_partial_indexes:
            if not self.otherwise:
                return super().create_sql(model, schema_editor, using=using, **kwargs)
            full = models.Index(fields=self.otherwise, name=self.name)
            return full.create_sql(model, schema_editor, using=using, **kwargs)
        partial = models.Index(fields=self.fields, name=self.name, condition=self.where)
        # An index learns the names of its columns from the model it is attached to.
        partial.fields_orders = self.fields_orders
        return partial.create_sql(model, schema_editor, using=using, **kwargs)
