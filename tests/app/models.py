"""Where the steps of test workflows leave traces: one row each time something executed."""

from __future__ import annotations

from django.db import models


class Effect(models.Model):
    """`name` executed once more, in process `pid`."""

    run = models.CharField(max_length=64, blank=True)
    name = models.CharField(max_length=300)
    pid = models.IntegerField()
    at = models.FloatField()

    def __str__(self) -> str:
        return self.name


class Person(models.Model):
    """Something that steps load and change."""

    name = models.CharField(max_length=100)
    greeted = models.IntegerField(default=0)

    def __str__(self) -> str:
        return self.name

    def greet(self, greeting: str = "Hello") -> str:
        self.greeted += 1
        self.save()
        return f"{greeting} {self.name}"

    @classmethod
    def count_all(cls) -> int:
        return cls.objects.count()

    @staticmethod
    def shout(text: str) -> str:
        return text.upper()
