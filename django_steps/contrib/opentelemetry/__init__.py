"""Traces runs with OpenTelemetry: a span for each pass, and below it one for each attempt of a step.

- `tracing`: the spans; an interceptor around every pass of the process
- `carrier`: what a run carries from the code that starts it to its passes, and from one pass to the next

Not here: where spans go. The project says that to OpenTelemetry's SDK, of which this app knows nothing.
"""
