"""What `step.get()` is pointed at: a model and the name of a method, or a bound method; made into a function and a name.

Resolved before anything runs, so that a misspelled method is an error at its line.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from django.db.models import Manager, Model, QuerySet
from django.db.models.manager import BaseManager

from ..core.context import active_step
from .kinds import is_async, is_async_inside

Target = tuple[Callable[..., Any], str]


def resolve(target: Any, method: Any = None) -> Target:
    """The function to call and the default name of the step.

    Raises `AttributeError` for a method that does not exist, `TypeError` for what can't be called.
    """
    if method is None:
        return _bound(target)
    if isinstance(target, type) and issubclass(target, Model):
        return _of_model(target, method)
    if not isinstance(method, str):
        raise TypeError(f"step.get() takes a model with a method, or one bound method; got {target!r}, {method!r}.")
    function = getattr(target, method)
    return _of_owner(target, _callable(function, f"{_owner(target)}.{method}")), f"{_owner(target)}.{method}"


def _of_model(model: type[Model], method: Any) -> Target:
    if isinstance(method, str):
        return _named(model, method)
    if inspect.ismethod(method):  # a class method, or one bound already
        return _bound(method)
    name = getattr(method, "__name__", None)
    if not inspect.isfunction(method) or not name or getattr(model, name, None) is not method:
        raise TypeError(
            f"step.get({model.__name__}, …) takes a method of {model.__name__} or its name, got {method!r}."
        )
    return _named(model, name)


def _named(model: type[Model], name: str) -> Target:
    if not hasattr(model, name):
        manager = model._default_manager
        if not hasattr(manager, name):
            raise AttributeError(
                f"{model.__name__} has no method {name!r}, and neither has its default manager, {_owner(manager)}."
            )
        return resolve(manager, name)
    label = f"{model.__name__}.{name}"
    function = _callable(getattr(model, name), label)
    if not _is_instance_method(model, name):
        return function, label
    return (_on_instance_async if is_async(function) else _on_instance)(model, name), label


def _is_instance_method(model: type[Model], name: str) -> bool:
    """Whether what stands in the class is bound to an instance when it is called: also a partialmethod, a cached one."""
    static = inspect.getattr_static(model, name)
    return hasattr(static, "__get__") and not isinstance(static, (classmethod, staticmethod, type))


def _on_instance(model: type[Model], name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        instance, *args_of_method = _with_instance(model, name, args)
        if not isinstance(instance, Model):
            instance = model._default_manager.get(pk=instance)
        return getattr(instance, name)(*args_of_method, **kwargs)

    return call


def _on_instance_async(model: type[Model], name: str) -> Callable[..., Any]:
    """As `_on_instance()`, for an `async def` method: in an `async def` body it takes no thread."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        instance, *args_of_method = _with_instance(model, name, args)
        if not isinstance(instance, Model):
            instance = await model._default_manager.aget(pk=instance)
        return await getattr(instance, name)(*args_of_method, **kwargs)

    return call


def _with_instance(model: type[Model], name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of a call of an instance method, of which the first is an instance or a primary key."""
    if not args:
        raise _no_instance(model, name, "no positional argument")
    if args[0] is None:  # no row has it, and "does not exist" would send people looking for one
        raise _no_instance(model, name, "None")
    return args


def _no_instance(model: type[Model], name: str, got: str) -> TypeError:
    label = f"{model.__name__}.{name}"
    step = active_step.get()
    return TypeError(
        f"Step {step.name if step else label!r} calls the instance method {label}: its .run(…) takes the instance or "
        f"its primary key as first argument, and got {got}."
    )


def _bound(target: Any) -> Target:
    owner = getattr(target, "__self__", None)
    name = getattr(target, "__name__", None)
    if owner is not None and name and callable(target) and not inspect.ismodule(owner):
        return _of_owner(owner, target), f"{_owner(owner)}.{name}"
    if not inspect.isfunction(target):
        raise TypeError(f"step.get() takes a model with a method, or one bound method; got {target!r}.")
    *path, method = target.__qualname__.split(".")
    if path and path[-1] != "<locals>":
        raise TypeError(
            f"{target.__qualname__} is a plain function without its model: write step.get({path[-1]}, {path[-1]}.{method})."
        )
    raise TypeError(f"step.get() is for methods; write step.define({method!r}, {method}).")


def _of_owner(owner: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """The method; an async one of a queryset as `async def`, where a manager hands it on by a plain function."""
    if not isinstance(owner, BaseManager) or is_async(function) or not is_async_inside(function):
        return function

    async def call(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return call


def _owner(owner: Any) -> str:
    if isinstance(owner, type):
        return owner.__name__
    if isinstance(owner, (BaseManager, Manager)):
        model = owner.model.__name__ if owner.model else type(owner).__name__
        return f"{model}.{getattr(owner, 'name', None) or 'objects'}"
    if isinstance(owner, QuerySet):
        return f"{owner.model.__name__}.{type(owner).__name__}"
    return type(owner).__name__


def _callable(function: Any, label: str) -> Callable[..., Any]:
    if not callable(function):
        raise TypeError(f"{label} is not a method but {type(function).__name__}.")
    return function  # type: ignore[no-any-return]
