//! What is counted, in the text form of `OpenMetrics`.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// All metrics of this program.
pub struct Metrics {
    registry: Registry,
    admissions: Family<Admission, Counter>,
    seconds: Histogram,
    /// Requests that could not be understood.
    pub malformed: Counter,
    /// Writes of the reconciler.
    writes: Family<Write, Counter>,
    /// 1: this replica leads.
    pub leading: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Admission {
    webhook: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Write {
    what: &'static str,
    outcome: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let bounds = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];
        let (admissions, writes) = (Family::default(), Family::default());
        let (malformed, leading) = (Counter::default(), Gauge::default());
        let seconds = Histogram::new(bounds);
        let mut registry = Registry::with_prefix("ringfence_webhook");
        registry.register("admissions", "Admission requests by outcome", Family::clone(&admissions));
        registry.register("admission_seconds", "Time to decide over a request that was received", seconds.clone());
        registry.register("malformed", "Requests that could not be understood", malformed.clone());
        registry.register("writes", "Labels, statuses and certificates written", Family::clone(&writes));
        registry.register("leading", "Whether this replica leads", leading.clone());
        Self { registry, admissions, seconds, malformed, writes, leading }
    }
}

impl Metrics {
    /// A request was decided.
    pub fn admission(&self, webhook: &'static str, outcome: &'static str, time: Duration) {
        self.admissions.get_or_create(&Admission { webhook, outcome }).inc();
        self.seconds.observe(time.as_secs_f64());
    }

    /// Something was written to the API server, or should have been.
    pub fn write(&self, what: &'static str, done: bool) {
        self.writes.get_or_create(&Write { what, outcome: if done { "done" } else { "failed" } }).inc();
    }

    /// As `/metrics` shows it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a text does not fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}
