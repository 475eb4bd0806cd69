use std::fmt::Write as _;

/// One curve in a panel of its own.
pub(super) struct Curve {
    pub(super) name: &'static str,
    /// (across, up), none below 0.
    pub(super) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 240.0;
const MARGIN: f64 = 56.0;

/// The curves beside each other, both axes from 0.
pub(super) fn svg(across: &str, curves: &[Curve]) -> String {
    let step = WIDTH + 2.0 * MARGIN;
    let panels = (0_u32..).zip(curves).fold(String::new(), |mut all, (at, curve)| {
        let _ = write!(all, "<g transform=\"translate({} {MARGIN})\">", f64::from(at) * step + MARGIN);
        all.push_str(&panel(across, curve));
        all.push_str("</g>\n");
        all
    });
    let count = u32::try_from(curves.len()).expect("few curves");
    let (width, height) = (f64::from(count) * step, HEIGHT + 2.0 * MARGIN);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{panels}</svg>\n"
    )
}

fn panel(across: &str, curve: &Curve) -> String {
    let largest = |of: fn(&(f64, f64)) -> f64| round_up(curve.points.iter().map(of).fold(0.0, f64::max));
    let (right, top) = (largest(|point| point.0), largest(|point| point.1));
    let place = |(x, y): &(f64, f64)| (x / right * WIDTH, HEIGHT - y / top * HEIGHT);
    let mut out = format!("<text y=\"-12\">{}</text>", curve.name);
    for part in 0..=4_u32 {
        let share = f64::from(part) / 4.0;
        let (x, y) = (share * WIDTH, HEIGHT - share * HEIGHT);
        let _ = write!(out, "<path d=\"M0 {y:.1}H{WIDTH}\" stroke=\"#ddd\"/>");
        let _ = write!(out, "<text x=\"-6\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", y + 4.0, share * top);
        let _ =
            write!(out, "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>", HEIGHT + 18.0, share * right);
    }
    let _ = write!(out, "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{across}</text>", WIDTH / 2.0, HEIGHT + 38.0);
    let line: Vec<String> = curve.points.iter().map(place).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ =
        write!(out, "<polyline points=\"{}\" fill=\"none\" stroke=\"#1f77b4\" stroke-width=\"2\"/>", line.join(" "));
    for (x, y) in curve.points.iter().map(place) {
        let _ = write!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"#1f77b4\"/>");
    }
    out
}

/// The next of 1, 2, 4 or 8 times a power of ten, whose quarters are short; 1 for 0.
fn round_up(x: f64) -> f64 {
    if x <= 0.0 || !x.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(x.log10().floor());
    [1.0, 2.0, 4.0, 8.0].into_iter().map(|step| step * power).find(|top| *top >= x).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_short_numbers() {
        let ends = [0.0, 0.3, 1.0, 3.0, 8.1, 90.0, 100.0, 1_234.0].map(round_up);
        assert_eq!(ends, [1.0, 0.4, 1.0, 4.0, 10.0, 100.0, 100.0, 2_000.0]);
    }

    #[test]
    fn a_point_lies_where_its_share_of_the_axes_is() {
        let drawn = svg("listens", &[Curve { name: "time", points: vec![(0.0, 0.0), (50.0, 2.0), (100.0, 4.0)] }]);
        assert!(drawn.contains("points=\"0.0,240.0 180.0,120.0 360.0,0.0\""), "{drawn}");
        assert_eq!(drawn.matches("<circle").count(), 3);
    }
}
