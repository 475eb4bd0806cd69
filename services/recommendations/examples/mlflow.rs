//! Tells a tracking server of the model that `cargo run -p echotune-engine --example export` wrote to a
//! folder, twice, and what it told: `recorded.json` there, for others to compare with what the server has.

use std::{env, fs, path::Path};

use anyhow::{Context as _, ensure};
use echotune_recommendations::mlflow::{
    Artefact, Facts, Fit, Metric, Mlflow, MlflowConfig, MlflowError, Registration, onnx_flavour,
};
use serde_json::{Value, json};

const EXPERIMENT: &str = "EchoTune: weekly fits";
const MODEL: &str = "echotune";
const ALIAS: &str = "champion";
/// More params and metrics than one batch takes.
const PARAMS: usize = 230;
const STEPS: i64 = 2_500;
const START_MS: i64 = 1_764_000_000_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [url, folder] = arguments.as_slice() else { anyhow::bail!("usage: mlflow URL FOLDER") };
    let folder = Path::new(folder);
    let mlflow = Mlflow::new(MlflowConfig { url: url.clone(), ..MlflowConfig::default() })?;
    let mut recorded = Vec::new();
    ensure!(mlflow.version_of(MODEL, ALIAS).await?.is_none(), "the server is new");
    for round in 1..=2 {
        let fit = fit(folder, round)?;
        let done = mlflow.record(&fit).await?;
        let version = done.version.context("a version was asked for")?;
        ensure!(mlflow.version_of(MODEL, ALIAS).await?.as_deref() == Some(version.as_str()), "the alias has moved");
        recorded.push(told(&fit, &done.run.id, &version));
    }
    let failed = failed(&mlflow, folder).await?;
    let all = json!({ "experiment": EXPERIMENT, "model": MODEL, "alias": ALIAS, "fits": recorded, "failed": failed });
    fs::write(folder.join("recorded.json"), all.to_string())?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "few steps")]
fn fit(folder: &Path, round: i64) -> anyhow::Result<Fit> {
    let file = |path: &str, from: &str| -> anyhow::Result<Artefact> {
        let bytes = fs::read(folder.join(from)).with_context(|| format!("{from}: run the example `export` first"))?;
        Ok(Artefact { path: path.to_owned(), bytes })
    };
    let started_ms = START_MS + round * 1_000_000;
    let metric = |step: i64| Metric {
        key: "loss".to_owned(),
        value: 1.0 / (step + round) as f64,
        at_ms: started_ms + step,
        step,
    };
    let ndcg = Metric {
        key: "validation/NDCG at 20".to_owned(),
        value: 0.15 + round as f64 / 100.0,
        at_ms: started_ms,
        step: 0,
    };
    let params = (0..PARAMS).map(|n| (format!("option.{n:03}"), format!("value \"{n}\" – of {round}"))).collect();
    Ok(Fit {
        experiment: EXPERIMENT.to_owned(),
        name: format!("fit {round}"),
        started_ms,
        ended_ms: started_ms + 5_000,
        facts: Facts {
            params,
            metrics: (0..STEPS).map(metric).chain([ndcg]).collect(),
            tags: vec![("region".to_owned(), "eu-west".to_owned())],
        },
        artefacts: vec![
            file("MODEL_CARD.md", "MODEL_CARD.md")?,
            file("model/linear.onnx", "linear.onnx")?,
            file("model/linear.model", "linear.model")?,
            Artefact { path: "model/MLmodel".to_owned(), bytes: onnx_flavour("linear.onnx").into_bytes() },
        ],
        registration: Some(Registration {
            model: MODEL.to_owned(),
            folder: "model".to_owned(),
            alias: ALIAS.to_owned(),
            tags: vec![("kind".to_owned(), "linear".to_owned())],
        }),
    })
}

/// A fit with a file that no server takes: its run is there, failed, and no version is.
async fn failed(mlflow: &Mlflow, folder: &Path) -> anyhow::Result<Value> {
    let mut fit = Fit { name: "fit that fails".to_owned(), ..fit(folder, 3)? };
    fit.artefacts.push(Artefact { path: "../outside".to_owned(), bytes: Vec::new() });
    let error = mlflow.record(&fit).await.err().context("the path leads out of the run")?;
    ensure!(matches!(error, MlflowError::Limit { .. }), "{error}");
    Ok(json!({ "name": fit.name }))
}

fn told(fit: &Fit, run: &str, version: &str) -> Value {
    let metrics: Vec<Value> = fit
        .facts
        .metrics
        .iter()
        .map(|one| json!({ "key": one.key, "value": one.value, "step": one.step, "at_ms": one.at_ms }))
        .collect();
    json!({
        "run": run,
        "version": version,
        "name": fit.name,
        "started_ms": fit.started_ms,
        "ended_ms": fit.ended_ms,
        "params": fit.facts.params,
        "metrics": metrics,
        "tags": fit.facts.tags,
        "files": fit.artefacts.iter().map(|file| (file.path.clone(), file.bytes.len())).collect::<Vec<_>>(),
    })
}
