//! Figures for Prometheus. Labels come from fixed sets: routes, statuses; never a search term or an address.

use ::metrics::{counter, describe_counter, describe_histogram, histogram};
use axum::http::StatusCode;
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use std::time::Duration;

/// What has been counted in this process.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Starts counting. Only once in a process.
    pub fn install() -> Result<Self, BuildError> {
        let handle = PrometheusBuilder::new().set_buckets(&SECONDS)?.install_recorder()?;
        describe_counter!(REQUESTS, "Requests answered, by route and status");
        describe_histogram!(
            REQUEST_SECONDS,
            "Time from the headers of a request to its answer, by route"
        );
        Ok(Self(handle))
    }

    /// Everything in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds samples into their buckets for ever; without it they would pile up between two renderings.
    pub async fn keep_small(self) {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            ticks.tick().await;
            self.0.run_upkeep();
        }
    }
}

/// Counts an answered request. `route` is the pattern that matched, not the path asked for.
pub fn request(route: &str, status: StatusCode, time: Duration) {
    let status = status.as_u16().to_string();
    counter!(REQUESTS, "route" => route.to_string(), "status" => status).increment(1);
    histogram!(REQUEST_SECONDS, "route" => route.to_string()).record(time);
}

const REQUESTS: &str = "keyrink_http_requests_total";
const REQUEST_SECONDS: &str = "keyrink_http_request_seconds";
/// Upper ends of the buckets of durations, in seconds.
const SECONDS: [f64; 12] = [
    0.000_1, 0.000_25, 0.001, 0.002_5, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0,
];
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
