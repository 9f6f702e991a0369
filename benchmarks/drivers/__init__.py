"""One script for each peer, run by the peer's own interpreter: `SCRIPT COMMAND ARGUMENTS-AS-JSON`.

They answer with one line of JSON. What the commands are is in `protocol.py`; nothing is imported from the harness.
"""
