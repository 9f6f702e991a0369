"""The few writes that carry the promises. All SQL of django_steps is in this package (and in the wake-ups).

It knows rows, tokens and times, and nothing of bodies, threads or models: the tables are named in `sql.py`.

- `sql`: what differs between the databases; `prepared`, `literals`: statements that PostgreSQL prepares, and their values
- `starts`: bringing runs into being
- `terms`, `claims`: what a worker takes, and taking it
- `due`, `recovery_log`: waking what is due, taking over what belonged to a worker that died
- `parking`: putting aside what no worker knows; `pruning`: deleting what is old; `workers`: who is there
- `leases`: renewing what is held
- `records`: recording the outcome of a step; `forgetting`: letting it be executed again
- `endings`: putting a run down, ending it, giving it back
- `together`: records and endings of several runs with one commit
- `verbs`: what operators and callers ask for: retry, cancel, restart
- `histories`: reading what runs have recorded; `reports`: counting them for people
"""
