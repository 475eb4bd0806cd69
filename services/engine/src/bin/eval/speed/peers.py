"""Times the peers."""


def percentiles(times):
    times = sorted(times)
    at = lambda percent: times[max(0, -(-len(times) * percent // 100) - 1)]
    return {"p50_ms": at(50) * 1e3, "p99_ms": at(99) * 1e3}


def timed(calls):
    times = []
    for call in calls:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return percentiles(times)


def als(job):
    """Fit, then single requests. It runs its own threads, to which those of BLAS would only be added."""
    train = matrix(job["train"], job)
    model = AlternatingLeastSquares(
        factors=job["factors"],
        regularization=0.01,
        alpha=1.0,
        iterations=job["iterations"],
        random_state=1,
        use_gpu=False,
    )
    with threadpool_limits(limits=1, user_api="blas"):
        begin = time.perf_counter()
        model.fit(train, show_progress=False)
        found = {"fit_s": time.perf_counter() - begin}
        if not job["users"]:
            return found
        known = [(user, train[user]) for user in job["users"]]
        one = lambda user, row: lambda: model.recommend(user, row, N=20, filter_already_liked_items=True)
        found["list"] = timed(one(*pair) for pair in known)
        fold = lambda row: lambda: model.recalculate_user(0, row)
        found["fold"] = timed(fold(row) for _, row in known)
        items = [int(model.recommend(user, row, N=1)[0][0]) for user, row in known]
        tell = lambda user, item: lambda: model.explain(user, train, item, N=10_000)
        found["explain"] = timed(tell(user, item) for (user, _), item in zip(known, items))
        off = 0.0
        for (user, _), item in zip(known, items):
            total, _, _ = model.explain(user, train, item, N=10_000)
            served = float(model.user_factors[user] @ model.item_factors[item])
            off = max(off, abs(total - served) / abs(served))
        found["off"] = off
        users = np.asarray(job["users"], dtype=np.int32)
        begin = time.perf_counter()
        model.recommend(users, train[users], N=20, filter_already_liked_items=True)
        found["batched_per_s"] = len(users) / (time.perf_counter() - begin)
    return found


def ease(job):
    train = matrix(job["train"], job).astype(job["kind"])
    begin = time.perf_counter()
    gram = (train.T @ train).toarray()
    gram[np.diag_indices(len(gram))] += 100.0
    weights = np.linalg.inv(gram)
    weights /= -np.diag(weights)
    weights[np.diag_indices(len(weights))] = 0.0
    return {"fit_s": time.perf_counter() - begin}


def low_pass(job):
    """GF-CF's vectors, with ARPACK as its authors' code has them."""
    train = matrix(job["train"], job)
    of = lambda axis: sp.diags(1.0 / np.sqrt(np.maximum(np.asarray(train.sum(axis)).ravel(), 1e-12)))
    even = (of(1) @ train @ of(0)).tocsc()
    begin = time.perf_counter()
    svds(even, job["rank"])
    return {"fit_s": time.perf_counter() - begin}


def scan(job):
    items = np.random.default_rng(1).standard_normal((job["items"], job["factors"]), dtype=np.float32)
    queries = np.random.default_rng(2).standard_normal((64, job["factors"]), dtype=np.float32)

    def one(query):
        scores = items @ query
        best = np.argpartition(scores, -20)[-20:]
        return best[np.argsort(-scores[best])]

    with threadpool_limits(limits=1):
        return {"list": timed((lambda query=query: one(query)) for query in queries)}


serve({"als": als, "ease": ease, "low_pass": low_pass, "scan": scan})
