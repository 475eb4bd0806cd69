//! MCP servers: the catalogue, what a server was found to be, and entries of calls.

use std::{path::PathBuf, time::Duration};

use echotune_gateway::{
    catalogue::{EgressPolicy, HowVerified, Launch, Runtime, runtime},
    metering::{Column, Report, Row, Sums},
};
use rmcp::model::CallToolResult;
use serde_json::{Value, json};

use super::{print_json, printable, say, table};
use crate::commands::{
    Output,
    mcp::{Added, Inspection, Shelved},
};

/// Characters of a description in a table.
const SHOWN_CHARS: usize = 60;

/// Milliseconds with three digits.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut shown: String = printable(&line).chars().take(SHOWN_CHARS).collect();
    if line.chars().count() > SHOWN_CHARS {
        shown.push('…');
    }
    shown
}

fn egress(of: &Runtime) -> &'static str {
    match of.egress.policy {
        EgressPolicy::None => "none",
        EgressPolicy::Hosts => "hosts",
        EgressPolicy::Any => "any",
    }
}

fn verified(of: &Runtime) -> &'static str {
    match of.verified.how {
        HowVerified::Run => "run",
        HowVerified::Documentation => "documentation",
        HowVerified::Claimed => "claimed",
    }
}

fn transport(entry: &Shelved) -> &'static str {
    Launch::of(&entry.server).map_or("none", |launch| launch.transport())
}

/// Servers of the platform and of the catalogue.
pub(crate) fn servers(entries: &[Shelved], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        let rows = entries.iter().map(|entry| {
            let of = runtime(&entry.server);
            json!({
                "name": entry.called(), "description": entry.text("description"), "full_name": entry.text("name"),
                "version": entry.text("version"), "title": entry.text("title"), "status": entry.status,
                "transport": transport(entry), "tools": of.effects.len(), "egress": egress(&of),
                "verified": verified(&of), "is_ours": entry.is_ours(),
            })
        });
        return print_json(&json!({"servers": rows.collect::<Vec<_>>()}));
    }
    if entries.is_empty() {
        return say("No server of the catalogue has that in its name, title or description.");
    }
    let mut shown = table(&["server", "version", "starts by", "tools", "connects to", "what it does"]);
    for entry in entries {
        let of = runtime(&entry.server);
        shown.add_row([
            printable(entry.called()),
            printable(entry.text("version")),
            transport(entry).to_owned(),
            of.effects.len().to_string(),
            egress(&of).to_owned(),
            printable(entry.text("description")),
        ]);
    }
    say(shown)
}

/// A server that was put into a configuration.
pub(crate) fn server_added(added: &Added, output: Output) -> anyhow::Result<()> {
    let Added { entry, table, text, config, settings } = added;
    if output == Output::Json {
        let config = config.as_ref().map(|path| path.display().to_string());
        return print_json(&json!({
            "server": entry.text("name"), "version": entry.text("version"), "name": table.name,
            "config": config.unwrap_or_default(), "table": text,
            "settings": settings.iter().map(|setting| &setting.name).collect::<Vec<_>>(),
        }));
    }
    let Some(config) = config else { return say(text.trim_end()) };
    let open = settings.iter().filter(|setting| setting.default.is_none() && !setting.is_required);
    let open: Vec<_> = open.map(|setting| setting.name.as_str()).collect();
    let more = if open.is_empty() { String::new() } else { format!("\nmay be set too: {}", open.join(", ")) };
    say(format_args!(
        "{} {} is '{}' in {}{more}",
        entry.text("name"),
        entry.text("version"),
        table.name,
        config.display()
    ))
}

/// What a server was found to be.
pub(crate) fn inspection(found: &Inspection, output: Output) -> anyhow::Result<()> {
    let Inspection { about, transport, connected, listed, tools, missing } = found;
    if output == Output::Json {
        let tools = tools.iter().map(|tool| {
            json!({
                "name": tool.name, "description": tool.description, "effect": tool.effect, "effect_by": tool.by,
            })
        });
        return print_json(&json!({
            "server": {"name": about.name, "version": about.version, "title": about.title},
            "revision": about.revision, "transport": transport, "capabilities": about.capabilities,
            "instructions": about.instructions, "connected_ms": millis(*connected), "listed_ms": millis(*listed),
            "tools": tools.collect::<Vec<_>>(), "missing_tools": missing,
        }));
    }
    let title = if about.title.is_empty() { &about.name } else { &about.title };
    say(format_args!(
        "{} ({} {}), revision {}, by {transport}: {}\nconnected in {:.1} ms, tools listed in {:.1} ms",
        printable(title),
        printable(&about.name),
        printable(&about.version),
        printable(&about.revision),
        printable(&about.capabilities.join(", ")),
        millis(*connected),
        millis(*listed),
    ))?;
    let mut shown = table(&["tool", "changes", "says who", "what it does"]);
    for tool in tools {
        let row = [printable(&tool.name), tool.effect.clone(), tool.by.to_owned(), shortened(&tool.description)];
        shown.add_row(row);
    }
    say(shown)?;
    if !missing.is_empty() {
        say(format_args!("declared, and not there: {}", printable(&missing.join(", "))))?;
    }
    Ok(())
}

/// What a tool gave.
pub(crate) fn tool_result(tool: &str, result: &CallToolResult, took: Duration, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(&json!({
            "tool": tool, "is_error": result.is_error == Some(true), "content": result.content,
            "structured": result.structured_content, "took_ms": millis(took),
        }));
    }
    if let Some(structured) = &result.structured_content {
        return say(format_args!("{structured:#}"));
    }
    for block in &result.content {
        match block.as_text() {
            // Lines are the tool's own; what would steer a terminal is not shown.
            Some(text) => say(text.text.lines().map(printable).collect::<Vec<_>>().join("\n"))?,
            None => say(format_args!("{:#}", serde_json::to_value(block)?))?,
        }
    }
    Ok(())
}

/// What ledgers were found to be.
pub(crate) fn ledgers_verified(reports: &[(PathBuf, Report)], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        let rows = reports.iter().map(|(folder, report)| {
            let mut row = serde_json::to_value(report)?;
            row["path"] = Value::String(folder.display().to_string());
            row["is_whole"] = report.is_whole().into();
            Ok(row)
        });
        return print_json(&json!({"ledgers": rows.collect::<anyhow::Result<Vec<_>>>()?}));
    }
    let mut shown = table(&["ledger", "files", "lines", "calls", "lost", "head", "is"]);
    for (folder, report) in reports {
        let Report { files, lines, calls, lost, head_sequence, head, .. } = report;
        let is = if report.is_whole() { "whole" } else { "not whole" };
        shown.add_row([
            folder.display().to_string(),
            files.to_string(),
            lines.to_string(),
            calls.to_string(),
            lost.to_string(),
            format!("{head_sequence}:{head}"),
            is.to_owned(),
        ]);
    }
    say(shown)?;
    let faults = reports.iter().flat_map(|(_, report)| &report.faults);
    faults.map(|fault| printable(&fault.to_string())).try_for_each(say)
}

/// An amount of millionths, with two digits at the least.
fn amount(micros: u64, currency: &str) -> String {
    let (whole, rest) = (micros / 1_000_000, format!("{:06}", micros % 1_000_000));
    let digits = rest.trim_end_matches('0').len().max(2);
    let shown = format!("{whole}.{} {currency}", &rest[..digits]);
    if currency.is_empty() { "–".to_owned() } else { shown }
}

/// What ledgers add up to.
pub(crate) fn ledgers_summed(sums: &Sums, by: &[Column], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(&serde_json::to_value(sums)?);
    }
    let names: Vec<_> = by.iter().map(|column| column.name()).collect();
    let mut shown = table(&[&names[..], &["calls", "done", "units", "amount", "publisher", "platform"]].concat());
    for Row { by, currency, calls, done, units, amount_micros, publisher_micros, platform_micros, .. } in &sums.rows {
        let values = names.iter().map(|name| match by.get(name).map(String::as_str) {
            None | Some("") => "–".to_owned(),
            Some(value) => printable(value),
        });
        let counts = [calls, done, units].map(u64::to_string);
        let amounts = [amount_micros, publisher_micros, platform_micros].map(|micros| amount(*micros, currency));
        shown.add_row(values.chain(counts).chain(amounts).collect::<Vec<_>>());
    }
    say(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_the_digits_that_they_need() {
        assert_eq!(amount(1_500_000, "EUR"), "1.50 EUR");
        assert_eq!(amount(25, "USD"), "0.000025 USD");
        assert_eq!(amount(0, "USD"), "0.00 USD");
        assert_eq!(amount(0, ""), "–");
    }
}
