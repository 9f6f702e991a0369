"""What other programs ask to find out whether runs are executed as they should be.

- `health`: what is wrong, a line for each problem; also for `showworkflows --check`
- `metrics`: numbers, in the text format of Prometheus
- `cached`: what was found is good for some seconds
- `views`, `urls`: both over HTTP

It only looks.

Not here: the statements (`ledger.metrics`), and what people read of a run (`presentation`).
"""
