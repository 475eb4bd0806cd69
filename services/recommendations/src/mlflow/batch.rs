//! Facts of a run in batches that a server takes (MLflow, "REST API", Log Batch, Request Limits).

use std::collections::HashSet;

use serde_json::{Value, json};

use super::MlflowError;

/// Metrics, params and tags of a batch at the most, together.
const ENTITIES: usize = 1_000;
/// Params of a batch at the most; tags likewise.
const PARAMS: usize = 100;
/// Bytes of a batch at the most, below the limit of 1 MB with room for the names around the lists.
const BYTES: usize = 990_000;
/// Bytes of a key.
const KEY: usize = 250;
/// Bytes of the value of a param.
const PARAM: usize = 6_000;
/// Bytes of the value of a tag.
const TAG: usize = 5_000;

/// A figure at a time and a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Name.
    pub key: String,
    /// Value; finite.
    pub value: f64,
    /// When it was measured, in milliseconds since 1970.
    pub at_ms: i64,
    /// Step of the fit.
    pub step: i64,
}

/// Options, figures and tags.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Options, each name once.
    pub params: Vec<(String, String)>,
    /// Figures; one name may have many steps.
    pub metrics: Vec<Metric>,
    /// Tags, each name once.
    pub tags: Vec<(String, String)>,
}

impl Facts {
    /// That a server takes each of the facts.
    ///
    /// # Errors
    /// The first that it would refuse.
    pub fn check(&self) -> Result<(), MlflowError> {
        for (kind, pairs, room) in [("param", &self.params, PARAM), ("tag", &self.tags, TAG)] {
            let mut seen = HashSet::new();
            for (key, value) in pairs {
                check_key(kind, key)?;
                if value.len() > room {
                    let what = format!("{kind} '{key}' of {} bytes; at most {room}", value.len());
                    return Err(MlflowError::Limit { what });
                }
                if !seen.insert(key) {
                    return Err(MlflowError::Limit { what: format!("{kind} '{key}' twice") });
                }
            }
        }
        for metric in &self.metrics {
            check_key("metric", &metric.key)?;
            if !metric.value.is_finite() {
                return Err(MlflowError::Limit { what: format!("metric '{}' = {}", metric.key, metric.value) });
            }
        }
        Ok(())
    }

    /// The facts in batches, in their order.
    pub(super) fn batches(&self) -> Vec<Batch> {
        let pair = |(key, value): &(String, String)| json!({ "key": key, "value": value });
        let params = self.params.iter().map(|param| (Kind::Param, pair(param)));
        let tags = self.tags.iter().map(|tag| (Kind::Tag, pair(tag)));
        let metric =
            |one: &Metric| json!({ "key": one.key, "value": one.value, "timestamp": one.at_ms, "step": one.step });
        let metrics = self.metrics.iter().map(|one| (Kind::Metric, metric(one)));
        let mut batches: Vec<Batch> = Vec::new();
        for (kind, entity) in tags.chain(params).chain(metrics) {
            let bytes = entity.to_string().len() + 1;
            let takes = batches.last().is_some_and(|batch| batch.takes(kind, bytes));
            if !takes {
                batches.push(Batch::default());
            }
            let batch = batches.last_mut().expect("one was made");
            batch.bytes += bytes;
            batch.of(kind).push(entity);
        }
        batches
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Metric,
    Param,
    Tag,
}

/// What one call carries.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) metrics: Vec<Value>,
    pub(super) params: Vec<Value>,
    pub(super) tags: Vec<Value>,
    bytes: usize,
}

impl Batch {
    const fn of(&mut self, kind: Kind) -> &mut Vec<Value> {
        match kind {
            Kind::Metric => &mut self.metrics,
            Kind::Param => &mut self.params,
            Kind::Tag => &mut self.tags,
        }
    }

    const fn takes(&self, kind: Kind, bytes: usize) -> bool {
        let room = match kind {
            Kind::Metric => true,
            Kind::Param => self.params.len() < PARAMS,
            Kind::Tag => self.tags.len() < PARAMS,
        };
        let entities = self.metrics.len() + self.params.len() + self.tags.len();
        room && entities < ENTITIES && self.bytes + bytes <= BYTES
    }
}

/// Names are what servers and the file systems behind them take: letters, digits and `_-. :/`.
fn check_key(kind: &str, key: &str) -> Result<(), MlflowError> {
    let letters = |letter: char| letter.is_alphanumeric() || "_-. :/".contains(letter);
    let path = key.starts_with('/') || key.split('/').any(|part| matches!(part, "" | "." | ".."));
    if key.len() > KEY || path || !key.chars().all(letters) {
        return Err(MlflowError::Limit { what: format!("a {kind} named '{}'", key.escape_debug()) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts(params: usize, metrics: usize, tags: usize, length: usize) -> Facts {
        let pairs = |kind: &str, count| (0..count).map(|n| (format!("{kind} {n}"), "\u{1}".repeat(length))).collect();
        let metric = |n| Metric { key: "NDCG/at 20".into(), value: n as f64, at_ms: 7, step: n };
        Facts {
            params: pairs("param", params),
            metrics: (0..metrics as i64).map(metric).collect(),
            tags: pairs("tag", tags),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_fact_is_in_one_batch_and_no_batch_is_beyond_a_limit(
            params in 0..350_usize, metrics in 0..2_500_usize, tags in 0..250_usize, length in 0..5_000_usize,
        ) {
            let facts = facts(params, metrics, tags, length);
            prop_assert_eq!(facts.check(), Ok(()));
            let batches = facts.batches();
            for batch in &batches {
                let sent = json!({ "run_id": "0".repeat(32), "metrics": batch.metrics, "params": batch.params, "tags": batch.tags });
                prop_assert!(sent.to_string().len() <= 1_000_000);
                prop_assert!(batch.params.len() <= 100 && batch.tags.len() <= 100);
                prop_assert!((1..=1_000).contains(&(batch.metrics.len() + batch.params.len() + batch.tags.len())));
            }
            let keys = |list: fn(&Batch) -> &Vec<Value>, field: &str| -> Vec<String> {
                batches.iter().flat_map(list).map(|one| one[field].to_string()).collect()
            };
            let names = |pairs: &[(String, String)]| -> Vec<String> {
                pairs.iter().map(|(key, _)| Value::from(key.as_str()).to_string()).collect()
            };
            prop_assert_eq!(keys(|batch| &batch.params, "key"), names(&facts.params));
            prop_assert_eq!(keys(|batch| &batch.tags, "key"), names(&facts.tags));
            let steps: Vec<String> = (0..metrics).map(|step| step.to_string()).collect();
            prop_assert_eq!(keys(|batch| &batch.metrics, "step"), steps);
        }
    }

    #[test]
    fn what_a_server_refuses_is_told_before_it_is_sent() {
        let refused = |change: fn(&mut Facts)| {
            let mut facts = facts(2, 2, 2, 3);
            change(&mut facts);
            facts.check().expect_err("beyond a limit").to_string()
        };
        let told = [
            refused(|facts| facts.params[1].0 = facts.params[0].0.clone()),
            refused(|facts| facts.params[1].1 = "x".repeat(6_001)),
            refused(|facts| facts.tags[0].0 = "t".repeat(251)),
            refused(|facts| facts.metrics[1].value = f64::NAN),
            refused(|facts| facts.metrics[0].key = "../up".into()),
            refused(|facts| facts.metrics[0].key = "a\nb".into()),
            refused(|facts| facts.tags[0].0 = String::new()),
        ];
        assert_eq!(told[0], "the server would not take param 'param 0' twice");
        assert_eq!(told[1], "the server would not take param 'param 1' of 6001 bytes; at most 6000");
        assert_eq!(told[3], "the server would not take metric 'NDCG/at 20' = NaN");
        assert_eq!(told[5], "the server would not take a metric named 'a\\nb'");
    }
}
