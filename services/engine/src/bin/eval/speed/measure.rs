use std::{hint::black_box, time::Instant};

use echotune_engine::{
    Interactions, Random,
    ease::{Ease, EaseOptions},
    filter::{FilterOptions, GraphFilter},
    ials::{FoldIn, Model, Options},
    scan::{Audit, ItemSet, Partition, PartitionOptions, Request, Scan},
};
use serde_json::{Value, json};

use super::{
    table::{Row, Table},
    world,
};
use crate::{python::Python, run::percentiles};

/// Listeners whose single requests are timed.
const TIMED: usize = 1_000;
const ITERATIONS: usize = 15;
const MILLION: usize = 1_000_000;
const RANK: usize = 128;

/// The peers, and what was measured.
pub(super) struct Bench {
    pub(super) python: Option<Python>,
    pub(super) table: Table,
}

/// What a work answers, and its seconds.
fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed().as_secs_f64())
}

/// Median and 99th percentile of the milliseconds of single calls.
fn each<T, R>(of: impl IntoIterator<Item = T>, mut call: impl FnMut(T) -> R) -> [f64; 2] {
    percentiles(of.into_iter().map(|one| timed(|| black_box(call(one))).1 * 1e3).collect())
}

fn ials_options(factors: usize) -> Options {
    Options { factors, iterations: ITERATIONS, ..Options::default() }
}

impl Bench {
    fn ask(&mut self, mut job: Value, data: Option<&Interactions>) -> anyhow::Result<Option<Value>> {
        let Some(python) = &mut self.python else { return Ok(None) };
        if let Some(data) = data {
            job["train"] = json!(python.written("train", data)?);
            (job["rows"], job["items"]) = (json!(data.user_count()), json!(data.item_count()));
        }
        python.ask(&job).map(Some)
    }

    /// Seconds of a fit of ours and of the peer's.
    fn fits<M>(
        &mut self,
        (what, wanted): (String, &'static str),
        data: &Interactions,
        fit: impl FnOnce(&Interactions) -> anyhow::Result<M>,
        (peer, job): (&'static str, Value),
    ) -> anyhow::Result<()> {
        let (fitted, ours) = timed(|| fit(data).map(black_box));
        drop(fitted?);
        let answer = self.ask(job, Some(data))?;
        let peer = answer.and_then(|answer| Some((peer, answer["fit_s"].as_f64()?)));
        self.table.add(Row { what, unit: "s", ours, peer, wanted });
        Ok(())
    }

    /// Implicit ALS of binary weights.
    pub(super) fn ials(&mut self, data: &Interactions) -> anyhow::Result<()> {
        for factors in [64, 128, 256] {
            let what = (format!("Gowalla iALS, {ITERATIONS} iterations, {factors} factors"), "0.35 of the peer");
            let job = json!({ "job": "als", "factors": factors, "iterations": ITERATIONS, "users": [] });
            let fit = |data: &Interactions| Ok(Model::fit(data, &ials_options(factors), &|_| {})?);
            self.fits(what, data, fit, ("implicit", job))?;
        }
        Ok(())
    }

    /// The graph filter with 448 vectors; the peer's are those of ARPACK alone.
    pub(super) fn filter(&mut self, data: &Interactions) -> anyhow::Result<()> {
        let fit = |data: &Interactions| Ok(GraphFilter::fit(data, FilterOptions::default()));
        let job = json!({ "job": "low_pass", "rank": FilterOptions::default().rank });
        self.fits(("Gowalla graph filter, 448 vectors".into(), "20 s"), data, fit, ("SciPy svds", job))
    }

    /// EASE of a whole catalogue.
    pub(super) fn ease(&mut self, data: &Interactions) -> anyhow::Result<()> {
        for (kind, peer, wanted) in
            [("float64", "NumPy, f64", "0.4 of the peer"), ("float32", "NumPy, f32", "beside single precision")]
        {
            let options = EaseOptions { head: data.item_count(), lambda: 100.0, ..EaseOptions::default() };
            let fit = |data: &Interactions| Ok(Ease::fit(data, options)?);
            let what = format!("EASE, {} items", data.item_count());
            self.fits((what, wanted), data, fit, (peer, json!({ "job": "ease", "kind": kind })))?;
        }
        Ok(())
    }

    /// Single requests to factors: lists, folding in, explanations.
    pub(super) fn online(&mut self, data: &Interactions) -> anyhow::Result<()> {
        let mut users: Vec<usize> = (0..data.user_count()).filter(|user| !data.row(*user).is_empty()).collect();
        Random::new(1).shuffle(&mut users);
        users.truncate(TIMED);
        let model = Model::fit(data, &ials_options(RANK), &|_| {})?;
        let job = json!({ "job": "als", "factors": RANK, "iterations": ITERATIONS, "users": users });
        let peer = self.ask(job, Some(data))?.unwrap_or_default();
        let fold = FoldIn::new(model.items(), &ials_options(RANK))?;
        let histories: Vec<Vec<(u32, f32)>> = users.iter().map(|user| data.entries(*user).collect()).collect();

        let folding = each(&histories, |history| fold.fold(history).map(|folded| folded.factors()));
        let folded = histories.iter().map(|history| fold.fold(history)).collect::<Result<Vec<_>, _>>()?;
        let scan = Scan::new(model.items())?;
        let factors: Vec<Vec<f32>> = folded.iter().map(|folded| folded.factors()).collect();
        let known: Vec<ItemSet> = users.iter().map(|user| known(data, *user)).collect();
        let lists = each(factors.iter().zip(&known), |(factors, known)| {
            scan.best(&Request::new(factors, 20).excluding(&|item| known.contains(item)))
        });
        let excluded: Vec<_> = known.iter().map(|known| |item: u32| known.contains(item)).collect();
        let requests: Vec<Request<'_>> =
            factors.iter().zip(&excluded).map(|(factors, known)| Request::new(factors, 20).excluding(known)).collect();
        let (answers, seconds) = timed(|| scan.best_of_each(&requests));
        let best: Vec<u32> = answers?.iter().map(|list| list.first().map_or(0, |(item, _)| *item)).collect();
        let explaining = each(folded.iter().zip(&best), |(folded, item)| folded.explain(*item));
        let off = folded.iter().zip(&best).map(|(folded, item)| {
            let total: f64 = folded.explain(*item).iter().map(|(_, part)| part).sum();
            (total - folded.score(*item)).abs() / folded.score(*item).abs()
        });

        let figure = |what: &str, unit, ours, path: [&str; 2], wanted| {
            let found = if path[1].is_empty() { &peer[path[0]] } else { &peer[path[0]][path[1]] };
            let peer = found.as_f64().map(|figure| ("implicit", figure));
            Row { what: what.into(), unit, ours, peer, wanted }
        };
        #[expect(clippy::cast_precision_loss, reason = "few requests")]
        let per_second = requests.len() as f64 / seconds;
        self.table.add(figure("top 20 of 41k items, p50", "ms", lists[0], ["list", "p50_ms"], ""));
        self.table.add(figure("top 20 of 41k items, p99", "ms", lists[1], ["list", "p99_ms"], "0.3 ms"));
        self.table.add(figure(
            "top 20 of 41k items, batched",
            "per s",
            per_second,
            ["batched_per_s", ""],
            "10,000 per s",
        ));
        self.table.add(figure("fold-in, 128 factors, p50", "ms", folding[0], ["fold", "p50_ms"], "0.15 ms"));
        self.table.add(figure("fold-in, 128 factors, p99", "ms", folding[1], ["fold", "p99_ms"], "1 ms"));
        self.table.add(figure("explanation, 128 factors, p99", "ms", explaining[1], ["explain", "p99_ms"], "0.5 ms"));
        let largest = off.fold(0.0, f64::max);
        self.table.add(figure("explanation, largest relative error", "", largest, ["off", ""], "exact"));
        Ok(())
    }

    /// A scan of a million items without structure, by one thread.
    pub(super) fn scan(&mut self) -> anyhow::Result<()> {
        let scan = Scan::new(world::normal(MILLION, RANK, 1))?;
        let queries = world::normal(64, RANK, 2);
        let [p50, p99] = each(0..64, |row| scan.best(&Request::new(queries.row(row), 20)));
        let answer = self.ask(json!({ "job": "scan", "items": MILLION, "factors": RANK }), None)?.unwrap_or_default();
        let peer = |name: &str| Some(("NumPy, f32", answer["list"][name].as_f64()?));
        let what = |quantile: &str| format!("exact scan of 1 M × 128, {quantile}");
        self.table.add(Row { what: what("p50"), unit: "ms", ours: p50, peer: peer("p50_ms"), wanted: "8 ms" });
        self.table.add(Row { what: what("p99"), unit: "ms", ours: p99, peer: peer("p99_ms"), wanted: "" });
        Ok(())
    }

    /// The cluster index of a million items that look like fitted factors, by one thread.
    pub(super) fn million(&mut self) -> anyhow::Result<()> {
        let items = world::world(MILLION, RANK, 1, 0.35);
        let queries = world::world(512, RANK, 2, 0.0);
        let exact = Scan::new(&items)?;
        let requests: Vec<Request<'_>> = (0..queries.rows()).map(|row| Request::new(queries.row(row), 100)).collect();
        let truth = exact.best_of_each(&requests)?;
        let (index, seconds) = timed(|| Partition::new(&items, PartitionOptions::default()));
        let index = index?;
        self.table.add(Row {
            what: "index of 1 M × 128, build".into(),
            unit: "s",
            ours: seconds,
            peer: None,
            wanted: "",
        });
        for effort in [10_000, 20_000, 30_000, 35_000, 40_000] {
            let mut audit = Audit::new(1.0);
            let (found, seconds) =
                timed(|| requests.iter().map(|request| index.best(request, effort)).collect::<Result<Vec<_>, _>>());
            found?.iter().zip(&truth).for_each(|(found, exact)| audit.compare(found, exact));
            let recall = audit.recall(0.05).map_or(0.0, |recall| recall.mean);
            #[expect(clippy::cast_precision_loss, reason = "few requests")]
            let per_second = requests.len() as f64 / seconds;
            let what = |what: &str| format!("index of 1 M × 128, {effort} looked at, {what}");
            self.table.add(Row { what: what("recall@100"), unit: "", ours: recall, peer: None, wanted: "0.97" });
            self.table.add(Row {
                what: what("per core"),
                unit: "per s",
                ours: per_second,
                peer: None,
                wanted: "1,500 per s",
            });
        }
        Ok(())
    }
}

fn known(data: &Interactions, user: usize) -> ItemSet {
    let mut known = ItemSet::new(data.item_count());
    known.extend(data.row(user).iter().copied());
    known
}
