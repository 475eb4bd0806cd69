use serde_json::json;

use crate::arguments::Output;

/// A figure beside that of the peer.
pub(super) struct Row {
    pub(super) what: String,
    pub(super) unit: &'static str,
    pub(super) ours: f64,
    /// The peer's name and figure.
    pub(super) peer: Option<(&'static str, f64)>,
    /// What is wanted, for people.
    pub(super) wanted: &'static str,
}

/// Prints rows as they come in JSON, and all at the end as a table.
pub(super) struct Table {
    output: Output,
    rows: Vec<Row>,
}

impl Table {
    pub(super) const fn new(output: Output) -> Self {
        Self { output, rows: Vec::new() }
    }

    pub(super) fn add(&mut self, row: Row) {
        if self.output == Output::Json {
            let Row { what, unit, ours, peer, wanted } = &row;
            let ratio = peer.map(|(_, figure)| ours / figure);
            let (name, figure) = peer.unzip();
            let line = json!({
                "measure": what, "unit": unit, "ours": ours, "peer": name, "peers": figure, "ratio": ratio, "wanted": wanted,
            });
            println!("{line}");
        } else {
            eprintln!("measured: {} {} {}", row.what, short(row.ours), row.unit);
        }
        self.rows.push(row);
    }

    pub(super) fn finish(&self) {
        if self.output == Output::Json {
            return;
        }
        println!("{:<46} {:>10} {:>10} {:>7}  {:<10} peer; wanted", "measure", "ours", "peer", "ratio", "unit");
        for Row { what, unit, ours, peer, wanted } in &self.rows {
            let (name, figure) = peer.unzip();
            let ratio = figure.map_or_else(String::new, |figure| format!("{:.3}", ours / figure));
            let figure = figure.map_or_else(String::new, short);
            let name = name.unwrap_or("no peer");
            println!("{what:<46} {:>10} {figure:>10} {ratio:>7}  {unit:<10} {name}; {wanted}", short(*ours));
        }
    }
}

/// A figure in four digits.
fn short(figure: f64) -> String {
    match figure.abs() {
        size if size >= 1000.0 => format!("{figure:.0}"),
        size if size >= 100.0 => format!("{figure:.1}"),
        size if size >= 10.0 => format!("{figure:.2}"),
        size if size >= 0.001 || size == 0.0 => format!("{figure:.4}"),
        _ => format!("{figure:.1e}"),
    }
}
