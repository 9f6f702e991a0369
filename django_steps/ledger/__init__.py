"""The few writes that carry the promises. All SQL of django_steps is in this package (and in the wake-ups).

It knows rows, tokens and times. Not here: bodies and passes (`engine`), threads (`worker`), models (`models`).

Words that all statements share:
- `tables`: the names of the tables, the phases; `dialect`: what differs between the databases
- `database`: transactions that write, trying again; `postgresql`: statements that it prepares, values as its literals
- `sessions`: which statements change the session of a connection
- `moves`: what an UPDATE sets when a run finishes, becomes ready or is suspended; `order`: what came later than what

The way of a run:
- `inserts`: bringing runs into being; `copying`: with what another one has recorded; `notify`: telling workers of it
- `terms`, `claims`: what a worker takes, and taking it; `histories`: reading what runs have recorded
- `records`: recording the outcome of a step; `transitions`: how a pass leaves its run: finished, suspended, released
- `waits`: what waiting runs wait for, and waking them; `events`, `taking`: sending and taking events
- `children`: beginning child runs, and looking at them; `cascades`: what the end of a run means for its parent and children
- `batches`, `bulk_records`: records and ends of several runs with one commit; `details`: what a run says of itself
- `tags`: by what runs are found
- `leases`: renewing what is held; `timers`, `recovery`: waking what is due, recovering what a dead worker held
- `expiry`: ending what has lasted, or has waited to begin, for too long

Limits:
- `lines`: who is in line for a slot, and who may go on; `limits`: the table of limits, as the code of workers says
- `circles`: limits that wait for each other

Around it:
- `controls`, `resuming`: what operators and callers ask for: retry, cancel, pause, resume; `undoing`: cancel with undo
- `resets`: letting recorded steps execute again; `undone`: what is undone, over which no retry goes on
- `workers`: who is there; `unknown`: setting aside what no worker knows; `pauses`: what a paused queue or workflow holds
- `schedules`: starting runs when their time has come; `pruning`: deleting what is old
- `reports`: counting runs for people; `relatives`: what is around one of them; `chains`: what it has continued as
- `discarding`: events that no wait is to take

Which columns of a run go together ("set", "-" for NULL, or "any"; no other row exists at the end of a transaction):

    status     phase    worker  token  finished_at
    pending    ready    -       -      -              to be claimed
    pending    timed    -       -      -              delayed until `available_at_us`
    pending    unknown  -       -      -              no live worker knows its workflow
    pending    parked   -       -      -              its queue or its workflow is paused
    pending    held     -       -      -              until an earlier run of its schedule has ended
    pending    in_line  -       -      -              ready but for the limit `line_key`, which has no room
    running    timed    set     set    -              held until `available_at_us`, the end of its lease
    sleeping   timed    -       -      -              suspended until `available_at_us`
    waiting    timed    -       -      -              suspended until others wake it; looked at at `available_at_us`
    paused     parked   -       -      -              until somebody resumes it
    canceling  timed    set     set    -              held; no further step begins, and its release finishes it; or it undoes
    canceling  timed    -       -      -              its children have not all ended, or an undo is tried again, at
                                                      `available_at_us`
    canceling  ready    -       -      -              with undo: to be claimed for that
    canceling  unknown  -       -      -              with undo: no live worker knows its workflow
    canceling  parked   -       -      -              with undo: its queue or its workflow is paused
    succeeded  ended    set     set    set            by its holder
    failed     ended    set     set    set            by its holder
    failed     ended    set     -      set            its workers died too often
    failed     ended    -       -      set            no worker held it, and its timeout was over
    canceled   ended    -       -      set            no worker held it
    canceled   ended    set     set    set            its holder released it, or has undone what it had done
    canceled   ended    set     -      set            its holder died

`paused_at` is set in a paused run, and in a running one that is to be paused: no further step begins, and its release pauses
it. `worker` is the one that holds the run, or held it last. `suspect_since_us` and `current_step` are empty but in a run that
is held. `waits_for` and `waits_until_us` say something of a waiting run only, `expires_at_us` something of one that has not
ended. `error` is that of a failed run, or of the last attempt of the whole run.
"""
