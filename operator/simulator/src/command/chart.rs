//! Slow calls against pod-hours as SVG, both on logarithmic scales: a panel for each class.

use std::fmt::Write as _;

use super::table::digits;
use crate::study::Interval;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
/// Left, right, top and bottom of the plot within its panel.
const MARGINS: (f64, f64, f64, f64) = (64.0, 150.0, 36.0, 44.0);
/// Colours that those who see few of them tell apart (Okabe and Ito 2008).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// A policy: where it is, and how sure that is.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    name: String,
    hours: Option<Interval>,
    slow: Option<Interval>,
    /// Filled, for a policy as it is.
    filled: bool,
}

impl Mark {
    pub(super) fn new(name: String, hours: Option<Interval>, slow: Option<Interval>, filled: bool) -> Self {
        Self { name, hours, slow, filled }
    }

    fn place(&self) -> Option<(f64, f64)> {
        let (hours, slow) = (self.hours?.mean, self.slow?.mean);
        // What is 0 has no logarithm.
        (hours > 0.0 && slow > 0.0).then_some((hours, slow))
    }
}

/// The policies of one class, as named curves from the cheapest on.
#[derive(Debug, Clone)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) curves: Vec<(String, Vec<Mark>)>,
}

#[derive(Debug, Clone)]
pub(super) struct Chart {
    pub(super) panels: Vec<Panel>,
}

/// A logarithmic scale: its least and greatest value, and where they are.
#[derive(Debug, Clone, Copy)]
struct Scale {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (least, most) =
            values.fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
        if least > most {
            return Self { least: 1.0, most: 10.0, from, to };
        }
        Self { least: least / 1.25, most: most * 1.25, from, to }
    }

    fn at(self, value: f64) -> f64 {
        let along = (value.max(self.least) / self.least).ln() / (self.most / self.least).ln();
        self.from + along.min(1.0) * (self.to - self.from)
    }

    /// Round values within: 1, 2 and 5 times powers of ten.
    fn ticks(self) -> Vec<f64> {
        #[expect(clippy::cast_possible_truncation, reason = "the power of ten of a value")]
        let (first, last) = (self.least.log10().floor() as i32, self.most.log10().ceil() as i32);
        let all = (first..=last).flat_map(|power| [1.0, 2.0, 5.0].map(|times| times * 10.0_f64.powi(power)));
        all.filter(|value| (self.least..=self.most).contains(value)).collect()
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Chart {
    pub(super) fn render(&self) -> String {
        #[expect(clippy::cast_precision_loss, reason = "a few panels")]
        let height = HEIGHT * self.panels.len() as f64;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
             font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        let mut top = 0.0;
        for panel in &self.panels {
            let _ = writeln!(svg, "<g transform=\"translate(0 {top})\">");
            panel.render(&mut svg);
            svg.push_str("</g>\n");
            top += HEIGHT;
        }
        svg.push_str("</svg>");
        svg
    }
}

impl Panel {
    fn render(&self, svg: &mut String) {
        let (left, right, top, bottom) = MARGINS;
        let (right, bottom) = (WIDTH - right, HEIGHT - bottom);
        let places = || self.curves.iter().flat_map(|(_, marks)| marks.iter().filter_map(Mark::place));
        let x = Scale::over(places().map(|(hours, _)| hours), left, right);
        let y = Scale::over(places().map(|(_, slow)| slow), bottom, top);
        let title = escaped(&self.title);
        let _ = writeln!(svg, "<text x=\"{left}\" y=\"20\" font-size=\"13\">{title}</text>");
        for value in x.ticks() {
            let at = x.at(value);
            let label = digits(value).trim_end_matches('0').trim_end_matches('.').to_owned();
            let label = if value >= 1.0 { format!("{value:.0}") } else { label };
            let _ = writeln!(
                svg,
                "<path d=\"M{at:.1} {top}V{bottom}\" stroke=\"#ddd\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                bottom + 15.0
            );
        }
        for value in y.ticks() {
            let at = y.at(value);
            let _ = writeln!(
                svg,
                "<path d=\"M{left} {at:.1}H{right}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
                left - 6.0,
                at + 4.0
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">pod-hours</text>\
             <text transform=\"translate(16 {:.1}) rotate(-90)\" text-anchor=\"middle\">slow calls, %</text>",
            f64::midpoint(left, right),
            bottom + 34.0,
            f64::midpoint(top, bottom)
        );
        for (index, (name, marks)) in self.curves.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            curve(svg, marks, colour, x, y);
            #[expect(clippy::cast_precision_loss, reason = "a few curves")]
            let at = top + 14.0 + 18.0 * index as f64;
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{at:.1}\">{}</text>",
                right + 16.0,
                at - 4.0,
                right + 26.0,
                escaped(&legend(name, marks))
            );
        }
    }
}

/// The name of a curve, and how many of its marks have no place: what is 0 has no logarithm, and is told in words.
fn legend(name: &str, marks: &[Mark]) -> String {
    match (marks, marks.iter().filter(|mark| mark.place().is_none()).count()) {
        (_, 0) => name.to_owned(),
        ([Mark { hours: Some(hours), slow: Some(slow), .. }], _) => {
            format!("{name}: {} % at {} h", digits(slow.mean), digits(hours.mean))
        }
        (_, absent) => format!("{name} (and {absent} at 0)"),
    }
}

fn curve(svg: &mut String, marks: &[Mark], colour: &str, x: Scale, y: Scale) {
    let mut before: Option<(f64, f64)> = None;
    for mark in marks {
        let Some((hours, slow)) = mark.place() else { continue };
        let (at_x, at_y) = (x.at(hours), y.at(slow));
        // From the cheapest on a frontier falls; what is off it comes last and is not joined.
        if let Some((from_x, from_y)) = before.filter(|(from_x, from_y)| at_x >= *from_x && at_y >= *from_y) {
            let _ = writeln!(
                svg,
                "<path d=\"M{from_x:.1} {from_y:.1}L{at_x:.1} {at_y:.1}\" stroke=\"{colour}\" stroke-width=\"1.5\"/>"
            );
        }
        before = Some((at_x, at_y));
        let half = |interval: Option<Interval>| interval.and_then(|interval| interval.half).unwrap_or(0.0);
        let (half_x, half_y) = (half(mark.hours), half(mark.slow));
        let _ = writeln!(
            svg,
            "<path d=\"M{:.1} {at_y:.1}H{:.1}M{at_x:.1} {:.1}V{:.1}\" stroke=\"{colour}\"/>\
             <circle cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" r=\"4\" fill=\"{}\" stroke=\"{colour}\">\
             <title>{}: {} pod-hours, {} % slow</title></circle>",
            x.at(hours - half_x),
            x.at(hours + half_x),
            y.at(slow - half_y),
            y.at(slow + half_y),
            if mark.filled { colour } else { "white" },
            escaped(&mark.name),
            digits(hours),
            digits(slow)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(hours: f64, slow: f64) -> Mark {
        let exact = |mean| Some(Interval { mean, half: None });
        Mark::new("hpa".into(), exact(hours), exact(slow), true)
    }

    #[test]
    fn what_has_no_place_on_the_chart_is_told_beside_it() {
        assert_eq!(legend("hpa", &[mark(5.7, 0.25)]), "hpa");
        assert_eq!(legend("hpa", &[mark(5.7, 0.0)]), "hpa: 0.00 % at 5.70 h");
        assert_eq!(legend("hpa", &[mark(5.7, 0.0), mark(3.0, 1.0)]), "hpa (and 1 at 0)");
        let panel = Panel { title: "rare".into(), curves: vec![("hpa".into(), vec![mark(5.7, 0.0)])] };
        assert!(Chart { panels: vec![panel] }.render().contains("hpa: 0.00 % at 5.70 h"));
    }
}
