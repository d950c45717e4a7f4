//! Curves of reserved memory over the rate of misses, as an SVG that needs nothing besides itself.

use std::fmt::Write;

use memharvest_predictor::backtest::contest::{Contest, RATES};
use memharvest_predictor::backtest::curve::{Axis, Sweep};

const PANEL: (f64, f64) = (520.0, 400.0);
/// Room for what stands at the axes.
const LEFT: f64 = 62.0;
const BELOW: f64 = 52.0;
const ABOVE: f64 = 66.0;
const LEGEND_ROW: f64 = 20.0;
const LEGEND_COLUMNS: usize = 4;

/// Rates at the left and the right edge.
const FROM: f64 = 0.07;
const TO: f64 = 0.0008;
/// Lines across.
const LEVELS: [f64; 12] = [1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 14.0];

/// Ours stand out: these are read on light and on dark ground.
const OURS: [&str; 3] = ["#d1495b", "#e08e1b", "#2a9d8f"];
const OTHERS: [&str; 7] = ["#5b7fbf", "#8a6fbf", "#6f8f5a", "#a5764d", "#4f97a3", "#a86a90", "#808080"];
const DASHES: [&str; 3] = ["", "6 3", "2 3"];

const STYLE: &str = "<style>svg{--ink:#1c1e21;--paper:#fff;--line:#dcdfe3;font:12px system-ui,sans-serif;background:var(--paper)}\
    @media(prefers-color-scheme:dark){svg{--ink:#e6e8ea;--paper:#15171a;--line:#33373c}}\
    text{fill:var(--ink)}.t{font-size:15px;font-weight:600}.a{stroke:var(--line)}path{fill:none}.p{stroke:var(--paper)}</style>";

/// What is drawn in one row: a contest, on both axes.
pub(super) struct Drawn<'a> {
    pub(super) title: String,
    pub(super) contest: &'a Contest,
}

/// Draws the contests below each other.
pub(super) fn draw(drawn: &[Drawn<'_>]) -> String {
    let legend = drawn.first().map_or(0, |first| all(first.contest).count().div_ceil(LEGEND_COLUMNS));
    let row = ABOVE + PANEL.1 + BELOW;
    let width = 2.0 * (LEFT + PANEL.0) + 40.0;
    let height = row * count(drawn.len()) + LEGEND_ROW * count(legend) + 60.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"Memory reserved over the rate of misses\">{STYLE}\n"
    );
    for (index, drawn) in drawn.iter().enumerate() {
        let top = row * count(index);
        text(&mut svg, (LEFT, top + 26.0), "start", "t", &drawn.title);
        for (side, axis) in Axis::ALL.into_iter().enumerate() {
            panel(&mut svg, (LEFT + count(side) * (PANEL.0 + LEFT + 10.0), top + ABOVE), axis, drawn.contest);
        }
    }
    if let Some(first) = drawn.first() {
        key(&mut svg, row * count(drawn.len()) + 14.0, first.contest);
    }
    svg.push_str("</svg>\n");
    svg
}

fn all(contest: &Contest) -> impl Iterator<Item = (&Sweep, Ink)> {
    let ours = contest.ours.iter().enumerate().map(|(at, sweep)| (sweep, Ink::ours(at)));
    ours.chain(contest.others.iter().enumerate().map(|(at, sweep)| (sweep, Ink::other(at))))
}

/// How a curve is drawn.
#[derive(Clone, Copy)]
struct Ink {
    colour: &'static str,
    dashes: &'static str,
    width: f64,
}

impl Ink {
    fn ours(at: usize) -> Self {
        Self { colour: OURS[at % OURS.len()], dashes: "", width: 3.0 }
    }

    fn other(at: usize) -> Self {
        Self {
            colour: OTHERS[at % OTHERS.len()],
            dashes: DASHES[at / OTHERS.len() % DASHES.len()],
            width: 1.3,
        }
    }

    fn stroke(self) -> String {
        let Self { colour, dashes, width } = self;
        format!("stroke=\"{colour}\" stroke-width=\"{width}\" stroke-dasharray=\"{dashes}\"")
    }
}

fn panel(svg: &mut String, (left, top): (f64, f64), axis: Axis, contest: &Contest) {
    let (wide, high) = PANEL;
    let places = |sweep: &Sweep| -> Vec<(f64, f64)> {
        sweep.points.iter().filter_map(|point| point.place(axis)).filter(|(rate, _)| *rate > 0.0).collect()
    };
    let within = |rate: f64| (TO..=FROM).contains(&rate);
    let reserved = all(contest).flat_map(|(sweep, _)| places(sweep)).filter(|(rate, _)| within(*rate));
    let (mut least, mut most) = (f64::INFINITY, 1.5_f64);
    for (_, reserved) in reserved {
        least = least.min(reserved);
        most = most.max(reserved);
    }
    // What is reserved by more than this is off the page: it makes the rest unreadable.
    let (least, most) = (if least.is_finite() { least * 0.95 } else { 1.0 }, (most * 1.05).min(14.0));
    let x = |rate: f64| left + wide * (FROM / rate).ln() / (FROM / TO).ln();
    let y = |level: f64| top + high * (1.0 - (level / least).ln() / (most / least).ln());
    let id = format!("c{}-{}", left.round(), top.round());
    let _ = writeln!(
        svg,
        "<clipPath id=\"{id}\"><rect x=\"{left}\" y=\"{top}\" width=\"{wide}\" height=\"{high}\"/></clipPath>"
    );
    let title = match axis {
        Axis::Mean => "mean share of forecasts missed",
        Axis::P95Vm => "share missed on the machine at the 95th percentile",
    };
    text(svg, (left + wide / 2.0, top + high + 40.0), "middle", "", title);
    text(svg, (left, top - 10.0), "start", "", "bytes reserved for each byte needed");
    for rate in RATES {
        line(svg, (x(rate), top), (x(rate), top + high));
        let percent = format!("{} %", (rate * 1e4).round() / 1e2);
        text(svg, (x(rate), top + high + 18.0), "middle", "", &percent);
    }
    for level in LEVELS.into_iter().filter(|level| (least..=most).contains(level)) {
        line(svg, (left, y(level)), (left + wide, y(level)));
        text(svg, (left - 8.0, y(level) + 4.0), "end", "", &level.to_string());
    }
    let _ = writeln!(svg, "<g clip-path=\"url(#{id})\">");
    // Ours last, so that they lie on top.
    let mut curves: Vec<_> = all(contest).collect();
    curves.rotate_left(contest.ours.len());
    for (sweep, ink) in curves {
        let path: Vec<String> =
            places(sweep).iter().map(|(rate, level)| format!("{:.1} {:.1}", x(*rate), y(*level))).collect();
        if path.is_empty() {
            continue;
        }
        let _ = writeln!(svg, "<path d=\"M{}\" {}/>", path.join(" L"), ink.stroke());
        for point in &sweep.points {
            let Some((rate, level)) = point.place(axis).filter(|(rate, _)| within(*rate)) else { continue };
            let radius = if point.is_default { 5.5 } else { ink.width };
            let _ = writeln!(
                svg,
                "<circle class=\"p\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\" fill=\"{}\"><title>{} {}: {:.3} % missed, {level:.3} \
                 reserved</title></circle>",
                x(rate),
                y(level),
                ink.colour,
                escaped(&sweep.name),
                escaped(&point.setting),
                rate * 100.0,
            );
        }
    }
    svg.push_str("</g>\n");
}

fn key(svg: &mut String, top: f64, contest: &Contest) {
    let column = 2.0 * (LEFT + PANEL.0) / count(LEGEND_COLUMNS);
    let mut rows = 0;
    for (index, (sweep, ink)) in all(contest).enumerate() {
        rows = index / LEGEND_COLUMNS + 1;
        let (at, level) = (LEFT + column * count(index % LEGEND_COLUMNS), top + LEGEND_ROW * count(rows - 1));
        let _ = writeln!(svg, "<path d=\"M{at} {level} h34\" {}/>", ink.stroke());
        text(svg, (at + 42.0, level + 4.0), "start", "", &sweep.name);
    }
    let said = "A curve is a model with its margin (or its target) turned from low to high; a large dot is the published default. Lower is better.";
    text(svg, (LEFT, top + LEGEND_ROW * count(rows) + 14.0), "start", "", said);
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        svg,
        "<line class=\"a\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, class: &str, said: &str) {
    let said = escaped(said);
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{said}</text>"
    );
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[expect(clippy::cast_precision_loss, reason = "rows and columns of a picture")]
const fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use memharvest_predictor::backtest::curve::Point;
    use memharvest_predictor::backtest::{Tally, VmScore};

    use super::*;

    fn sweep(name: &str) -> Sweep {
        let point = |missed: u64| Point {
            setting: missed.to_string(),
            is_default: missed == 10,
            scores: vec![VmScore {
                warm: Tally { judged: 1000, missed, predicted: 200.0, needed: 100.0, ..Tally::default() },
                ..VmScore::default()
            }],
        };
        Sweep { name: name.to_owned(), points: [30, 10, 2].map(point).to_vec() }
    }

    #[test]
    fn every_curve_is_drawn_on_both_axes_and_named_once() {
        let contest = Contest { ours: vec![sweep("a<b")], others: vec![sweep("max_1h"), sweep("vpa")] };
        let svg = draw(&[Drawn { title: "used & so on".to_owned(), contest: &contest }]);
        assert_eq!(svg.matches("<path d=\"M").count(), 3 * 2 + 3);
        assert_eq!(svg.matches("r=\"5.5\"").count(), 3 * 2, "a default a curve and axis");
        assert_eq!(svg.matches(">max_1h</text>").count(), 1);
        assert!(svg.contains("used &amp; so on") && svg.contains("a&lt;b") && !svg.contains("a<b"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
