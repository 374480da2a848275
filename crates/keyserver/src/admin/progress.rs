//! Progress of long work: a bar on a terminal, now and then a plain line elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use std::cell::Cell;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

/// Shows how far something is.
pub struct Progress {
    shown: Shown,
    total: u64,
    started: Instant,
}

enum Shown {
    Bar(ProgressBar),
    Lines { next: Cell<Instant> },
    Nothing,
}

impl Progress {
    /// For work on `total` octets (0 if unknown), on standard error.
    pub fn for_terminal(total: u64) -> Self {
        let shown = if stderr().is_terminal() {
            Shown::Bar(ProgressBar::new(total).with_style(style(total)))
        } else {
            Shown::Lines { next: Cell::new(Instant::now() + LINE_EVERY) }
        };
        Self { shown, total, started: Instant::now() }
    }

    /// Shows nothing.
    pub fn silent(total: u64) -> Self {
        Self { shown: Shown::Nothing, total, started: Instant::now() }
    }

    /// `octets` are done; `certificates` were found in them.
    pub fn at(&self, octets: u64, certificates: u64) {
        match &self.shown {
            Shown::Nothing => {}
            Shown::Bar(bar) => {
                bar.set_message(format!("{certificates} certificates, {:.0}/s", self.rate(certificates)));
                bar.set_position(octets);
            }
            Shown::Lines { next } if Instant::now() >= next.get() => {
                next.set(Instant::now() + LINE_EVERY);
                eprintln!("{}", self.line(octets, certificates));
            }
            Shown::Lines { .. } => {}
        }
    }

    /// The work is over.
    pub fn finish(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }

    fn rate(&self, count: u64) -> f64 {
        count as f64 / self.started.elapsed().as_secs_f64().max(0.001)
    }

    fn line(&self, octets: u64, certificates: u64) -> String {
        let mut line = format!("{certificates} certificates, {:.0}/s", self.rate(certificates));
        if octets > 0 && octets <= self.total {
            let left = (self.total - octets) as f64 / self.rate(octets).max(1.0);
            line += &format!(", {} %, about {left:.0} s left", octets * 100 / self.total);
        }
        line
    }
}

const LINE_EVERY: Duration = Duration::from_secs(5);

fn style(total: u64) -> ProgressStyle {
    let template = if total > 0 {
        "{bar:30} {percent:>3} % {bytes}/{total_bytes} {binary_bytes_per_sec}, {eta} left: {msg}"
    } else {
        "{spinner} {bytes} {binary_bytes_per_sec}: {msg}"
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
