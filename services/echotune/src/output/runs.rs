//! Runs, their journals and what they exported.

use std::{fs, path::Path};

use anyhow::Context as _;
use echotune_model::{Run, RunEvent, RunEventKind, RunState, WorkflowSummary};
use serde_json::{Value, json};

use super::{print_json, printable, say, table};
use crate::commands::Output;

/// Characters of a message at the most; longer ones are cut.
const SHOWN: usize = 160;
/// Characters of a cell at the most.
const CELL: usize = 64;

/// JSON text as JSON; what is no JSON, such as nothing at all, as text.
fn embedded(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

fn run_json(run: &Run) -> Value {
    json!({
        "id": run.id.to_string(), "workflow": run.workflow, "user": run.user, "state": run.state.name(),
        "input": embedded(&run.input), "output": embedded(&run.output), "message": run.message,
        "trace_id": run.trace.to_string(), "started_at_ms": run.started_at_ms, "ended_at_ms": run.ended_at_ms,
        "steps": run.steps, "tool_calls": run.tool_calls,
    })
}

const fn event_name(kind: RunEventKind) -> &'static str {
    match kind {
        RunEventKind::RunStarted => "run_started",
        RunEventKind::StepStarted => "step_started",
        RunEventKind::StepSucceeded => "step_succeeded",
        RunEventKind::StepRetried => "step_retried",
        RunEventKind::StepFailed => "step_failed",
        RunEventKind::ApprovalRequested => "approval_requested",
        RunEventKind::ApprovalDecided => "approval_decided",
        RunEventKind::RunEnded => "run_ended",
    }
}

fn cut(text: &str, most: usize) -> String {
    let mut cut = printable(&text.chars().take(most).collect::<String>());
    if text.chars().nth(most).is_some() {
        cut.push('…');
    }
    cut
}

/// One line about what happened.
pub(crate) fn event_line(event: &RunEvent) -> String {
    let detail = match event.kind {
        RunEventKind::StepRetried
        | RunEventKind::StepFailed
        | RunEventKind::ApprovalRequested
        | RunEventKind::ApprovalDecided => cut(&event.detail, SHOWN),
        _ => String::new(),
    };
    format!("{:>4}  {:<18} {} {detail}", event.sequence, event_name(event.kind), event.step).trim_end().to_owned()
}

fn print_run(run: &Run) -> anyhow::Result<()> {
    let Run { id, workflow, user, state, message, trace, steps, tool_calls, .. } = run;
    say(format_args!(
        "run {id}: {workflow} for {user} {}, {steps} steps, {tool_calls} tool calls  trace {trace}",
        state.name()
    ))?;
    if !message.is_empty() {
        say(printable(message))?;
    }
    match state {
        RunState::AwaitingApproval => {
            say(format_args!("decide: echotune runs approve {id}, or echotune runs reject {id}"))
        }
        _ => Ok(()),
    }
}

/// One run with its output.
pub(crate) fn run(run: &Run, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(&run_json(run));
    }
    print_run(run)?;
    match embedded(&run.output) {
        Value::Object(output) => print_output(&output),
        _ => Ok(()),
    }
}

/// Properties of an output that are files.
const FILES: [&str; 3] = ["xspf", "m3u8", "jspf"];

fn is_file(name: &str) -> bool {
    FILES.contains(&name)
}

/// Properties of an output: a list of objects as a table, files by their size, the rest as they are.
fn print_output(output: &serde_json::Map<String, Value>) -> anyhow::Result<()> {
    for (name, value) in output {
        match value {
            Value::Array(rows) if rows.iter().all(Value::is_object) && !rows.is_empty() => {
                say(format_args!("{name}:\n{}", rows_table(rows)))?;
            }
            Value::String(text) if text.lines().count() > 1 && is_file(name) => {
                say(format_args!("{name}: {} bytes, written by --export FOLDER", text.len()))?;
            }
            Value::String(text) if text.lines().count() > 1 => {
                say(format_args!("{name}:\n{}", text.lines().map(printable).collect::<Vec<_>>().join("\n")))?;
            }
            Value::String(text) => say(format_args!("{name}: {}", printable(text)))?,
            Value::Object(inner) => print_output(inner)?,
            other => say(format_args!("{name}: {other}"))?,
        }
    }
    Ok(())
}

/// Columns that come first, where there are such; the others follow by name.
const FIRST: [&str; 4] = ["rank", "title", "artist", "score"];

fn rows_table(rows: &[Value]) -> comfy_table::Table {
    let plain = |value: &Value| !value.is_object() && !value.is_array();
    let mut columns: Vec<&str> =
        rows[0].as_object().into_iter().flatten().filter(|(_, v)| plain(v)).map(|(k, _)| k.as_str()).collect();
    columns.sort_by_key(|column| FIRST.iter().position(|first| first == column).unwrap_or(FIRST.len()));
    let mut shown = table(&columns);
    for row in rows {
        shown.add_row(columns.iter().map(|column| match &row[*column] {
            Value::String(text) => cut(text, CELL),
            Value::Number(number) if number.is_f64() => format!("{:.4}", number.as_f64().unwrap_or_default()),
            other => other.to_string(),
        }));
    }
    shown
}

fn run_with_journal_json(held: &Run, journal: &[RunEvent]) -> Value {
    let events = journal.iter().map(|event| {
        json!({
            "sequence": event.sequence, "at_ms": event.at_ms, "kind": event_name(event.kind), "step": event.step,
            "detail": embedded(&event.detail),
        })
    });
    let mut shown = run_json(held);
    shown["journal"] = events.collect();
    shown
}

/// One run as a record of an export, on one line.
pub(crate) fn exported_run(held: &Run, journal: &[RunEvent]) -> anyhow::Result<()> {
    say(json!({"kind": "run", "record": run_with_journal_json(held, journal)}))
}

/// One run with everything that happened in it.
pub(crate) fn run_with_journal(held: &Run, journal: &[RunEvent], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(&run_with_journal_json(held, journal));
    }
    for event in journal {
        say(event_line(event))?;
    }
    run(held, output)
}

/// Runs, newest first.
pub(crate) fn runs(runs: &[Run], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(&json!({ "runs": runs.iter().map(run_json).collect::<Vec<_>>() }));
    }
    let mut shown = table(&["run", "workflow", "user", "state", "steps", "calls", "trace", ""]);
    for run in runs {
        let numbers =
            [run.steps.to_string(), run.tool_calls.to_string(), run.trace.to_string(), cut(&run.message, CELL)];
        let names = [run.id.to_string(), run.workflow.clone(), run.user.clone(), run.state.name().to_owned()];
        shown.add_row(names.into_iter().chain(numbers));
    }
    say(shown)
}

/// The workflows that can be run.
pub(crate) fn workflows(workflows: &[WorkflowSummary], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        let workflows = workflows.iter().map(|one| {
            json!({"name": one.name, "description": one.description, "input_schema": embedded(&one.input_schema)})
        });
        return print_json(&json!({ "workflows": workflows.collect::<Vec<_>>() }));
    }
    let mut shown = table(&["workflow", "what it does"]);
    for one in workflows {
        shown.add_row([&one.name, &one.description]);
    }
    say(shown)
}

/// Writes the playlists that a run exported, each as a file named after the run.
pub(crate) fn write_exports(run: &Run, folder: &Path) -> anyhow::Result<()> {
    let exported = embedded(&run.output);
    let found: Vec<(&str, &str)> =
        FILES.into_iter().filter_map(|format| Some((format, exported[format].as_str()?))).collect();
    anyhow::ensure!(!found.is_empty(), "run {} exported no playlist; there is nothing to write", run.id);
    fs::create_dir_all(folder).with_context(|| format!("folder {} cannot be made", folder.display()))?;
    for (format, text) in found {
        let path = folder.join(format!("{}-{}.{format}", run.workflow, run.id));
        fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}
