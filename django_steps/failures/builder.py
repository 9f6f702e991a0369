"""Exceptions made anew from the nodes that `nodes.py` describes them with.

Nothing of a class is called: its `__init__` may want what is gone by then. An instance is made as its built-in
base class makes it, and then given its arguments and attributes.
"""

from __future__ import annotations

from types import MemberDescriptorType
from typing import Any

from ..errors import StepFailed
from ..values.classes import built_in_base, find_class
from .arguments import Reference, decode

Node = dict[str, Any]


class NotKept(Exception):
    """A value that is no part of a record."""


def build(nodes: list[Node]) -> list[BaseException]:
    """New exceptions, one for each node."""
    return _Builder(nodes).build()


class _Builder:
    """Makes all exceptions first, and then gives them their attributes, which may refer to each other."""

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes
        self._made: dict[int, BaseException] = {}
        self._being_made: set[int] = set()
        self._replaced: set[int] = set()

    def build(self) -> list[BaseException]:
        exceptions = [self._exception(index) for index in range(len(self._nodes))]
        for index, (node, exc) in enumerate(zip(self._nodes, exceptions, strict=True)):
            if index not in self._replaced:
                self._complete(exc, node)
            self._set_chain(exc, node)
        return exceptions

    def _exception(self, index: int) -> BaseException:
        if index not in self._made:
            if index in self._being_made:
                raise NotKept  # its arguments contain itself
            self._being_made.add(index)
            try:
                self._made[index] = self._instance(self._nodes[index])
            except Exception:
                self._made[index] = StepFailed(self._nodes[index]["type"], self._nodes[index]["message"])
                self._replaced.add(index)
        return self._made[index]

    def _instance(self, node: Node) -> BaseException:
        cls: Any = find_class(node["class"])
        base: Any = built_in_base(cls)
        if not issubclass(base, BaseException):
            raise NotKept
        args = self._read(node["args"])
        init = self._read(node["init"]) if "init" in node else args
        exc: BaseException = base.__new__(cls, *init)
        if type(exc) is not cls:
            raise NotKept
        if "init" in node:
            base.__init__(exc, *init)
        BaseException.__setattr__(exc, "args", args)
        return exc

    def _complete(self, exc: BaseException, node: Node) -> None:
        slots = slots_of(type(exc), built_in=True) | slots_of(type(exc), built_in=False)
        attributes: dict[str, Any] = own(exc, "__dict__")
        for name, text in node["attrs"].items():
            try:
                value = self._read(text)
            except Exception:  # its class is gone since
                continue
            self._put(attributes, slots, exc, name, value)
        if node["lost"]:
            note = f"Not recorded: {', '.join(node['lost'])}."
            attributes["__notes__"] = [*attributes.get("__notes__", ()), note]

    @staticmethod
    def _put(attributes: dict[str, Any], slots: dict[str, Any], exc: BaseException, name: str, value: Any) -> None:
        if name not in slots:
            attributes[name] = value
            return
        try:
            slots[name].__set__(exc, value)
        except (AttributeError, TypeError):  # read-only, or of another type: `_is_same` says whether it matters
            return

    def _set_chain(self, exc: BaseException, node: Node) -> None:
        for name, key in (("__cause__", "cause"), ("__context__", "context")):
            if node.get(key) is not None:
                BaseException.__setattr__(exc, name, self._exception(node[key]))
        BaseException.__setattr__(exc, "__suppress_context__", node.get("suppress", False))

    def _read(self, text: str) -> Any:
        return self._resolved(decode(text))

    def _resolved(self, value: Any) -> Any:
        if type(value) is Reference:
            return self._exception(value.index)
        if type(value) in (list, tuple):
            return type(value)(self._resolved(item) for item in value)
        if type(value) is dict:
            return {key: self._resolved(item) for key, item in value.items()}
        return value


# -- Past what a subclass may have overridden -----------------------------------------------------


def own(exc: BaseException, name: str) -> Any:
    """`args` or `__dict__` of an exception, whatever its class says."""
    return vars(BaseException)["args"].__get__(exc) if name == "args" else object.__getattribute__(exc, name)


def slots_of(cls: type, *, built_in: bool) -> dict[str, Any]:
    """The slots of a class by name: those of its built-in bases, or the others."""
    base = built_in_base(cls)
    return {
        name: slot
        for owner in reversed(cls.__mro__)
        if issubclass(base, owner) == built_in
        for name, slot in vars(owner).items()
        if isinstance(slot, MemberDescriptorType) and not name.startswith("__")
    }
