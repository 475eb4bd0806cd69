//! Tables and numbers for people.

use comfy_table::{CellAlignment, Table, presets};

use crate::study::Interval;

pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A number with three digits that count.
pub(super) fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.9995 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A mean and half the width of its interval.
pub(super) fn told(interval: Option<Interval>) -> String {
    match interval {
        None => "–".into(),
        Some(Interval { mean, half: None }) => digits(mean),
        Some(Interval { mean, half: Some(half) }) => format!("{} ± {}", digits(mean), digits(half)),
    }
}

/// The same of a difference, with its sign.
pub(super) fn difference(interval: Option<Interval>) -> String {
    let sign = interval.map_or("", |interval| if interval.mean > 0.0 { "+" } else { "" });
    format!("{sign}{}", told(interval))
}
