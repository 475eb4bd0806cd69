"""Fits implicit's ALS and EASE.

The lists are written to a file and judged by the caller, so that all models are judged alike.
"""

CHUNK = 512


def weighted(train, job):
    train = train.copy()
    train.data = np.log1p(train.data) if job["weighted"] else np.ones_like(train.data)
    return train


def als(train, known, users, job):
    # It runs its own threads, to which those of BLAS would only be added.
    with threadpool_limits(limits=1, user_api="blas"):
        return fitted_als(train, known, users, job)


def fitted_als(train, known, users, job):
    train = weighted(train, job)
    start = time.perf_counter()
    model = AlternatingLeastSquares(
        factors=int(job["factors"]),
        regularization=job["regularization"],
        alpha=job["alpha"],
        iterations=int(job["iterations"]),
        random_state=int(job["seed"]),
        use_gpu=False,
    )
    model.fit(train, show_progress=False)
    fit = time.perf_counter() - start
    lists, _ = model.recommend(users, known[users], N=job["count"], filter_already_liked_items=True)
    times = []
    for user in job["timed"]:
        begin = time.perf_counter()
        model.recommend(user, known[user], N=job["count"], filter_already_liked_items=True)
        times.append((time.perf_counter() - begin) * 1e3)
    return lists, fit, times


def ease(train, known, users, job):
    """Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019.

    With fewer listeners than items in the dual: P = (X'X + l)^-1 has the diagonal (1 - diag(X'A)) / l and
    X P = A for A = (XX' + l)^-1 X, and the scores are X B = X - X P / diag(P).
    """
    train = weighted(train, job).astype(np.float64)
    lam = job["lambda"]
    start = time.perf_counter()
    rows, items = train.shape
    if rows <= items:
        gram = (train @ train.T).toarray()
        gram[np.diag_indices(rows)] += lam
        inverse = scipy.linalg.inv(gram, overwrite_a=True, check_finite=False)
        diagonal = np.empty(items)
        columns = train.tocsc()
        for first in range(0, items, CHUNK):
            part = columns[:, first : first + CHUNK]
            diagonal[first : first + CHUNK] = part.multiply(inverse @ part).sum(axis=0)
        diagonal = (1.0 - diagonal) / lam
        fit = time.perf_counter() - start
        scores = lambda some: train[some].toarray() - (train.T @ inverse[some].T).T / diagonal
    else:
        gram = (train.T @ train).toarray()
        gram[np.diag_indices(items)] += lam
        weights = scipy.linalg.inv(gram, overwrite_a=True, check_finite=False)
        weights /= -np.diag(weights)
        weights[np.diag_indices(items)] = 0.0
        fit = time.perf_counter() - start
        scores = lambda some: train[some] @ weights
    lists = []
    for first in range(0, len(users), CHUNK):
        some = users[first : first + CHUNK]
        found = np.asarray(scores(some))
        found[known[some].nonzero()] = -np.inf
        count = min(job["count"], items)
        best = np.argpartition(-found, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(found, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        best[np.isneginf(np.take_along_axis(found, best, axis=1))] = -1
        lists.append(best)
    return np.vstack(lists), fit, []


def judged(fit):
    """A job that fits a model and writes its lists."""

    def run(job):
        train, known = matrix(job["train"], job), matrix(job["known"], job)
        users = np.asarray(job["users"], dtype=np.int32)
        lists, fit_s, times = fit(train, known, users, job)
        padded = np.full((len(users), job["count"]), -1, dtype="<i4")
        padded[:, : lists.shape[1]] = lists
        padded.tofile(job["out"])
        return {"fit_s": fit_s, "list_ms": times}

    return run


serve({"als": judged(als), "ease": judged(ease)})
