//! Curves of the delivery rate over the number of waiting jobs, the number of groups, the size of payloads and the number of nodes: the same
//! workload at several points of each axis.

use std::path::Path;

use anyhow::Context as _;

use super::plot::{Curve, draw};
use super::sink::Sink;
use super::{Bench, Row};

/// Axis: the quantity that is varied, and the points at which it is measured.
struct Axis {
    /// Name of the plot's file, and the beginning of each row's name.
    name: &'static str,
    /// Label below the plot.
    label: &'static str,
    points: &'static [usize],
    at: fn(&Bench, usize) -> Point,
}

/// Benchmark at a point, and the number of groups over which it delivers.
struct Point {
    bench: Bench,
    groups: usize,
}

const AXES: [Axis; 4] = [
    Axis {
        name: "waiting",
        label: "jobs that wait for another day",
        points: &[0, 1_000, 10_000, 100_000, 1_000_000],
        at: |bench, waiting| Point { bench: Bench { waiting, ..bench.clone() }, groups: 1 },
    },
    Axis {
        name: "groups",
        label: "groups",
        points: &[1, 10, 100, 1_000],
        at: |bench, groups| Point { bench: bench.clone(), groups },
    },
    Axis {
        name: "payload",
        label: "bytes of a payload",
        points: &[64, 256, 1_024, 4_096, 16_384, 65_536],
        at: |bench, payload_bytes| Point { bench: Bench { payload_bytes, ..bench.clone() }, groups: 1 },
    },
    Axis {
        name: "nodes",
        label: "nodes that share a database and this machine",
        points: &[1, 2, 3],
        at: |bench, nodes| Point { bench: Bench { nodes, ..bench.clone() }, groups: 1 },
    },
];

impl Bench {
    /// Measures all axes; that of nodes only if there is a database to share.
    pub(super) async fn growth(&self, sink: &Sink) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        let is_possible = |axis: &&Axis| axis.name != "nodes" || self.store.is_some();
        for axis in AXES.iter().filter(is_possible) {
            let mut curve = Curve { axis: axis.label, points: Vec::new() };
            for point in axis.points {
                let Point { bench, groups } = (axis.at)(self, *point);
                let elapsed = bench.delivered_over(groups, sink).await?;
                let row = Row::new(&format!("growth: {} {point}", axis.name)).rate(bench.jobs, elapsed);
                curve.points.push((*point, row.per_second()));
                rows.push(row);
            }
            if let Some(directory) = &self.plots {
                save(directory, axis.name, &curve)?;
            }
        }
        Ok(rows)
    }
}

fn save(directory: &Path, name: &str, curve: &Curve) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("{} cannot be created", directory.display()))?;
    let path = directory.join(name).with_extension("svg");
    std::fs::write(&path, draw(curve)?).with_context(|| format!("{} cannot be written", path.display()))
}
