"""Begins the script of every subprocess: one job per line of JSON on stdin, and one line of JSON as the answer.

The first answer names the versions at hand, or what is missing.
"""

import importlib
import json
import sys
import time
import warnings

warnings.filterwarnings("ignore")


def answer(**fields):
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


missing = []
versions = {}
for name in ("numpy", "scipy", "threadpoolctl", "implicit"):
    try:
        versions[name] = importlib.import_module(name).__version__
    except ImportError:
        missing.append(name)
if missing:
    answer(missing=missing)
    sys.exit(0)

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from implicit.als import AlternatingLeastSquares
from scipy.sparse.linalg import svds
from threadpoolctl import threadpool_limits


def matrix(prefix, job):
    read = lambda part, kind: np.fromfile(prefix + "." + part, dtype=kind)
    parts = (read("data", "<f4"), read("indices", "<i4"), read("indptr", "<i8"))
    return sp.csr_matrix(parts, shape=(job["rows"], job["items"]))


def serve(jobs):
    answer(versions=versions)
    for line in sys.stdin:
        job = json.loads(line)
        try:
            answer(**jobs[job["job"]](job))
        except (MemoryError, np.linalg.LinAlgError, ValueError) as error:
            answer(failed=f"{type(error).__name__}: {error}")
