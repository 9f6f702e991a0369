"""Settings of the test-suite: the shop's, with an app of workflows made for testing."""

import json
import os

from testproject.settings import *  # noqa: F403
from testproject.settings import DJANGO_STEPS, INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.app"]

# For worker processes of tests that set something.
DJANGO_STEPS = {**DJANGO_STEPS, **json.loads(os.environ.get("DJANGO_STEPS", "{}"))}

# The default one takes about a second of CPU for each user with a password, on purpose.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
