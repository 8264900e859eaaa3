"""Generative models for medical images: the helper library of the course.

Only the standard library is imported here: `python3 -m course_lib` must start
before anything is installed.
"""

import os

__version__ = "0.1.0"

# Two torch processes on two cores spin against each other without this (a step of
# 21 ms took 270 ms). It only counts when it is set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
