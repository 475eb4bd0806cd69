use echotune_engine::evaluation::Metrics;
use serde_json::{Map, Value, json};

use crate::{arguments::Output, run::Run};

/// Collects runs and prints them.
pub(crate) struct Report {
    output: Output,
    dataset: String,
    /// Ascending.
    at: Vec<usize>,
    ceilings: Vec<Metrics>,
    runs: Vec<Run>,
}

/// Mean and standard deviation (of a sample; 0 for one value).
#[expect(clippy::cast_precision_loss, reason = "there are few seeds")]
fn summary(values: &[f64]) -> (f64, f64) {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, variance.sqrt())
}

/// The figures of a run by the names they are reported under.
fn figures(metrics: &Metrics) -> Vec<(String, f64)> {
    let of = |name: &str, values: &[f64]| -> Vec<(String, f64)> {
        metrics.at.iter().zip(values).map(|(k, value)| (format!("{name}@{k}"), *value)).collect()
    };
    let mut all = of("recall", &metrics.recall);
    all.extend(of("ndcg", &metrics.ndcg));
    all.extend(of("precision", &metrics.precision));
    all.push(("coverage".into(), metrics.coverage));
    all
}

impl Report {
    pub(crate) fn new(output: Output, dataset: &str, at: &[usize]) -> Self {
        let mut at = at.to_vec();
        at.sort_unstable();
        at.dedup();
        Self { output, dataset: dataset.to_owned(), at, ceilings: Vec::new(), runs: Vec::new() }
    }

    /// What no model can exceed on one split.
    pub(crate) fn ceiling(&mut self, metrics: Metrics) {
        self.ceilings.push(metrics);
    }

    /// Takes a run; in JSON it is printed at once.
    pub(crate) fn add(&mut self, run: Run) {
        if self.output == Output::Json {
            println!("{}", self.line(&run));
            if let Some([p50, p99]) = run.list {
                eprintln!("{} seed {}: one list takes {p50:.3} ms (p50), {p99:.3} ms (p99)", run.model, run.seed);
            }
        }
        self.runs.push(run);
    }

    fn line(&self, run: &Run) -> Value {
        let mut line = Map::new();
        line.insert("dataset".into(), json!(self.dataset));
        line.insert("model".into(), json!(run.model));
        line.extend(figures(&run.metrics).into_iter().map(|(name, value)| (name, json!(value))));
        line.insert("fit_s".into(), json!(run.fit));
        line.insert("users".into(), json!(run.metrics.users));
        line.insert("seed".into(), json!(run.seed));
        line.insert("chosen".into(), run.chosen.clone());
        Value::Object(line)
    }

    /// Models in the order they came, each with its runs.
    fn models(&self) -> Vec<(&str, Vec<&Run>)> {
        let mut models: Vec<(&str, Vec<&Run>)> = Vec::new();
        for run in &self.runs {
            match models.iter_mut().find(|(name, _)| *name == run.model) {
                Some((_, runs)) => runs.push(run),
                None => models.push((&run.model, vec![run])),
            }
        }
        models
    }

    /// Prints the summary.
    pub(crate) fn finish(&self) {
        let models = self.models();
        match self.output {
            Output::Json => {
                for (model, runs) in models.iter().filter(|(_, runs)| runs.len() > 1) {
                    println!("{}", self.mean_line(model, runs));
                }
                let of = |metrics: &[Metrics]| cells(metrics, &self.names());
                eprintln!("no model can exceed {} = {}", self.names().join(", "), of(&self.ceilings).join(", "));
            }
            Output::Table => self.table(&models),
        }
    }

    fn mean_line(&self, model: &str, runs: &[&Run]) -> Value {
        let described = |values: &[f64]| {
            let (mean, sd) = summary(values);
            json!({ "mean": mean, "sd": sd })
        };
        let mut line = Map::new();
        line.insert("dataset".into(), json!(self.dataset));
        line.insert("model".into(), json!(model));
        let by_run: Vec<_> = runs.iter().map(|run| figures(&run.metrics)).collect();
        for (at, (name, _)) in by_run[0].iter().enumerate() {
            let values: Vec<f64> = by_run.iter().map(|figures| figures[at].1).collect();
            line.insert(name.clone(), described(&values));
        }
        line.insert("fit_s".into(), described(&runs.iter().map(|run| run.fit).collect::<Vec<_>>()));
        #[expect(clippy::cast_precision_loss, reason = "counts of listeners")]
        let users: Vec<f64> = runs.iter().map(|run| run.metrics.users as f64).collect();
        line.insert("users".into(), described(&users));
        line.insert("seed".into(), json!("mean"));
        line.insert("chosen".into(), chosen(runs));
        Value::Object(line)
    }

    fn names(&self) -> Vec<String> {
        let of = |name: &str| self.at.iter().map(|k| format!("{name}@{k}")).collect::<Vec<_>>();
        [of("recall"), of("ndcg"), of("precision")].concat()
    }

    fn table(&self, models: &[(&str, Vec<&Run>)]) {
        let mut names = self.names();
        names.push("coverage".into());
        let mut rows = vec![[&["model".to_owned()], &names[..], &["fit s".into(), "list ms p50/p99".into()]].concat()];
        for (model, runs) in models {
            let metrics: Vec<Metrics> = runs.iter().map(|run| run.metrics.clone()).collect();
            let fit: Vec<f64> = runs.iter().map(|run| run.fit).collect();
            let list = runs.iter().filter_map(|run| run.list).collect::<Vec<_>>();
            let part = |at: usize| summary(&list.iter().map(|list| list[at]).collect::<Vec<_>>()).0;
            let list = if list.is_empty() { "-".into() } else { format!("{:.3}/{:.3}", part(0), part(1)) };
            rows.push([&[(*model).to_owned()], &cells(&metrics, &names)[..], &[cell(&fit, 2), list]].concat());
        }
        rows.push([&["(ceiling)".to_owned()], &cells(&self.ceilings, &self.names())[..]].concat());
        print_aligned(&rows);
        println!("(ceiling): lists that hold every test item, or as many as fit; no model can exceed it");
        for (model, runs) in models {
            println!("{model}: chosen on validation {}", chosen(runs));
        }
    }
}

/// What was chosen: one object when all seeds agree, otherwise one for each seed.
fn chosen(runs: &[&Run]) -> Value {
    let all: Vec<&Value> = runs.iter().map(|run| &run.chosen).collect();
    if all.windows(2).all(|pair| pair[0] == pair[1]) { all[0].clone() } else { json!(all) }
}

fn cells(metrics: &[Metrics], names: &[String]) -> Vec<String> {
    let by_seed: Vec<_> = metrics.iter().map(figures).collect();
    let of = |name: &String| {
        let found = by_seed.iter().filter_map(|one| one.iter().find(|(known, _)| known == name));
        cell(&found.map(|(_, value)| *value).collect::<Vec<_>>(), 4)
    };
    names.iter().map(of).collect()
}

fn cell(values: &[f64], digits: usize) -> String {
    let (mean, sd) = summary(values);
    if values.len() > 1 { format!("{mean:.digits$} ± {sd:.digits$}") } else { format!("{mean:.digits$}") }
}

fn print_aligned(rows: &[Vec<String>]) {
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    for row in rows {
        let padded = row.iter().enumerate().map(|(at, cell)| {
            let width = width(at).unwrap_or(0);
            if at == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        println!("{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seed: u64, value: f64) -> Run {
        let metrics = Metrics {
            at: vec![2],
            recall: vec![value],
            ndcg: vec![value / 2.0],
            precision: vec![0.25],
            coverage: 0.5,
            users: 7,
        };
        Run { model: "m".into(), seed, metrics, fit: 1.0, chosen: json!({ "rank": 3 }), list: None }
    }

    #[test]
    fn a_line_has_exactly_the_promised_keys_and_the_mean_is_that_of_the_seeds() {
        let mut report = Report::new(Output::Table, "d", &[2]);
        report.add(run(1, 0.2));
        report.add(run(2, 0.4));
        let line = report.line(&report.runs[0]);
        let keys =
            ["chosen", "coverage", "dataset", "fit_s", "model", "ndcg@2", "precision@2", "recall@2", "seed", "users"];
        let mut found: Vec<_> = line.as_object().expect("an object").keys().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!((found.as_slice(), &line["seed"], &line["users"]), (&keys[..], &json!(1), &json!(7)));
        let models = report.models();
        let mean = report.mean_line(models[0].0, &models[0].1);
        assert_eq!(mean["seed"], "mean");
        assert!((mean["recall@2"]["mean"].as_f64().expect("a number") - 0.3).abs() < 1e-12);
        assert!((mean["recall@2"]["sd"].as_f64().expect("a number") - 0.02_f64.sqrt()).abs() < 1e-12);
        assert_eq!(mean["chosen"], json!({ "rank": 3 }));
    }
}
