"""What joins django_steps to other packages, an app for each: only a project that installs it imports that package.

Not here: what executes runs, which is the same everywhere (`worker`, `engine`).
"""
