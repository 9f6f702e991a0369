"""Starting a run that is not waited for: the run and the record of the step are one transaction."""

from __future__ import annotations

from uuid import UUID

from ... import values
from ...core.states import StepStatus
from ...definitions.requests import StartRun
from ...definitions.starting import new_run
from ...ledger import children
from ...ledger.events import To
from ...ledger.histories import Recorded
from ...ledger.records import Outcome, is_recorded
from ...models import sending
from ..ending import Ended, Ending
from ..frame import Frame
from .base import Call, Commit, Core, Operation, Record


class StartOperation(Operation[StartRun]):
    """The result is the id of the run. The name is taken when the step is defined."""

    kind = "start"

    def recorded_as(self, frame: Frame, request: StartRun) -> str:
        frame.scope.use_defined(request.name)
        return request.name

    def is_over(self, frame: Frame, recorded: Recorded) -> bool:
        return recorded.is_final

    def core(self, frame: Frame, request: StartRun, name: str, recorded: Recorded | None) -> Core:
        host, after = frame.host, frame.scope.after(name)
        new = new_run(request.workflow, request.input, request.options)
        event = request.options.event
        sent = None if event is None else sending.prepared(event)
        write = frame.write_of(
            name,
            self.kind,
            StepStatus.SUCCEEDED,
            position=frame.history.next_position(),
            after=after,
            output="",
            arguments=request.fingerprint,
            started_at=frame.claim.now(),
            finished_at=frame.claim.now(),
        )

        instead = next(filter(None, (around.instead(frame.claim, name) for around in frame.interceptors)), None)
        if instead is not None:
            takes_input = "input" in request.workflow.parameters
            arguments = (request.workflow.to_input(request.input),) if takes_input else ()
            write.output = values.encode((yield Call(lambda: instead(*arguments))))
            frame.ensure_held((yield Record(write)))
            return frame.add(write)

        asked = 0

        def begin() -> Outcome | None:
            nonlocal asked
            connection = host.connection()
            asked += 1
            if asked > 1 and is_recorded(connection, write):  # the answer was lost: the run is there
                return Outcome.WRITTEN

            def found(run_id: UUID) -> None:
                write.output = values.encode(run_id)
                if event is not None and sent is not None:
                    sending.send(connection, To(run_id=run_id), event, sent)

            return children.start(connection, write, new, found)

        frame.ensure_held((yield Commit(write, begin)))
        final = frame.add(write)
        if frame.host.suspends_always:
            frame.end(Ending(Ended.RELEASED))
        return final

    def outcome(self, frame: Frame, request: StartRun, recorded: Recorded) -> UUID:
        run_id: UUID = frame.outcome(recorded)
        return run_id
