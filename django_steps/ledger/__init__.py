"""The few writes that carry the promises. All SQL of django_steps is in this package (and in the wake-ups).

It knows rows, tokens and times. Not here: bodies and passes (`engine`), threads (`worker`), models (`models`).

Words that all statements share:
- `tables`: the names of the tables, the phases; `dialect`: what differs between the databases
- `database`: transactions that write, trying again; `postgresql`: statements that it prepares, values as its literals
- `sessions`: which statements change the session of a connection
- `moves`: what an UPDATE sets when a run finishes, becomes ready or is suspended; `order`: what came later than what

The way of a run:
- `inserts`: bringing runs into being; `notify`: telling workers of it
- `terms`, `claims`: what a worker takes, and taking it; `histories`: reading what runs have recorded
- `records`: recording the outcome of a step; `transitions`: how a pass leaves its run: finished, suspended, released
- `batches`: records and ends of several runs with one commit
- `leases`: renewing what is held; `timers`, `recovery`: waking what is due, recovering what a dead worker held

Around it:
- `controls`: what operators and callers ask for: retry and cancel; `resets`: letting recorded steps execute again
- `workers`: who is there; `unknown`: setting aside what no worker knows; `pruning`: deleting what is old
- `reports`: counting runs for people

Which columns of a run go together ("set", "-" for NULL, or "any"; no other row exists at the end of a transaction):

    status     phase    worker  token  finished_at
    pending    ready    -       -      -              to be claimed
    pending    timed    -       -      -              delayed until `available_at_us`
    pending    unknown  -       -      -              no live worker knows its workflow
    running    timed    set     set    -              held until `available_at_us`, the end of its lease
    sleeping   timed    -       -      -              suspended until `available_at_us`
    canceling  timed    set     set    -              held; no further step begins, and its release finishes it
    succeeded  ended    set     set    set            by its holder
    failed     ended    set     set    set            by its holder
    failed     ended    set     -      set            its workers died too often
    canceled   ended    -       -      set            no worker held it
    canceled   ended    set     set    set            its holder released it
    canceled   ended    set     -      set            its holder died

`worker` is the one that holds the run, or held it last. `suspect_since_us` and `current_step` are empty but in a run that
is held. `error` is that of a failed run, or of the last attempt of the whole run.
"""
