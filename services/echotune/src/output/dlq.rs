//! Dead letters.

use echotune_model::{DeadLetter, ReplayReceipt};
use serde_json::json;

use super::{accounts::moment, print_json, printable, say, table};
use crate::commands::Output;

/// Dead letters with where they come from, why, when and how often they were tried.
pub(crate) fn dead_letters(letters: &[DeadLetter], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        let rows = letters.iter().map(|one| {
            json!({
                "id": one.id, "consumer": one.consumer, "topic": one.topic, "region": one.region, "stream": one.stream,
                "position": one.position, "key": one.key, "reason": one.reason, "failed_at_ms": one.failed_at_ms,
                "tries": one.tries, "trace_id": trace_of(one), "state": one.state.as_str(),
                "replayed_at_ms": one.replayed_at_ms,
            })
        });
        return print_json(&json!({"dead_letters": rows.collect::<Vec<_>>()}));
    }
    if letters.is_empty() {
        return say("There are no dead letters.");
    }
    let mut shown = table(&["id", "consumer", "region", "why", "when", "tries", "state", "trace"]);
    for one in letters {
        shown.add_row([
            printable(&one.id),
            one.consumer.clone(),
            one.region.clone(),
            printable(&one.reason),
            moment(one.failed_at_ms),
            one.tries.to_string(),
            one.state.to_string(),
            printable(trace_of(one)),
        ]);
    }
    say(shown)
}

/// The trace that a letter is part of; empty when not traced.
fn trace_of(letter: &DeadLetter) -> &str {
    letter.traceparent.split('-').nth(1).unwrap_or_default()
}

/// What was replayed.
pub(crate) fn replayed(receipt: ReplayReceipt, output: Output) -> anyhow::Result<()> {
    let ReplayReceipt { replayed, left } = receipt;
    if output == Output::Json {
        return print_json(&json!({"replayed": replayed, "left": left}));
    }
    let before = match left {
        0 => String::new(),
        left => format!("; {left} had been before, and are again with --again"),
    };
    say(format_args!("{replayed} handed to their consumers{before}"))
}
