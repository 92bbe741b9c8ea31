//! What processes use, and what the API server counts.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use kube::Client;

/// Clock ticks of a second in `/proc`: the same on every Linux that matters.
const TICKS: u32 = 100;

/// Processor time of a process, all threads, so far.
pub fn processor(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).context(path)?;
    let (_, fields) = stat.rsplit_once(") ").context("no name in it")?;
    // Fields 14 and 15, of which the name was the second.
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u32>).sum::<Result<u32, _>>()?;
    Ok(Duration::from_secs(1) * ticks / TICKS)
}

/// Memory of a process, in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Resident, every mapping of every page.
    pub resident: f64,
    /// The same, every page by the number of places that it is mapped at.
    pub proportional: f64,
    /// The most that was ever resident.
    pub peak: f64,
}

impl Memory {
    /// Of a process.
    pub fn of(pid: u32) -> Result<Self> {
        let read = |file: &str, key: &str| -> Result<f64> {
            let path = format!("/proc/{pid}/{file}");
            let text = fs::read_to_string(&path).with_context(|| path.clone())?;
            let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            let value = value.with_context(|| format!("no {key} in {path}"))?;
            Ok(value.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
        };
        Ok(Self {
            resident: read("smaps_rollup", "Rss")?,
            proportional: read("smaps_rollup", "Pss")?,
            peak: read("status", "VmHWM")?,
        })
    }
}

/// The sum of the values of those lines of a text in Prometheus' form that begin so.
pub fn sum(metrics: &str, beginning: &str) -> f64 {
    let lines = metrics.lines().filter(|line| line.starts_with(beginning));
    // No sum is -0.
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).fold(0.0, |sum, value| sum + value)
}

/// What the API server says about itself.
pub struct ApiServer(String);

impl ApiServer {
    /// Now.
    pub async fn look(client: &Client) -> Result<Self> {
        let request = hyper::Request::get("/metrics").body(Vec::new())?;
        Ok(Self(client.request_text(request).await?))
    }

    /// The sum of the values of lines that begin so and hold all of these.
    pub fn sum(&self, beginning: &str, with: &[&str]) -> f64 {
        let lines = self.0.lines().filter(|line| with.iter().all(|part| line.contains(part)));
        lines.map(|line| sum(line, beginning)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_up() {
        let text = "# HELP a b\na_total{verb=\"LIST\",resource=\"pods\"} 3\na_total{verb=\"WATCH\"} 1e+03\nab 7\n";
        assert!((sum(text, "a_total") - 1003.0).abs() < f64::EPSILON);
        let server = ApiServer(text.to_owned());
        assert!((server.sum("a_total", &["verb=\"LIST\"", "pods"]) - 3.0).abs() < f64::EPSILON);
    }

    #[test]
    fn this_process_uses_something() {
        let memory = Memory::of(std::process::id()).expect("a process");
        assert!(
            memory.peak >= memory.resident * 0.5 && memory.resident >= memory.proportional && memory.resident > 1.0
        );
        processor(std::process::id()).expect("a process");
    }
}
