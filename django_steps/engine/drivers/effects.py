"""Carrying out one effect on the calling thread, which blocks until it is done."""

from __future__ import annotations

import decimal
from contextvars import copy_context
from functools import partial
from typing import Any

from ...core.context import active_pass
from ...definitions.requests import CallBranch
from ...errors import PassEnded
from ...ledger import leases
from ...ledger.leases import Holding
from .. import hooks
from ..frame import MISTAKES, Frame
from ..interceptors import around_attempt, within
from ..operations.attempts import Executed
from ..operations.base import Announce, Call, Commit, Confirm, Effect, End, Enter, Execute, Record, Wait
from .execute import execute


def carry_out(effect: Effect, frame: Frame) -> Any:
    """Do what an effect asks for, and return its answer."""
    kind = type(effect)
    if kind is Execute:
        return _execute(effect, frame)  # type: ignore[arg-type]
    if kind is Record:
        return frame.host.record(effect.write)  # type: ignore[union-attr]
    if kind is Wait:
        return frame.host.wait(effect.seconds)  # type: ignore[union-attr]
    if kind is Enter:
        return _enter(effect.request, frame)  # type: ignore[union-attr]
    if kind is Confirm:
        return confirm(frame)
    if kind is End:
        return frame.host.finish(effect.finish)  # type: ignore[union-attr]
    if kind is Announce:
        return hooks.children_canceled(effect.run_ids)  # type: ignore[union-attr]
    assert kind is Call or kind is Commit
    return frame.host.write(effect.statement)  # type: ignore[union-attr]


def confirm(frame: Frame) -> leases.Renewal:
    """Ask whether the run was canceled or lost, through an outage of the database if need be."""
    claim, host = frame.claim, frame.host
    return host.write(lambda: leases.check(host.connection(), {claim.run_id: Holding(claim.token)}))


def _call(request: CallBranch, frame: Frame) -> Any:
    """Call the function in a context of its own: what it sets is gone afterwards, as it is when the branch is replayed."""
    active_pass.set(frame)
    decimal.setcontext(decimal.getcontext().copy())  # the copied context refers to the body's
    return request.function(*request.args, **request.kwargs, **frame.state.arguments_of(frame, request.wanted))


def _execute(effect: Execute, frame: Frame) -> Executed:
    attempt = effect.attempt
    frame.current_step = attempt.request.name
    try:
        if not frame.interceptors:
            return execute(attempt, frame)
        return within(around_attempt(frame.interceptors, attempt), partial(execute, attempt, frame))
    finally:
        frame.current_step = ""


def _enter(request: CallBranch, outer: Frame) -> tuple[Any, BaseException | None]:
    """Call the function of a branch; what it returned, and what it raised."""
    state = outer.state
    frame = Frame(state, outer.host, outer.scope.inner(request.name, outer.group), outer.unit, outer.connections)
    for interceptor in frame.interceptors:
        interceptor.entered(frame.claim, request)
    state.frames[frame] = None
    value, error = None, None
    try:
        with frame.connections.tidied(f"Branch {request.name!r}"):
            value = copy_context().run(_call, request, frame)
    except BaseException as raised:
        if isinstance(raised, frame.host.lets_through):
            raise
        error = raised
    finally:
        del state.frames[frame]
    if state.is_ending or (frame.unit is not None and frame.unit.is_suspended):
        raise PassEnded(request.name)  # whatever the function made of it
    error = frame.guard.take_misuse() or error
    if error is None:
        error = frame.scope.mistake_at_the_end()
    if isinstance(error, MISTAKES):
        if frame.replay is None:
            raise error
        frame.replay.mistakes.append(error)  # and what is to be recorded next ends the call
    frame.has_left()
    return value, error
