//! The chart of a boot as a picture.

use std::fmt::Write;

use super::boot::{Chart, Phase, Row};

/// The picture's measures, in pixels.
const NAMES: u64 = 180;
const BARS: u64 = 900;
const SAYS: u64 = 320;
const ROW: u64 = 22;
const TOP: u64 = 72;

/// How many lines with times there are at most.
const TICKS_MAX: u64 = 12;
/// How far they may be apart, in milliseconds.
const STEPS: &[u64] =
    &[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 300_000];

const STYLE: &str = "text{font:13px sans-serif;fill:#222}.title{font-size:15px}.time{font-size:11px;fill:#777}\
                     .tick{stroke:#ddd}.queued{fill:#d9d9d9}.starting{fill:#e8a33d}.ready{fill:#4c9a62}";

/// The chart in SVG.
pub fn picture(chart: &Chart) -> String {
    let rows = u64::try_from(chart.rows.len()).unwrap_or(u64::MAX);
    let (width, bottom) = (NAMES + BARS + SAYS, TOP + rows.saturating_mul(ROW));
    let height = bottom + 2 * ROW;
    let mut svg = Svg(String::new());
    svg.line(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">"
    ));
    svg.line(format_args!("<style>{STYLE}</style>"));
    svg.line(format_args!("<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>"));
    for (line, y) in chart.title.lines().zip([20, 40]) {
        svg.line(format_args!("<text class=\"title\" x=\"10\" y=\"{y}\">{}</text>", escaped(line)));
    }
    ticks(&mut svg, chart, bottom);
    for (row, y) in chart.rows.iter().zip((TOP..).step_by(22)) {
        bar(&mut svg, chart, row, y);
    }
    let mut x = NAMES;
    for phase in Phase::ALL {
        let (word, y) = (phase.word(), bottom + ROW / 2);
        svg.line(format_args!("<rect class=\"{word}\" x=\"{x}\" y=\"{y}\" width=\"14\" height=\"14\"/>"));
        svg.line(format_args!("<text x=\"{}\" y=\"{}\">{word}</text>", x + 20, y + 12));
        x += 100;
    }
    svg.line(format_args!("</svg>"));
    svg.0
}

/// Lines from top to bottom, each with its time.
fn ticks(svg: &mut Svg, chart: &Chart, bottom: u64) {
    let end_ms = chart.end_ns / 1_000_000;
    let step = STEPS.iter().copied().find(|step| end_ms / step < TICKS_MAX).unwrap_or(end_ms / TICKS_MAX);
    for milliseconds in (0..=end_ms).step_by(usize::try_from(step.max(1)).unwrap_or(usize::MAX)) {
        let x = place(chart, milliseconds * 1_000_000);
        svg.line(format_args!("<line class=\"tick\" x1=\"{x}\" y1=\"{TOP}\" x2=\"{x}\" y2=\"{bottom}\"/>"));
        let (whole, rest) = (milliseconds / 1000, milliseconds % 1000);
        let label = format!("{whole}.{rest:03}");
        let label = label.trim_end_matches('0').trim_end_matches('.');
        svg.line(format_args!(
            "<text class=\"time\" x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{label} s</text>",
            TOP - 6
        ));
    }
}

fn bar(svg: &mut Svg, chart: &Chart, row: &Row, y: u64) {
    let baseline = y + 15;
    let name = escaped(&row.name);
    svg.line(format_args!("<text x=\"{}\" y=\"{baseline}\" text-anchor=\"end\">{name}</text>", NAMES - 10));
    for (phase, from, to) in &row.spans {
        let (x, end) = (place(chart, *from), place(chart, *to));
        // However short, it is there.
        let width = end.saturating_sub(x).max(1);
        let (word, y) = (phase.word(), y + 3);
        svg.line(format_args!(
            "<rect class=\"{word}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"16\"/>"
        ));
    }
    let (x, says) = (NAMES + BARS + 10, escaped(&row.says));
    svg.line(format_args!("<text x=\"{x}\" y=\"{baseline}\">{says}</text>"));
}

/// Where a moment is, from the left.
fn place(chart: &Chart, moment: u64) -> u64 {
    let x = u128::from(moment.min(chart.end_ns)) * u128::from(BARS) / u128::from(chart.end_ns);
    NAMES + u64::try_from(x).unwrap_or(BARS)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

struct Svg(String);

impl Svg {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let (Ok(()) | Err(std::fmt::Error)) = writeln!(self.0, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::boot::tests::shop;
    use super::*;

    #[test]
    fn a_picture_has_what_the_chart_has() {
        insta::assert_snapshot!(picture(&shop()));
    }

    #[test]
    fn no_text_of_the_machine_becomes_markup() {
        let mut chart = shop();
        chart.rows[3].says = "ended by <script> & \"quotes\"".to_owned();
        let picture = picture(&chart);
        assert!(picture.contains("ended by &lt;script&gt; &amp; &quot;quotes&quot;"), "{picture}");
    }

    #[test]
    fn a_boot_of_any_length_has_a_few_lines_with_times() {
        for end_ns in [1, 1_000_000, 4_000_000_000, 86_400_000_000_000, u64::MAX] {
            let count = picture(&Chart { end_ns, ..shop() }).matches("class=\"tick\"").count();
            assert!((1..=20).contains(&count), "{count} for {end_ns}");
        }
    }
}
