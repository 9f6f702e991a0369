"""The few writes that carry the promises. All SQL of django_steps is in this package (and in the wake-ups).

It knows rows, tokens and times, and nothing of bodies, threads or models: the tables are named in `sql.py`.

- `sql`: what differs between the databases
- `terms`, `claims`: what a worker takes, and taking it
- `due`, `takeovers`: waking what is due, taking over what belonged to a worker that died
- `parking`: putting aside what no worker knows; `pruning`: deleting what is old; `workers`: who is there
- `leases`: renewing what is held, giving it back
- `records`: recording the outcome of a step
- `endings`: putting a run down, ending it
- `verbs`: what operators and callers ask for: start, retry, cancel, restart
- `histories`: reading what runs have recorded
"""
