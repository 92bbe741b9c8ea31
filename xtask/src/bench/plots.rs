//! What the kernel's benchmark has measured, drawn.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, anyhow};
use plotters::{
    coord::{CoordTranslate, Shift},
    prelude::{
        BLACK, ChartBuilder, ChartContext, Color as _, DrawingArea, ErrorBar, IntoDrawingArea, IntoLogRange,
        IntoSegmentedCoord, LineSeries, PathElement, RGBColor, Rectangle, SVGBackend, SegmentValue,
        SeriesLabelPosition, Text, WHITE,
    },
};
use serde::Deserialize;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Width and height.
const SIZE: (u32, u32) = (860, 420);
/// Width of the names beside a plot.
const NAMES: u32 = 230;

type Plot = fn(&Results, &Area) -> Result<()>;

/// Told apart by those who see fewer colours as well (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// What a legend at the top takes, of the height that is drawn.
const LEGEND: f64 = 0.28;

/// Bins for each tenfold.
const BINS: f64 = 20.0;

#[derive(Deserialize)]
struct Results {
    series: Vec<Series>,
}

/// Samples of one thing in one setting.
#[derive(Deserialize)]
struct Series {
    part: String,
    what: String,
    setting: String,
    median: f64,
    quartiles: [f64; 2],
    samples: Vec<f64>,
}

impl Results {
    fn of<'a>(&'a self, part: &'a str) -> impl Iterator<Item = &'a Series> {
        self.series.iter().filter(move |series| series.part == part)
    }
}

/// Draws what is in the file of samples, each part that was measured.
pub fn draw(samples: &Path, folder: &Path) -> Result<()> {
    let text = fs::read_to_string(samples).with_context(|| samples.display().to_string())?;
    let results: Results = serde_json::from_str(&text).with_context(|| samples.display().to_string())?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let plots: [(&str, &str, Plot); 3] =
        [("latencies", "latency.svg", latency), ("run-times", "rules.svg", rules), ("costs", "price.svg", price)];
    for (part, name, plot) in plots {
        if results.of(part).next().is_some() {
            let path = folder.join(name);
            let area = SVGBackend::new(&path, SIZE).into_drawing_area();
            failed(area.fill(&WHITE))?;
            plot(&results, &area).and_then(|()| failed(area.present())).with_context(|| path.display().to_string())?;
            println!("drawn: {}", path.display());
        }
    }
    Ok(())
}

/// The library's errors hold what can't be sent to another thread.
fn failed<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<T> {
    result.map_err(|error| anyhow!("{error}"))
}

/// How often which time passed from the violation to its mitigation.
fn latency(results: &Results, area: &Area) -> Result<()> {
    // The last packet's time is one before the violation: it has no place on such an axis.
    let after = results.of("latencies").filter(|series| series.median > 0.0);
    let histograms: Vec<_> = after.map(|series| (series, histogram(&series.samples))).collect();
    let all = || histograms.iter().flat_map(|(_, histogram)| histogram);
    let (from, to) = all().fold((i32::MAX, i32::MIN), |(from, to), (bin, _)| (from.min(*bin), to.max(*bin)));
    let most = all().map(|(_, share)| *share).fold(0.0, f64::max);
    let mut chart = failed(
        begun(area, "From the violation to its mitigation")
            .build_cartesian_2d((edge(from)..edge(to + 1)).log_scale(), 0.0..most * (1.0 + LEGEND)),
    )?;
    failed(
        chart
            .configure_mesh()
            .x_desc("ns, by the kernel's clock, from the beginning of the hook's run")
            .y_desc("% of the violations")
            .x_label_formatter(&|x| format!("{x:.0}"))
            .draw(),
    )?;
    for ((series, histogram), colour) in histograms.iter().zip(COLOURS) {
        let bars = histogram.iter().map(|(bin, share)| {
            Rectangle::new([(edge(*bin), 0.0), (edge(*bin + 1), *share)], colour.mix(0.6).filled())
        });
        let title = format!("{}: median {:.1} us", series.what, series.median / 1_000.0);
        failed(chart.draw_series(bars))?.label(title).legend(move |point| key(point, colour));
    }
    legend(&mut chart, SeriesLabelPosition::UpperRight)
}

/// Percent of the samples by bin.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "thousands of samples, below 2^53 ns")]
fn histogram(samples: &[f64]) -> BTreeMap<i32, f64> {
    let mut histogram = BTreeMap::new();
    let share = 100.0 / samples.len().max(1) as f64;
    for sample in samples {
        *histogram.entry((sample.max(1.0).log10() * BINS).floor() as i32).or_default() += share;
    }
    histogram
}

/// Where a bin begins.
fn edge(bin: i32) -> f64 {
    10_f64.powf(f64::from(bin) / BINS)
}

/// A run of each program by how many rules there are.
fn rules(results: &Results, area: &Area) -> Result<()> {
    let mut curves: BTreeMap<&str, Vec<(f64, &Series)>> = BTreeMap::new();
    for series in results.of("run-times") {
        if let Some(rules) = series.setting.strip_suffix(" rules").and_then(|count| count.parse::<f64>().ok()) {
            curves.entry(&series.what).or_default().push((rules, series));
        }
    }
    // What no rule is matched at has no curve.
    curves.retain(|_, points| points.len() > 3);
    for points in curves.values_mut() {
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
    }
    let all = || curves.values().flatten();
    let most = all().map(|(_, series)| series.quartiles[1]).fold(0.0, f64::max);
    let rules = all().map(|(rules, _)| *rules).fold(10.0, f64::max);
    let mut chart = failed(
        begun(area, "A run of a program by the number of rules")
            .margin_right(NAMES)
            .build_cartesian_2d((0.9..rules * 1.1).log_scale(), 0.0..most * 1.1),
    )?;
    failed(
        chart
            .configure_mesh()
            .x_desc("rules in the governed cgroup's ruleset")
            .y_desc("ns, medians; bars: half of the rounds")
            .x_label_formatter(&|x| format!("{x:.0}"))
            .draw(),
    )?;
    for (number, (what, points)) in curves.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let line =
            LineSeries::new(points.iter().map(|(rules, series)| (*rules, series.median)), colour.stroke_width(2));
        failed(chart.draw_series(line))?;
        // Beside the plot: there is no room for so many in it.
        let at = (i32::try_from(SIZE.0 - NAMES)? + 12, 50 + 18 * i32::try_from(number)?);
        failed(area.draw(&key(at, colour)))?;
        failed(area.draw(&Text::new(short(what, ": "), (at.0 + 26, at.1 - 5), ("sans-serif", 12))))?;
        let bars = points.iter().map(|(rules, series)| {
            let [low, high] = series.quartiles;
            ErrorBar::new_vertical(*rules, low, series.median, high, colour.filled(), 6)
        });
        failed(chart.draw_series(bars))?;
    }
    Ok(())
}

/// What an operation costs more than without an enforcer.
fn price(results: &Results, area: &Area) -> Result<()> {
    let mut operations: Vec<&str> = Vec::new();
    let mut settings: Vec<&str> = Vec::new();
    for series in results.of("costs") {
        if !operations.contains(&series.what.as_str()) {
            operations.push(&series.what);
        }
        if series.setting != BASE && !settings.contains(&series.setting.as_str()) {
            settings.push(&series.setting);
        }
    }
    let bars = |setting: &str| -> Vec<Option<[f64; 3]>> {
        operations.iter().map(|what| more(results, what, setting)).collect()
    };
    let all: Vec<_> = settings.iter().map(|setting| (*setting, bars(setting))).collect();
    let ends = || all.iter().flat_map(|(_, bars)| bars.iter().flatten().flatten());
    let (least, most) = (ends().copied().fold(0.0, f64::min), ends().copied().fold(0.0, f64::max));
    let mut chart =
        failed(begun(area, "The price of an operation, over no enforcer").build_cartesian_2d(
            (0..operations.len() - 1).into_segmented(),
            least * 1.1..most + (most - least) * LEGEND,
        ))?;
    let title = |place: &SegmentValue<usize>| match place {
        SegmentValue::CenterOf(number) => operations.get(*number).map_or_else(String::new, |what| short(what, ", ")),
        _ => String::new(),
    };
    failed(
        chart
            .configure_mesh()
            .disable_x_mesh()
            .y_desc("%, medians of the rounds; bars: half of them")
            .x_labels(operations.len())
            .x_label_formatter(&title)
            .draw(),
    )?;
    let plane = chart.plotting_area().clone();
    for (number, (setting, bars)) in all.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let mut shapes = Vec::new();
        for (place, [low, middle, high]) in bars.iter().enumerate().filter_map(|(place, bar)| Some((place, (*bar)?))) {
            // Beside each other, around the middle of the segment.
            let at = |value: f64| plane.map_coordinate(&(SegmentValue::CenterOf(place), value));
            let (left, width) = (at(0.0).0 - 45 + i32::try_from(number)? * 30, 26);
            shapes.push(Rectangle::new([(left, at(0.0).1), (left + width, at(middle).1)], colour.filled()));
            shapes.push(Rectangle::new([(left + 12, at(low).1), (left + 14, at(high).1)], BLACK.filled()));
        }
        for shape in shapes {
            failed(area.draw(&shape))?;
        }
        // For the legend alone.
        let none = std::iter::empty::<Rectangle<(SegmentValue<usize>, f64)>>();
        failed(chart.draw_series(none))?.label(*setting).legend(move |point| key(point, colour));
    }
    legend(&mut chart, SeriesLabelPosition::UpperLeft)
}

/// A chart with its title, and room for what the axes say.
fn begun<'a, 'b>(area: &'a Area<'b>, title: &str) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut chart = ChartBuilder::on(area);
    chart.caption(title, ("sans-serif", 18)).margin(12).x_label_area_size(44).y_label_area_size(52);
    chart
}

/// What the colours stand for.
fn legend<'b, C: CoordTranslate>(
    chart: &mut ChartContext<'b, SVGBackend<'b>, C>,
    place: SeriesLabelPosition,
) -> Result<()> {
    let labels = &mut chart.configure_series_labels();
    failed(labels.position(place).background_style(WHITE).border_style(BLACK).draw())
}

/// The setting that others are compared with.
const BASE: &str = "no enforcer";

/// By how many percent more, each round compared with itself: lower quartile, median, upper quartile.
fn more(results: &Results, what: &str, setting: &str) -> Option<[f64; 3]> {
    let of = |setting: &str| results.of("costs").find(|series| series.what == what && series.setting == setting);
    let (value, base) = (of(setting)?, of(BASE)?);
    let rounds = value.samples.iter().zip(&base.samples);
    let mut ratios: Vec<f64> = rounds.map(|(value, base)| (value / base - 1.0) * 100.0).collect();
    ratios.sort_by(f64::total_cmp);
    let last = ratios.len().checked_sub(1)?;
    Some([last / 4, last / 2, last * 3 / 4].map(|at| ratios[at]))
}

/// `connect + accept + close on loopback, governed` is too long for a plot: the operation's first word, and the rest.
fn short(what: &str, separator: &str) -> String {
    let (operation, rest) = what.split_once(separator).unwrap_or((what, ""));
    let first = operation.split(' ').next().unwrap_or_default();
    format!("{first}{separator}{rest}")
}

/// A line of the legend begins with it.
fn key((x, y): (i32, i32), colour: RGBColor) -> PathElement<(i32, i32)> {
    PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(4))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let series = |part: &str, what: &str, setting: &str, samples: &[f64]| Series {
            part: part.into(),
            what: what.into(),
            setting: setting.into(),
            median: samples[samples.len() / 2],
            quartiles: [samples[0], samples[samples.len() - 1]],
            samples: samples.to_vec(),
        };
        let mut all = vec![
            series("latencies", "isolated bit set", "isolate", &[1_000.0, 1_100.0, 4_000.0]),
            series("costs", "open + close, governed", BASE, &[100.0, 200.0, 400.0]),
            series("costs", "open + close, governed", "all rules", &[110.0, 220.0, 600.0]),
            series("costs", "open + close, not governed", BASE, &[100.0, 200.0, 400.0]),
            series("costs", "open + close, not governed", "all rules", &[100.0, 190.0, 400.0]),
        ];
        all.extend(
            [1, 10, 27, 100]
                .map(|rules| series("run-times", "open: exit_open", &format!("{rules} rules"), &[90.0, 99.0])),
        );
        Results { series: all }
    }

    #[test]
    fn a_round_is_compared_with_itself() {
        let [low, middle, high] = more(&results(), "open + close, governed", "all rules").unwrap();
        assert!(
            (low - 10.0).abs() < 1e-9 && (middle - 10.0).abs() < 1e-9 && high < 50.0 + 1e-9,
            "{low} {middle} {high}"
        );
    }

    #[test]
    fn bins_hold_all_samples() {
        let histogram = histogram(&[1.0, 10.0, 10.1, 1_000.0]);
        assert!((histogram.values().sum::<f64>() - 100.0).abs() < 1e-9);
        assert!((histogram[&20] - 50.0).abs() < 1e-9, "{histogram:?}");
        assert!((edge(20) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn each_part_that_was_measured_is_drawn() {
        let plots: [(Plot, &str); 3] = [(latency, "<rect"), (rules, "<polyline"), (price, "<rect")];
        for (plot, mark) in plots {
            let mut svg = String::new();
            {
                let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
                plot(&results(), &area).unwrap();
                area.present().unwrap();
            }
            assert!(svg.contains(mark) && svg.contains("</svg>"), "{svg}");
        }
    }
}
