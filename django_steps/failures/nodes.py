"""An exception, and the others that it refers to, as a flat list of JSON objects: the nodes.

A node holds the class, the arguments and the attributes of one exception; causes, contexts, members of groups and
exceptions among arguments have nodes of their own and are referred to by index. Whether what `builder.py` makes of
the nodes is the same exception is judged here, when it is recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.utils.functional import Promise

from ..errors import GroupFailed, StepsError
from ..values.classes import built_in_base, class_name, shown_name
from .arguments import Reference, encode
from .builder import Node, NotKept, build, own, slots_of

_MAX_NODES = 250
_MAX_ARGUMENTS_BYTES = 128 * 1024
_MAX_ATTRIBUTE_BYTES = 64 * 1024
# How deep exceptions are looked for in lists, tuples and dicts.
_MAX_DEPTH = 10


def describe(root: BaseException, message: Callable[[BaseException], str], *, chain: bool = True) -> list[Node]:
    """The nodes of an exception (the first) and of those that it refers to; `chain`: with causes and contexts.

    What can't come back as the same exception has only a type and a message.
    """
    exceptions = _Exceptions(root)
    # Describing one finds others, which are appended.
    nodes = [_node(exc, exceptions, message, chain) for exc in exceptions.found]
    changed = True
    while changed:
        # Again, since a node that became simpler can show in the text of another.
        pairs = zip(exceptions.found, build(nodes), strict=True)
        changed = sum(_correct(node, *pair) for node, pair in zip(nodes, pairs, strict=True)) > 0
    for node in nodes:
        node.pop("lost_attrs", None)  # only for correcting
    return nodes


def text_of(exc: BaseException) -> str:
    """`str(exc)`, whatever its class does."""
    try:
        return str.__str__(str(exc))  # without the class of a subclass
    except BaseException as error:
        return f"<no text: {type(error).__name__} in __str__>"


# -- From exceptions to nodes --------------------------------------------------------------------


class _Exceptions:
    """The exceptions to describe, each with its index."""

    def __init__(self, root: BaseException) -> None:
        self.found: list[BaseException] = [root]
        # By identity: a class may have made its instances unhashable, or equal to each other.
        self._indices = {id(root): 0}

    def index(self, exc: BaseException) -> int:
        if id(exc) not in self._indices:
            if len(self.found) >= _MAX_NODES:
                raise NotKept
            self._indices[id(exc)] = len(self.found)
            self.found.append(exc)
        return self._indices[id(exc)]

    def referred(self, value: Any, depth: int = _MAX_DEPTH) -> Any:
        """The value with references to exceptions, and text for lazy translations."""
        # Not isinstance(), which would evaluate a lazy object.
        cls = type(value)
        if issubclass(cls, BaseException):
            return Reference(self.index(value))
        if issubclass(cls, Promise):
            return str(value)
        if depth and cls in (list, tuple):
            return cls(self.referred(item, depth - 1) for item in value)
        if depth and cls is dict:
            return {key: self.referred(item, depth - 1) for key, item in value.items()}
        return value

    def keep(self, value: Any, max_bytes: int) -> str:
        try:
            return encode(self.referred(value), max_bytes)
        except Exception as error:
            raise NotKept from error


def _node(exc: BaseException, exceptions: _Exceptions, message: Callable[[BaseException], str], chain: bool) -> Node:
    cls: Any = type(exc)
    node: Node = {"type": shown_name(cls), "message": message(exc)}
    if chain:
        node |= _chain(exc, exceptions)
    try:
        name = class_name(cls)
    except LookupError:
        return node
    init, lost = _kept_arguments(_arguments_of_base(exc), exceptions)
    args, lost_args = _kept_arguments(own(exc, "args"), exceptions)
    attrs, lost_attrs = _kept_attributes(_attributes(exc), exceptions)
    node |= {"class": name, "init": init, "args": args, "attrs": attrs, "lost_attrs": lost_attrs}
    node["lost"] = list(dict.fromkeys(lost + lost_args + lost_attrs))
    return node


def _chain(exc: BaseException, exceptions: _Exceptions) -> Node:
    found: Node = {"suppress": bool(exc.__suppress_context__)}
    for key, other in (("cause", exc.__cause__), ("context", exc.__context__)):
        try:
            found[key] = None if other is None else exceptions.index(other)
        except NotKept:
            found[key] = None
    return found


def _arguments_of_base(exc: BaseException) -> tuple[Any, ...]:
    """What the built-in base class of an exception is made from, which may be more than `args`: a file name, say."""
    if isinstance(exc, BaseExceptionGroup):
        group: Any = BaseExceptionGroup
        return (group.message.__get__(exc), list(group.exceptions.__get__(exc)))
    base: Any = built_in_base(type(exc))
    return tuple(base.__reduce__(exc)[1])


def _kept_arguments(args: tuple[Any, ...], exceptions: _Exceptions) -> tuple[str, list[str]]:
    """The arguments as text, with None for those that can't be kept, and where these are."""
    kept, lost = list(args), []
    for index, argument in enumerate(args):
        try:
            exceptions.keep(argument, _MAX_ARGUMENTS_BYTES // len(args))
        except NotKept:
            kept[index] = None
            lost.append(f"args[{index}]")
    return exceptions.keep(tuple(kept), 2 * _MAX_ARGUMENTS_BYTES), lost


def _kept_attributes(attributes: dict[str, Any], exceptions: _Exceptions) -> tuple[dict[str, str], list[str]]:
    kept, lost = {}, []
    for name, value in attributes.items():
        try:
            kept[name] = exceptions.keep(value, _MAX_ATTRIBUTE_BYTES)
        except NotKept:
            lost.append(name)
    return kept, lost


def _attributes(exc: BaseException) -> dict[str, Any]:
    """What users' classes keep in an exception, in `__dict__` and in slots."""
    attributes = dict(own(exc, "__dict__"))
    for name, slot in slots_of(type(exc), built_in=False).items():
        try:
            attributes[name] = slot.__get__(exc)
        except AttributeError:  # nothing in it
            continue
    if isinstance(exc, GroupFailed):
        for name in exc.not_recorded:
            attributes.pop(name, None)
    return attributes


# -- Is it the same? -----------------------------------------------------------------------------


def _correct(node: Node, original: BaseException, rebuilt: BaseException) -> bool:
    """Makes the node describe less, or more, if the rebuilt exception isn't the original; says whether it did."""
    if "class" not in node:
        return False
    if type(rebuilt) is type(original) and _add_missed(node, original, rebuilt):
        return True
    if _is_same(original, rebuilt):
        return False
    if "init" in node:
        # Perhaps the class doesn't call the `__init__` of its base either.
        del node["init"]
        return True
    if node["lost_attrs"]:
        # Perhaps the class only wants them to be there.
        node["attrs"] |= dict.fromkeys(node["lost_attrs"], "null")
        node["lost_attrs"] = []
        return True
    for key in ("class", "args", "attrs", "lost_attrs", "lost"):
        del node[key]
    return True


def _add_missed(node: Node, original: BaseException, rebuilt: BaseException) -> bool:
    """Notes what the built-in base has been given after it was made, such as `ImportError.name`."""
    missed = {}
    for name, slot in slots_of(type(original), built_in=True).items():
        # What an AttributeError was about may be anything, however large.
        if name in node["attrs"] or name == "obj":
            continue
        try:
            value = encode(slot.__get__(original), _MAX_ATTRIBUTE_BYTES)
            is_missed = value != encode(slot.__get__(rebuilt))
        except (StepsError, AttributeError):
            continue
        # None can also mean that nothing is there, which can't be written.
        if is_missed and value != "null":
            missed[name] = value
    node["attrs"] |= missed
    return bool(missed)


def _is_same(original: BaseException, rebuilt: BaseException) -> bool:
    if type(original) is not type(rebuilt) or text_of(original) != text_of(rebuilt):
        return False
    # A `__getattr__` that relies on what was lost would break whoever looks at the exception, such as logging.
    return _can_be_asked(rebuilt) or not _can_be_asked(original)


def _can_be_asked(exc: BaseException) -> bool:
    try:
        getattr(exc, "any_attribute_that_it_lacks", None)
    except BaseException:
        return False
    return True
