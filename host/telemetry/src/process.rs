//! The `process_*` metrics that monitoring expects of every program. They are read from `/proc` on each request; where there is no `/proc`,
//! they are left out.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Collector of the process metrics.
#[derive(Debug)]
pub(super) struct Process;

/// Resource usage of the process.
#[derive(Debug, PartialEq)]
struct Usage {
    cpu_seconds: f64,
    resident_bytes: i64,
    virtual_bytes: i64,
    threads: i64,
    open_files: i64,
    start_time: f64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(usage) = read() else { return Ok(()) };
        let cpu = ConstCounter::new(usage.cpu_seconds);
        let out = encoder.encode_descriptor(
            "process_cpu",
            "Processor time that the process used",
            Some(&Unit::Seconds),
            cpu.metric_type(),
        )?;
        cpu.encode(out)?;
        let start = ConstGauge::new(usage.start_time);
        let help = "Start time of the process, in seconds since 1970";
        start.encode(encoder.encode_descriptor(
            "process_start_time",
            help,
            Some(&Unit::Seconds),
            start.metric_type(),
        )?)?;
        for (name, help, unit, value) in [
            ("process_resident_memory", "Resident memory of the process", Some(Unit::Bytes), usage.resident_bytes),
            ("process_virtual_memory", "Virtual memory of the process", Some(Unit::Bytes), usage.virtual_bytes),
            ("process_threads", "Threads of the process", None, usage.threads),
            ("process_open_fds", "Open files and connections of the process", None, usage.open_files),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, unit.as_ref(), gauge.metric_type())?)?;
        }
        Ok(())
    }
}

/// Ticks of the kernel's clock in a second, as programs see it (`USER_HZ`): the same on all architectures in use.
const TICKS: f64 = 100.0;

/// Reads proc(5); returns `None` where there is no `/proc`.
fn read() -> Option<Usage> {
    let text = |path: &str| std::fs::read_to_string(path).ok();
    let open_files = std::fs::read_dir("/proc/self/fd").ok()?.count();
    parse(&text("/proc/self/stat")?, &text("/proc/self/status")?, &text("/proc/stat")?, open_files)
}

fn parse(stat: &str, status: &str, system: &str, open_files: usize) -> Option<Usage> {
    // The second field is the program's name in parentheses, which may hold spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // The fields are numbered from 1 in proc(5), of which two are consumed.
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let line = |text: &str, name: &str| -> Option<i64> {
        text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
    let booted_at = line(system, "btime ")? as f64;
    Some(Usage {
        cpu_seconds: (field(14)? + field(15)?) / TICKS,
        resident_bytes: line(status, "VmRSS:")? * 1024,
        virtual_bytes: line(status, "VmSize:")? * 1024,
        threads: line(status, "Threads:")?,
        open_files: i64::try_from(open_files).ok()?,
        start_time: booted_at + field(22)? / TICKS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_proc_writes_them() {
        let stat = "17 (a (b) c) S 1 17 17 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 4 0 1234 1000000 300 0";
        let status = "Name:\ta (b) c\nVmSize:\t  2048 kB\nVmRSS:\t    512 kB\nThreads:\t4\n";
        let usage = parse(stat, status, "cpu 1 2\nbtime 1795000000\n", 7).unwrap();
        assert_eq!((usage.cpu_seconds, usage.start_time), (3.0, 1_795_000_012.34));
        assert_eq!((usage.resident_bytes, usage.virtual_bytes), (512 << 10, 2 << 20));
        assert_eq!((usage.threads, usage.open_files), (4, 7));
        assert_eq!(parse("", status, "", 7), None);
    }
}
