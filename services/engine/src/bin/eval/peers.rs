//! Other recommenders on the same splits, in a Python subprocess that answers jobs. It returns lists; they are
//! judged here as those of any model.

use std::{fs, path::Path};

use anyhow::Context as _;
use echotune_engine::{
    Random,
    evaluation::{Fold, Settings, measure},
};
use serde_json::{Value, json};

use crate::{
    python::Python,
    report::Report,
    run::{Measure, Run, described, percentiles, timed_users},
};

const SCRIPT: &str = include_str!("peers.py");
/// The smaller side of the matrix at the most for EASE, whose inverse is dense.
const MAX_EASE: usize = 20_000;
/// Factors of implicit's ALS that are measured.
const FACTORS: [u32; 3] = [64, 128, 256];

/// A recommender of the subprocess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Als(u32),
    Ease,
}

impl Peer {
    fn name(self) -> String {
        match self {
            Self::Als(factors) => format!("implicit-als-{factors}"),
            Self::Ease => "ease-numpy".into(),
        }
    }

    /// Hyper-parameters to try: first those that the library or the paper begins with, then random ones,
    /// log-uniform. Weights are ln(1 + weight) or 1.
    fn candidates(self, trials: u32, seed: u64) -> Vec<Settings> {
        let mut random = Random::new(seed ^ 0x7065_6572);
        let mut between = |low: f64, high: f64| low * (high / low).powf(random.unit());
        let mut settings = Vec::new();
        for trial in 0..trials {
            let first = trial == 0;
            let weighted = ("weighted", f64::from(u8::from(first || between(0.5, 2.0) > 1.0)));
            settings.push(Settings(match self {
                Self::Als(factors) => {
                    let (regularization, alpha) =
                        if first { (0.01, 1.0) } else { (between(0.01, 100.0), between(1.0, 40.0)) };
                    vec![
                        ("factors", f64::from(factors)),
                        ("iterations", 15.0),
                        ("regularization", regularization),
                        ("alpha", alpha),
                        weighted,
                    ]
                }
                Self::Ease => {
                    let lambda = if first { 100.0 } else { between(10.0, 2_000.0) };
                    vec![("lambda", lambda), if first { ("weighted", 0.0) } else { weighted }]
                }
            }));
        }
        settings
    }
}

/// What the subprocess made of a job.
struct Answer {
    lists: Vec<Option<Vec<u32>>>,
    fit: f64,
    times: Vec<f64>,
}

/// The subprocess.
pub(crate) struct Peers {
    python: Python,
    trials: u32,
}

impl Peers {
    pub(crate) fn start(python: &Path, trials: u32) -> anyhow::Result<Self> {
        Ok(Self { python: Python::start(python, SCRIPT)?, trials })
    }

    /// Measures every peer that can be fitted on this data.
    pub(crate) fn measure(&mut self, on: &Measure<'_>, report: &mut Report) -> anyhow::Result<()> {
        let (tuning, testing) = (on.tuning(), on.dataset.testing());
        let side = testing.held.item_count().min(testing.held.user_count());
        for peer in FACTORS.map(Peer::Als).into_iter().chain([Peer::Ease]) {
            if peer == Peer::Ease && side > MAX_EASE {
                eprintln!("left out: {}, which needs a dense inverse of {side}²; at most {MAX_EASE}²", peer.name());
                continue;
            }
            report.add(self.run(peer, on, &tuning, &testing).with_context(|| format!("peer {}", peer.name()))?);
        }
        Ok(())
    }

    fn run(&mut self, peer: Peer, on: &Measure<'_>, tuning: &Fold<'_>, testing: &Fold<'_>) -> anyhow::Result<Run> {
        let candidates = peer.candidates(self.trials, on.seed);
        let bar = on.bar(&peer.name());
        bar.set_length(candidates.len() as u64 + 1);
        bar.set_message("choosing");
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        let mut best = (f64::NEG_INFINITY, candidates[0].clone());
        for settings in &candidates {
            if candidates.len() == 1 || tuning.judged().is_empty() {
                break;
            }
            let answer = self.fit(peer, settings, tuning, on, &[])?;
            let found = measure(tuning, &[on.at[0]], &answer.lists).ndcg[0];
            if found > best.0 {
                best = (found, settings.clone());
            }
            bar.inc(1);
        }
        bar.set_message("fitting and ranking");
        let answer = self.fit(peer, &best.1, testing, on, &timed_users(testing, on.seed))?;
        bar.finish_and_clear();
        let metrics = measure(testing, on.at, &answer.lists);
        let list = (!answer.times.is_empty()).then(|| percentiles(answer.times));
        Ok(Run { model: peer.name(), seed: on.seed, metrics, fit: answer.fit, chosen: described(&best.1), list })
    }

    fn fit(
        &mut self,
        peer: Peer,
        settings: &Settings,
        fold: &Fold<'_>,
        on: &Measure<'_>,
        timed: &[usize],
    ) -> anyhow::Result<Answer> {
        let users = fold.judged();
        let (count, out) = (on.longest().min(fold.held.item_count()), self.python.path("lists"));
        let mut job = json!({
            "job": if peer == Peer::Ease { "ease" } else { "als" },
            "train": self.python.written("train", fold.training.interactions)?,
            "known": self.python.written("known", fold.known)?,
            "rows": fold.held.user_count(),
            "items": fold.held.item_count(),
            "users": users,
            "timed": timed,
            "count": count,
            "seed": on.seed,
            "out": out,
        });
        for (name, value) in &settings.0 {
            job[*name] = json!(value);
        }
        let answer = self.python.ask(&job)?;
        let bytes = fs::read(&out).context("the lists of the subprocess cannot be read")?;
        let times = answer["list_ms"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(Answer {
            lists: lists(&bytes, &users, count, fold.held.user_count()),
            fit: answer["fit_s"].as_f64().context("the subprocess did not say how long it took")?,
            times: times.iter().filter_map(Value::as_f64).collect(),
        })
    }
}

/// Lists of `count` items for some listeners, little-endian; -1 where there are no more.
fn lists(bytes: &[u8], users: &[usize], count: usize, all: usize) -> Vec<Option<Vec<u32>>> {
    let mut lists = vec![None; all];
    for (user, list) in users.iter().zip(bytes.chunks_exact((count * 4).max(1))) {
        let item = |four: &[u8]| four.try_into().ok().map(i32::from_le_bytes).and_then(|item| u32::try_from(item).ok());
        lists[*user] = Some(list.chunks_exact(4).filter_map(item).collect());
    }
    lists
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_they_were_written() {
        let bytes: Vec<u8> = [5_i32, 2, 7, -1].into_iter().flat_map(i32::to_le_bytes).collect();
        assert_eq!(lists(&bytes, &[0, 2], 2, 3), [Some(vec![5, 2]), None, Some(vec![7])]);
    }

    #[test]
    fn a_search_begins_with_the_defaults_and_is_that_of_its_seed() {
        let tried = Peer::Als(64).candidates(5, 1);
        assert_eq!((tried.len(), tried[0].get("regularization", 0.0)), (5, 0.01));
        assert_eq!(tried, Peer::Als(64).candidates(5, 1));
        assert_ne!(tried[1..], Peer::Als(64).candidates(5, 2)[1..]);
        assert!(Peer::Ease.candidates(50, 3).iter().all(|one| (10.0..=2_000.0).contains(&one.get("lambda", 0.0))));
    }
}
