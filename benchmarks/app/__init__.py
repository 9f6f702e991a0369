"""The app whose workflows are measured."""
