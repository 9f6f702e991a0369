"""The few writes that carry the promises. All SQL of django_steps is in this package (and in the wake-ups).

It knows rows, tokens and times: the tables are named in `tables`. Not here: bodies, steps and threads (`engine`, `worker`),
and model instances (`models`).

- `database`: transactions that write, errors that pass; `dialect`: what differs between the databases in words;
  `postgresql/`: statements that PostgreSQL prepares, and their values
- `inserts`: bringing runs into being
- `terms`, `claims`: what a worker takes, and taking it
- `timers`, `recovery`: waking what is due, recovering what belonged to a worker that died
- `unknown`: setting aside what no worker knows; `pruning`: deleting what is old; `workers`: who is there
- `leases`: renewing what is held
- `records`: recording the outcome of a step; `resets`: letting it be executed again
- `transitions`: suspending a run, ending it, releasing it
- `batches`: records and endings of several runs with one commit
- `controls`: what operators and callers ask for: retry and cancel
- `notify`: telling workers that there may be work
- `histories`: reading what runs have recorded; `reports`: counting them for people
"""
