//! What commands print: tables for people, JSON for programs.

mod accounts;
mod dlq;
mod experiments;
mod mcp;
mod migrate;
mod models;
#[cfg(test)]
#[path = "../../tests/it/page.rs"]
mod page;
#[cfg(feature = "region")]
mod region;
mod regions;
mod runs;
mod spark;

use std::{
    collections::{HashMap, HashSet},
    fmt::Display,
    io::{self, Write as _},
};

use comfy_table::{Table, presets};
use echotune_api::{CutAudit, PlatformStatus, TraceSpan};
use echotune_model::{
    ErasureReceipt, Item, ListenReceipt, Reason, ReasonKind, Recommendation, Recommendations, SimilarItem, StageChange,
};
use serde_json::{Value, json};

#[cfg(feature = "region")]
pub(crate) use self::region::{mirrors, schema, topics};
#[cfg(feature = "spark")]
pub(crate) use self::spark::{factors_imported, listens_exported};
pub(crate) use self::{
    accounts::{new_token, revoked, settings, tokens, users},
    dlq::{dead_letters, replayed},
    experiments::{experiment, experiment_begun, experiments},
    mcp::{inspection, ledgers_summed, ledgers_verified, server_added, servers, tool_result},
    migrate::migration,
    models::{drift, model_card, model_export, model_job, release, releases},
    regions::{AllMoved, all_moved, home, moves, regions},
    runs::{event_line, exported_run, run, run_with_journal, runs, workflows, write_exports},
    spark::candidates,
};
use crate::{commands::Output, import::Summary};

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(header);
    table
}

/// Prints a line. That nobody reads any more (`echotune … | head`) is an error like any other, and ends
/// the command without a word.
pub(crate) fn say(text: impl Display) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout(), "{text}")?)
}

fn print_json(value: &Value) -> anyhow::Result<()> {
    say(format_args!("{value:#}"))
}

/// A list. `traced` says whether its trace can be looked up afterwards.
pub(crate) fn recommendations(
    list: &Recommendations,
    explain: bool,
    traced: bool,
    output: Output,
) -> anyhow::Result<()> {
    let exposure = list.exposure.as_ref();
    if output == Output::Json {
        return print_json(&json!({
            "model_version": list.model_version,
            "watermark": list.watermark.0,
            "trace_id": list.trace.to_string(),
            "cold_start": list.cold_start,
            "recommendations": list.items.iter().map(item_json).collect::<Vec<_>>(),
            "experiment": exposure.map_or("", |one| &one.experiment),
            "variant": exposure.map_or("", |one| &one.variant),
            "propensity": exposure.map_or(1.0, |one| one.propensity),
            "changes": list.changes.iter().map(change_json).collect::<Vec<_>>(),
        }));
    }
    if list.items.is_empty() {
        return say(
            "Nothing to recommend: all items of this kind that are known here are in this history already, or there \
             are none. Others' histories bring new ones; --include-known ranks those that are known.",
        );
    }
    if list.cold_start {
        say("The history says too little yet; this comes from tags and from what is popular among all listeners.")?;
    }
    let mut table = table(&["#", "item", "score", "because of"]);
    for item in &list.items {
        table.add_row([
            item.rank.to_string(),
            label(&item.title, &item.artist),
            format!("{:.4}", item.score),
            because(item, explain),
        ]);
    }
    let trace = if traced { format!("  trace {}", list.trace) } else { String::new() };
    let part = exposure.map_or_else(String::new, |one| match one.variant.as_str() {
        "" => format!("  experiment {}", one.experiment),
        variant => format!("  experiment {} ({variant})", one.experiment),
    });
    say(format_args!("{table}\nmodel {}{trace}{part}", list.model_version))?;
    let changes = list.changes.iter().filter(|_| explain);
    changes.map(change_text).try_for_each(say)
}

fn change_json(change: &StageChange) -> Value {
    let StageChange { stage, item, title, artist, from_rank, to_rank } = change;
    json!({
        "stage": stage, "item_id": item.to_string(), "title": title, "artist": artist, "from_rank": from_rank,
        "to_rank": to_rank,
    })
}

fn change_text(change: &StageChange) -> String {
    let what = match (change.from_rank, change.to_rank) {
        (0, to) => format!("came in as {to}"),
        (from, 0) => format!("went out, was {from}"),
        (from, to) => format!("from {from} to {to}"),
    };
    format!("{}: {} {what}", printable(&change.stage), label(&change.title, &change.artist))
}

/// The name of an item as people write it.
pub(crate) fn label(title: &str, artist: &str) -> String {
    printable(&if title.is_empty() { artist.to_owned() } else { format!("{artist} – {title}") })
}

/// Text of others without what would steer a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Reasons shown of each item when not all are asked for.
const SHOWN_REASONS: usize = 3;

fn because(item: &Recommendation, explain: bool) -> String {
    let line = |of: &str, part: f64| format!("{part:+.4} {}", printable(of));
    let shown = if explain { usize::MAX } else { SHOWN_REASONS };
    let mut lines: Vec<String> =
        item.reasons.iter().take(shown).map(|reason| line(&said(reason), reason.contribution)).collect();
    if let Some(hidden) = item.reasons.get(shown..).filter(|hidden| !hidden.is_empty()) {
        let part = hidden.iter().map(|reason| reason.contribution).sum();
        lines.push(line("everything else", part));
    }
    if explain || item.base != 0.0 {
        lines.push(line("base", item.base));
    }
    lines.join("\n")
}

fn said(reason: &Reason) -> String {
    match reason.kind {
        ReasonKind::Listen => reason.of.clone(),
        ReasonKind::OtherListens => format!("{} listened to", reason.of),
        ReasonKind::Tag => format!("tag {}", reason.of),
        ReasonKind::Trending => "popular among all listeners".to_owned(),
        ReasonKind::Friend => format!("friend {}", reason.of),
        ReasonKind::Stage => reason.of.clone(),
    }
}

fn item_json(item: &Recommendation) -> Value {
    let reasons: Vec<Value> = item
        .reasons
        .iter()
        .map(|reason| json!({"kind": reason.kind.name(), "of": reason.of, "contribution": reason.contribution}))
        .collect();
    json!({
        "rank": item.rank, "id": item.id.to_string(), "kind": item.kind.name(), "title": item.title, "artist": item.artist,
        "score": item.score, "base": item.base, "reasons": reasons,
        "propensity": item.propensity, "drawn_from": item.drawn_from,
    })
}

/// Items nearest to one.
pub(crate) fn similar(of: &Item, items: &[SimilarItem], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        let shown = |item: &Item| {
            json!({
                "id": item.id.to_string(), "kind": item.kind.name(), "title": item.title, "artist": item.artist,
                "tags": item.tags, "listeners": item.listeners,
            })
        };
        let ranked = (1..).zip(items).map(|(rank, one): (u32, _)| {
            let mut ranked = shown(&one.item);
            (ranked["rank"], ranked["score"]) = (rank.into(), one.score.into());
            ranked
        });
        return print_json(&json!({"item": shown(of), "similar": ranked.collect::<Vec<_>>()}));
    }
    let mut table = table(&["#", "item", "score", "listeners", "tags"]);
    for (rank, SimilarItem { item, score }) in (1..).zip(items) {
        let (name, tags) = (label(&item.title, &item.artist), item.tags.join(", "));
        table.add_row([i32::to_string(&rank), name, format!("{score:.4}"), item.listeners.to_string(), tags]);
    }
    say(format_args!("Like {}:\n{table}", label(&of.title, &of.artist)))
}

/// What became of a listen, and of the list.
pub(crate) fn receipt(
    receipt: &ListenReceipt,
    before: Option<&Recommendations>,
    after: &Recommendations,
    output: Output,
) -> anyhow::Result<()> {
    let ListenReceipt { recorded, duplicates, written_at, .. } = receipt;
    let was = |id| before.and_then(|list| list.items.iter().find(|item| item.id == id)).map(|item| item.rank);
    if output == Output::Json {
        let list = after.items.iter().map(|item| {
            let mut shown = item_json(item);
            shown["was"] = was(item.id).into();
            shown
        });
        return print_json(&json!({
            "recorded": recorded, "duplicates": duplicates, "written_at": written_at.0,
            "recommendations": list.collect::<Vec<_>>(),
        }));
    }
    say(format_args!("{recorded} recorded, {duplicates} duplicate; recommended now:"))?;
    let mut table = table(&["#", "was", "item", "score"]);
    for item in &after.items {
        let was = was(item.id).map_or_else(|| "new".to_owned(), |rank| rank.to_string());
        let name = label(&item.title, &item.artist);
        table.add_row([item.rank.to_string(), was, name, format!("{:.4}", item.score)]);
    }
    say(table)
}

pub(crate) fn summary(summary: &Summary, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => print_json(&serde_json::to_value(summary)?),
        Output::Table => say(summary),
    }
}

pub(crate) fn erasure(receipt: &ErasureReceipt, output: Output) -> anyhow::Result<()> {
    let ErasureReceipt { user, erased_at, erased } = receipt;
    if output == Output::Json {
        return print_json(&json!({"user_id": user.to_string(), "erased_at": erased_at.0, "erased": erased}));
    }
    let mut table = table(&["erased", "records"]);
    for (kind, count) in erased {
        table.add_row([kind.clone(), count.to_string()]);
    }
    say(format_args!("{table}\nreceipt: user {user}, erased at {}", erased_at.0))
}

pub(crate) fn status(status: &PlatformStatus, output: Output) -> anyhow::Result<()> {
    let PlatformStatus { version, model_version, counts, addresses, model_notes, cuts } = status;
    if output == Output::Json {
        return print_json(&json!({
            "version": version, "model_version": model_version, "addresses": addresses, "counts": counts,
            "model_note": model_notes.join("; "), "cuts": cuts.iter().map(cut_json).collect::<Vec<_>>(),
        }));
    }
    let mut table = table(&["what", "count"]);
    for (name, count) in counts {
        table.add_row([name.clone(), count.to_string()]);
    }
    let served = match addresses.is_empty() {
        true => "no platform runs on this folder".to_owned(),
        false => addresses.iter().map(|(name, at)| format!("{name} on {at}")).collect::<Vec<_>>().join(", "),
    };
    let notes = model_notes.iter().map(|note| format!("\nmodel: {note}"));
    let lines = notes.chain(cuts.iter().map(cut_line)).collect::<String>();
    say(format_args!("EchoTune {version}, model {model_version}; {served}\n{table}{lines}"))
}

fn cut_json(cut: &CutAudit) -> Value {
    let CutAudit { kind, requests, listeners, recall, low, high, mass } = cut;
    json!({
        "kind": kind.name(), "requests": requests, "listeners": listeners, "recall": recall, "low": low,
        "high": high, "mass": mass,
    })
}

fn cut_line(cut: &CutAudit) -> String {
    let CutAudit { kind, requests, listeners, recall, low, high, mass } = cut;
    let (kind, of) = (kind.name(), if *requests { "who asked" } else { "sampled" });
    let [recall, low, high, mass] = [recall, low, high, mass].map(|share| share * 100.0);
    format!(
        "\nlists of 20 {kind}s for {listeners} listeners {of}: the links kept find {recall:.1} % ({low:.1} to \
         {high:.1} %) of the exact lists, and {mass:.2} % of their scores"
    )
}

pub(crate) fn trace(spans: &[TraceSpan], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        let spans: Vec<Value> = spans
            .iter()
            .map(|span| {
                json!({
                    "span_id": span.span_id, "parent_span_id": span.parent_span_id, "name": span.name,
                    "started_at_ns": span.started_at_ns, "duration_ns": span.duration_ns, "error": span.error,
                    "attributes": span.attributes,
                })
            })
            .collect();
        return print_json(&json!({ "spans": spans }));
    }
    let held: HashSet<&str> = spans.iter().map(|span| span.span_id.as_str()).collect();
    let mut children: HashMap<&str, Vec<&TraceSpan>> = HashMap::new();
    for span in spans {
        let parent = span.parent_span_id.as_str();
        // A parent that is elsewhere, or no longer held, leaves its children at the top.
        children.entry(if held.contains(parent) { parent } else { "" }).or_default().push(span);
    }
    print_spans(&children, "", 0)
}

#[expect(clippy::cast_precision_loss, reason = "durations are shown with two digits")]
fn print_spans(children: &HashMap<&str, Vec<&TraceSpan>>, of: &str, depth: usize) -> anyhow::Result<()> {
    for span in children.get(of).into_iter().flatten() {
        let error = if span.error.is_empty() { String::new() } else { format!("  error: {}", printable(&span.error)) };
        let (duration, name) = (span.duration_ns as f64 / 1e6, printable(&span.name));
        say(format_args!("{duration:>10.2} ms  {}{name}{error}", "  ".repeat(depth)))?;
        print_spans(children, &span.span_id, depth + 1)?;
    }
    Ok(())
}
