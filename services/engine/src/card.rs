//! Model cards (Mitchell et al., "Model Cards for Model Reporting", FAT* 2019) in Markdown, from facts of a fit.

use std::fmt::{Display, Write as _};

use crate::{Interactions, LinearModel};

/// A measured figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Such as `NDCG@20`.
    pub metric: String,
    /// On which part of the data, such as `validation`.
    pub part: String,
    /// The figure.
    pub value: f64,
    /// Half the width of its 95 % interval, where it is known.
    pub margin: Option<f64>,
    /// Listeners it was measured on.
    pub listeners: u64,
}

/// What was fitted, on what, how, and how good it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelCard {
    /// Name of the model.
    pub name: String,
    /// Its version.
    pub version: String,
    /// When it was fitted: RFC 3339.
    pub fitted_at: String,
    /// How long the fit took, in seconds.
    pub fit_seconds: f64,
    /// What the data is, in a sentence.
    pub data: String,
    /// Listeners it was fitted on.
    pub listeners: u64,
    /// Items of the catalogue.
    pub items: u64,
    /// Pairs of a listener and an item known to the fit.
    pub pairs: u64,
    /// Items that nobody in the data knows.
    pub unknown_items: u64,
    /// Listeners that know nothing.
    pub empty_histories: u64,
    /// Links of the sparse part.
    pub links: u64,
    /// Rank of the other part.
    pub rank: u64,
    /// Options by name, in order.
    pub options: Vec<(String, String)>,
    /// Figures, in order.
    pub figures: Vec<Figure>,
    /// Limits besides those that follow from the facts, a sentence each.
    pub limits: Vec<String>,
}

impl ModelCard {
    /// The facts that a model and its data tell by themselves; the rest is for the caller to fill in.
    pub fn of(model: &LinearModel, data: &Interactions) -> Self {
        let items = u32::try_from(model.item_count()).unwrap_or(u32::MAX);
        let count = |numbers: &mut dyn Iterator<Item = usize>| numbers.map(|number| number as u64).sum();
        let rows = || (0..data.user_count()).map(|user| data.row(user).len());
        Self {
            listeners: data.user_count() as u64,
            items: items.into(),
            pairs: count(&mut rows()),
            unknown_items: data.item_degrees().iter().filter(|degree| **degree == 0).count() as u64,
            empty_histories: rows().filter(|length| *length == 0).count() as u64,
            links: count(&mut (0..items).map(|item| model.sparse().row(item).len())),
            rank: model.rank() as u64,
            ..Self::default()
        }
    }

    /// The card as a page of Markdown. What callers filled in is told as text: it makes no headings, cells or
    /// tags of its own.
    pub fn to_markdown(&self) -> String {
        let mut page = format!("# {}\n\n", text(&self.name));
        table(
            &mut page,
            ["Fact", "Value"],
            &[
                ["Version".into(), text(&self.version)],
                ["Kind".into(), "linear: a sparse part and one of low rank".into()],
                ["Fitted at".into(), text(&self.fitted_at)],
                ["Fit time".into(), format!("{:.2} s", self.fit_seconds)],
                ["Links".into(), grouped(self.links)],
                ["Rank".into(), grouped(self.rank)],
            ],
        );
        page += "\n## Intended use\n\nRanks items for a listener by what the listener played or liked. The score of \
                 an item is a sum with one part for each past item; that part is its exact Shapley value against an \
                 empty history, and is what is told as a reason.\n\n## Data\n\n";
        if !self.data.is_empty() {
            let _ = writeln!(page, "{}\n", text(&self.data));
        }
        table(
            &mut page,
            ["Fact", "Number"],
            &[
                ["Listeners".into(), grouped(self.listeners)],
                ["Items".into(), grouped(self.items)],
                ["Pairs of a listener and an item".into(), grouped(self.pairs)],
                ["Listeners that know nothing".into(), grouped(self.empty_histories)],
                ["Items that nobody knows".into(), grouped(self.unknown_items)],
            ],
        );
        page += "\n## Options\n\n";
        let options: Vec<_> = self.options.iter().map(|(name, value)| [text(name), text(value)]).collect();
        table(&mut page, ["Option", "Value"], &options);
        page += "\n## Figures\n\n";
        let figures: Vec<_> = self.figures.iter().map(Figure::row).collect();
        table(&mut page, ["Metric", "Part", "Value", "Listeners"], &figures);
        page += "\n## Limits\n\n";
        for limit in self.known_limits().iter().chain(&self.limits) {
            let _ = writeln!(page, "- {}", text(limit));
        }
        page
    }

    /// What follows from the facts.
    fn known_limits(&self) -> Vec<String> {
        let mut limits = vec![
            "The score is no probability: it ranks the items of one list and compares nothing across listeners."
                .to_owned(),
            "What a listener played is taken as liked; the data does not say what was disliked.".to_owned(),
        ];
        if self.unknown_items > 0 {
            let share = percent(self.unknown_items, self.items);
            limits.push(format!("{share} of the items are known to nobody: the model does not recommend them."));
        }
        if self.empty_histories > 0 {
            let share = percent(self.empty_histories, self.listeners);
            limits.push(format!("{share} of the listeners have no history: their lists come from elsewhere."));
        }
        if self.figures.is_empty() {
            limits.push("Nothing was held out: how good the lists are was not measured.".to_owned());
        }
        limits
    }
}

impl Figure {
    fn row(&self) -> [String; 4] {
        let margin = self.margin.map_or_else(String::new, |margin| format!(" ± {margin:.4}"));
        [text(&self.metric), text(&self.part), format!("{:.4}{margin}", self.value), grouped(self.listeners)]
    }
}

fn table<const N: usize>(page: &mut String, head: [&str; N], rows: &[[String; N]]) {
    if rows.is_empty() {
        *page += "None.\n";
        return;
    }
    let mut line = |cells: &[&dyn Display]| {
        cells.iter().for_each(|cell| {
            let _ = write!(page, "| {cell} ");
        });
        *page += "|\n";
    };
    line(&head.each_ref().map(|cell| cell as &dyn Display));
    line(&[&"---"; N].map(|cell| cell as &dyn Display));
    // A fact that nobody filled in is no fact.
    for row in rows.iter().filter(|row| row.iter().all(|cell| !cell.is_empty())) {
        line(&row.each_ref().map(|cell| cell as &dyn Display));
    }
}

/// A text on one line, with what Markdown would take for its own escaped.
fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for letter in raw.split_whitespace().collect::<Vec<_>>().join(" ").chars() {
        if matches!(letter, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#' | '|' | '&' | '!') {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

/// Digits in threes.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[expect(clippy::cast_precision_loss, reason = "a share of counts")]
fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ItemGraph, dense::Matrix};

    fn card() -> ModelCard {
        let data = Interactions::from_rows([vec![0, 1], vec![], vec![1, 2]], 4);
        let links = [vec![(1, 1.0)], vec![(0, 1.0), (2, 1.0)], vec![], vec![]];
        let factors = || Matrix::zeros(4, 2);
        let model = LinearModel::new(ItemGraph::from_links(&links).expect("links"), factors(), factors());
        ModelCard::of(&model.expect("shapes"), &data)
    }

    #[test]
    fn a_card_tells_what_was_fitted() {
        let figure = |margin| Figure {
            metric: "NDCG@20".into(),
            part: "validation".into(),
            value: 0.159_72,
            margin,
            listeners: 29_858,
        };
        let card = ModelCard {
            name: "graph filter".into(),
            version: "7".into(),
            fitted_at: "2026-11-25T02:00:00Z".into(),
            fit_seconds: 1.239,
            options: vec![("sharpening".into(), "1.0".into())],
            figures: vec![figure(None), figure(Some(0.001))],
            limits: vec!["Fitted on one region.".into()],
            ..card()
        };
        let page = card.to_markdown();
        for line in [
            "# graph filter",
            "| Version | 7 |",
            "| Fitted at | 2026-11-25T02:00:00Z |",
            "| Fit time | 1.24 s |",
            "| Links | 3 |",
            "| Rank | 2 |",
            "| Pairs of a listener and an item | 4 |",
            "| Listeners that know nothing | 1 |",
            "| sharpening | 1.0 |",
            "| NDCG@20 | validation | 0.1597 | 29,858 |",
            "| NDCG@20 | validation | 0.1597 ± 0.0010 | 29,858 |",
            "- 25.0 % of the items are known to nobody: the model does not recommend them.",
            "- 33.3 % of the listeners have no history: their lists come from elsewhere.",
            "- Fitted on one region.",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
        assert!(!page.contains("Nothing was held out"));
    }

    #[test]
    fn what_is_not_known_is_told_and_texts_stay_texts() {
        let card = ModelCard { name: "a|b\n# c <img>".into(), ..card() };
        let page = card.to_markdown();
        assert!(page.starts_with("# a\\|b \\# c \\<img\\>\n\n| Fact | Value |\n| --- | --- |\n"), "{page}");
        assert!(page.contains("## Options\n\nNone.\n") && page.contains("## Figures\n\nNone.\n"), "{page}");
        assert!(page.contains("- Nothing was held out") && !page.contains("Fitted at"));
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
