"""Replaying runs over the code that is checked out: what would a deploy do to what is in flight?

`recordings` reads what is replayed, from the database or from a file. `replays` calls the body over it, with the engine's own
pass in a mode that carries nothing out (`engine/replay.py`), and `writes` refuses what the body itself would write. `verdicts`
says what came of it. `manage.py replayworkflows` and `assert_replays()` of the testing kit are the ways in.

Not here: what a pass leaves behind when a worker executes it (`engine/marks.py`), and how misfits are printed (`management`).
"""
