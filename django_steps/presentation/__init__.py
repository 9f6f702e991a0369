"""What the admin and the commands show of runs, steps, values and errors: the same words for the same thing.

Each module makes plain text or plain JSON types of one kind of thing:

- `values`: recorded values as JSON, masked; they are read as text and never decoded
- `errors`: failures, in one line and in full
- `durations`: durations and moments
- `steps`, `runs`: how a step or a run stands; every status is interpreted here
- `tree`: what a run has recorded, with its branches, maps and gathers
- `json`: runs for `--json`
- `own_keys`: the keys that the admin's pages give to runs, which say nothing
- `text`: clipping, and what every stream can carry
- `output`: tables and progress in a terminal; it knows nothing of runs

Not here: HTML and pages (`admin`), commands and what they print around it (`management`).
"""
