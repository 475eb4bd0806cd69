//! What is printed of training elsewhere.

use echotune_recommendations::candidate::{About, Quality};
use serde_json::{Value, json};

use super::{print_json, say, table};
use crate::commands::Output;

fn quality(of: Quality) -> Value {
    json!({ "recall_at_10": of.recall, "ndcg_at_10": of.ndcg })
}

fn described(number: u64, version: &str, about: &About) -> Value {
    json!({
        "candidate": number, "model_version": version, "kind": about.kind, "trainer": about.trainer,
        "rank": about.rank, "ridge": about.ridge, "listeners": about.listeners, "rows": about.rows,
        "watermark": about.watermark, "judged": about.judged, "quality": quality(about.quality),
        "blend": quality(about.blend),
    })
}

fn candidates_json(found: &[(u64, String, About)]) -> Value {
    let all = found.iter().map(|(number, version, about)| described(*number, version, about));
    json!({ "candidates": all.collect::<Vec<_>>() })
}

/// Candidates with their numbers and versions.
pub(crate) fn candidates(found: &[(u64, String, About)], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(&candidates_json(found));
    }
    if found.is_empty() {
        return say("No candidates; `echotune spark import` makes one.");
    }
    let mut table = table(&["#", "model", "trained by", "N@10", "the blend's", "judged by"]);
    for (number, version, about) in found {
        let score = |of: Quality| if about.judged == 0 { "–".into() } else { format!("{:.4}", of.ndcg) };
        table.add_row([
            number.to_string(),
            version.clone(),
            super::printable(&about.trainer),
            score(about.quality),
            score(about.blend),
            format!("{} listeners", about.judged),
        ]);
    }
    say(table)
}

/// What was exported.
#[cfg(feature = "spark")]
pub(crate) fn listens_exported(
    folder: &std::path::Path,
    manifest: &echotune_recommendations::spark::Manifest,
    output: Output,
) -> anyhow::Result<()> {
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    let (listeners, rows, files) = (manifest.listeners, manifest.rows, manifest.files.len());
    if output == Output::Json {
        return print_json(&json!({
            "folder": folder, "listeners": listeners, "rows": rows, "files": files, "bytes": bytes,
            "watermark": manifest.watermark,
        }));
    }
    say(format_args!("{rows} rows of {listeners} listeners in {files} files, {bytes} bytes, in {}", folder.display()))
}

/// What became of factors.
#[cfg(feature = "spark")]
pub(crate) fn factors_imported(
    imported: &echotune_recommendations::spark::Imported,
    output: Output,
) -> anyhow::Result<()> {
    let (number, about) = (imported.stored.number, &imported.about);
    if output == Output::Json {
        let mut told = described(number, &imported.version, about);
        told["vanished_items"] = imported.vanished_items.into();
        return print_json(&told);
    }
    candidates(&[(number, imported.version.clone(), about.clone())], output)?;
    if imported.vanished_items > 0 {
        say(format_args!("{} items are known no longer and were left out.", imported.vanished_items))?;
    }
    say(format_args!(
        "It does not serve; see its lists with `echotune spark recommend --candidate {number} --kind {} --user NAME`.",
        about.kind
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::page;

    #[test]
    fn json_of_candidates_has_the_shape_that_the_page_tells() {
        let about = About {
            kind: "track".into(),
            trainer: "Apache Spark 4.0.1".into(),
            rank: 64,
            ridge: 0.5,
            listeners: 1_892,
            rows: 92_834,
            watermark: 1_700_000_000_000 << 16,
            judged: 100,
            quality: Quality { recall: 0.2, ndcg: 0.25 },
            blend: Quality { recall: 0.18, ndcg: 0.22 },
        };
        page::check("spark candidates", &candidates_json(&[(1, "als-1".into(), about)]));
    }
}
