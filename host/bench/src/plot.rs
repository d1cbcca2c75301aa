//! Curves as SVG.

use plotters::prelude::{BLUE, ChartBuilder, IntoDrawingArea as _, LineSeries, SVGBackend, WHITE};

/// Width and height, in pixels.
const SIZE: (u32, u32) = (640, 360);

/// Height of the plot relative to the highest point.
const HEADROOM: f64 = 1.15;

/// Delivery rate as a function of one quantity.
pub(super) struct Curve {
    /// Name of the quantity.
    pub(super) axis: &'static str,
    /// Values with their rates. They are drawn at equal distances, whatever their values.
    pub(super) points: Vec<(usize, f64)>,
}

/// Draws a curve; the vertical axis begins at zero.
pub(super) fn draw(curve: &Curve) -> anyhow::Result<String> {
    let mut svg = String::new();
    let top = curve.points.iter().map(|(_, rate)| *rate).fold(1.0, f64::max) * HEADROOM;
    let places = || (0_u32..).map(f64::from);
    let last = places().take(curve.points.len()).last().unwrap_or(0.0);
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(70)
            .build_cartesian_2d(-0.25..last + 0.25, 0.0..top)?;
        let label = |at: &f64| {
            let found = places().zip(&curve.points).find(|(place, _)| (place - at).abs() < 1e-6);
            found.map_or(String::new(), |(_, (point, _))| point.to_string())
        };
        let mut mesh = chart.configure_mesh();
        mesh.disable_x_mesh().x_labels(curve.points.len() + 1).x_label_formatter(&label);
        mesh.x_desc(curve.axis).y_desc("deliveries a second").draw()?;
        let line = places().zip(curve.points.iter().map(|(_, rate)| *rate));
        chart.draw_series(LineSeries::new(line, &BLUE).point_size(4))?;
        area.present()?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_its_points_and_its_labels() {
        let curve =
            Curve { axis: "jobs that wait", points: vec![(0, 4_000.0), (1_000, 3_900.0), (1_000_000, 3_800.0)] };
        let svg = draw(&curve).unwrap();
        assert_eq!(svg.matches("<circle").count(), 3, "{svg}");
        for text in ["jobs that wait", "deliveries a second", "\n0\n", "\n1000\n", "\n1000000\n"] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
    }
}
