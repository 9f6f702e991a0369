"""The page and the endpoint behind `run.event_url()`: whoever has the address may send that event to that run, once.

- `bodies`: reads what a request brings, at most so many bytes
- `links`: what a token stands for now: its run, whether it was used, whether it still is of use
- `answers`: the answers, for people and for machines
- `views`: puts them together

Nothing here needs a session, the admin or a signed-in user, and nothing is logged of tokens and payloads.

Not here: the tokens themselves (`models.event_urls`), the form (`forms`), and storing an event (`models`, `ledger`).
"""
