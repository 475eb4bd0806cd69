//! What a move did and found.

use serde_json::{Value, json};

use super::{print_json, printable, say, table};
use crate::{
    commands::Output,
    migrate::{LeftBehind, Mismatch, Mode, Report, Sum},
};

fn checksum(sum: Sum) -> String {
    format!("{:032x}", sum.checksum)
}

fn mismatch_json(one: &Mismatch) -> Value {
    json!({
        "user": one.user.as_str(),
        "table": one.table.name(),
        "source_rows": one.source.rows,
        "source_checksum": checksum(one.source),
        "destination_rows": one.destination.rows,
        "destination_checksum": checksum(one.destination),
        "missing": one.missing,
        "unexpected": one.unexpected,
    })
}

fn json_of(report: &Report) -> Value {
    let LeftBehind { impressions, experiments, releases, runs, unfinished_runs } = report.left_behind;
    let accounts = report.accounts.iter().map(|one| {
        json!({
            "id": one.id.to_string(),
            "name": one.name.as_str(),
            "name_there": one.name_there.as_str(),
            "was_there": one.was_there,
            "rows": one.rows,
            "verified": one.verified,
        })
    });
    let tables = report.tables.iter().map(|(name, one)| {
        json!({
            "table": name.name(),
            "source_rows": one.source.rows,
            "source_checksum": checksum(one.source),
            "destination_rows": one.destination.rows,
            "destination_checksum": checksum(one.destination),
            "written": one.written,
        })
    });
    json!({
        "mode": report.mode.name(),
        "verified": report.is_verified(),
        "accounts": accounts.collect::<Vec<_>>(),
        "accounts_made": report.accounts_made,
        "tables": tables.collect::<Vec<_>>(),
        "mismatches": report.mismatches.iter().map(mismatch_json).collect::<Vec<_>>(),
        "mismatches_not_shown": report.mismatches_not_shown,
        "friends_waiting": report.friends_waiting,
        "left_behind": {
            "impressions": impressions,
            "experiments": experiments,
            "releases": releases,
            "runs": runs,
            "unfinished_runs": unfinished_runs,
        },
    })
}

/// A report of a move.
pub(crate) fn migration(report: &Report, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(&json_of(report));
    }
    let planned = report.mode == Mode::DryRun;
    let header = ["table", "in the folder", "at the destination", "written now", "checksums"];
    let mut shown = table(if planned { &header[..2] } else { &header });
    for (name, one) in &report.tables {
        let rows = [name.name().to_owned(), one.source.rows.to_string()];
        if planned {
            shown.add_row(rows);
            continue;
        }
        let equal = if one.source == one.destination { "equal" } else { "DIFFER" };
        let [name, rows] = rows;
        // What tells two of them apart at a glance; JSON has the whole.
        let sums = format!("{equal} {:.8} {:.8}", checksum(one.source), checksum(one.destination));
        shown.add_row([name, rows, one.destination.rows.to_string(), one.written.to_string(), sums]);
    }
    say(shown)?;
    for one in &report.mismatches {
        let (user, table) = (&one.user, one.table.name());
        say(format_args!(
            "'{user}' differs in {table}: {} rows in the folder, {} at the destination",
            one.source.rows, one.destination.rows
        ))?;
        one.missing.iter().try_for_each(|row| say(format_args!("  missing:    {}", printable(row))))?;
        one.unexpected.iter().try_for_each(|row| say(format_args!("  unexpected: {}", printable(row))))?;
    }
    if report.mismatches_not_shown > 0 {
        say(format_args!("and {} more differences", report.mismatches_not_shown))?;
    }
    say(closing(report))
}

fn closing(report: &Report) -> String {
    let there = report.accounts.iter().filter(|account| account.was_there).count();
    let accounts = report.accounts.len();
    let mut lines = vec![match report.mode {
        Mode::DryRun => {
            let new = accounts - there;
            format!(
                "{accounts} accounts would move: {new} are not at the destination yet, {there} are. Nothing was written."
            )
        }
        Mode::Move => format!(
            "{accounts} accounts, of which {} were made now and {there} were there before; {} rows written.",
            report.accounts_made,
            report.rows_written()
        ),
        Mode::Verify => format!("{accounts} accounts compared, {there} of them are at the destination."),
    }];
    if report.friends_waiting > 0 {
        let waiting = report.friends_waiting;
        lines.push(format!(
            "{waiting} friendships are with accounts that are not at the destination; they come with those accounts."
        ));
    }
    let LeftBehind { impressions, experiments, releases, runs, unfinished_runs } = report.left_behind;
    lines.push(format!(
        "Left behind in the folder: {impressions} impressions, {experiments} experiments, {releases} releases, {runs} \
         runs, of which {unfinished_runs} have not ended."
    ));
    lines.join("\n")
}
