//! The figures beside what is demanded of them.

use std::collections::BTreeMap;
use std::fmt;

use super::SideName;

/// One thing measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Figure {
    Load,
    Disk,
    FirstAnswer,
    MemoryIdle,
    Get,
    Index,
    MemoryServed,
    SubmitOne,
    SubmitEight,
}

/// What Keyrink must reach: a bound of its own figure, or of its figure divided by that of SKS.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Demand {
    AtMost(f64),
    RatioAtMost(f64),
    RatioAtLeast(f64),
}

impl Figure {
    /// The demand for the Debian keyrings (`real`) or for small certificates.
    fn demand(self, real: bool) -> Demand {
        match (self, real) {
            (Self::Load, true) => Demand::RatioAtMost(2.4),
            (Self::Load, false) => Demand::RatioAtMost(1.25),
            (Self::Disk, _) => Demand::RatioAtMost(0.8),
            (Self::FirstAnswer, _) => Demand::AtMost(100.0),
            (Self::MemoryIdle, _) => Demand::AtMost(30.0),
            (Self::MemoryServed, _) => Demand::AtMost(90.0),
            (Self::Get, true) => Demand::RatioAtLeast(6.0),
            (Self::Index, true) => Demand::RatioAtLeast(4.0),
            (Self::Get | Self::Index | Self::SubmitEight, _) => Demand::RatioAtLeast(2.0),
            (Self::SubmitOne, _) => Demand::RatioAtLeast(1.0),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Load => "load, s",
            Self::Disk => "disk, MB",
            Self::FirstAnswer => "start to first answer, ms",
            Self::MemoryIdle => "resident memory idle, MB",
            Self::Get => "op=get by fingerprint, req/s",
            Self::Index => "op=index&options=mr by address, req/s",
            Self::MemoryServed => "resident memory after serving, MB",
            Self::SubmitOne => "durable submissions/s, 1 connection",
            Self::SubmitEight => "durable submissions/s, 8 connections",
        })
    }
}

impl Demand {
    fn is_met(self, keyrink: f64, ratio: Option<f64>) -> Option<bool> {
        match self {
            Self::AtMost(bound) => Some(keyrink <= bound),
            Self::RatioAtMost(bound) => Some(ratio? <= bound),
            Self::RatioAtLeast(bound) => Some(ratio? >= bound),
        }
    }
}

impl fmt::Display for Demand {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(bound) => write!(out, "≤ {bound}"),
            Self::RatioAtMost(bound) => write!(out, "≤ {bound} ×"),
            Self::RatioAtLeast(bound) => write!(out, "≥ {bound} ×"),
        }
    }
}

/// All figures of one corpus.
pub(super) struct Table {
    title: String,
    real: bool,
    figures: BTreeMap<(Figure, SideName), f64>,
}

impl Table {
    pub(super) fn new(title: &str, real: bool) -> Self {
        Self {
            title: title.to_owned(),
            real,
            figures: BTreeMap::new(),
        }
    }

    pub(super) fn set(&mut self, figure: Figure, side: SideName, value: f64) {
        self.figures.insert((figure, side), value);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "**{}**\n", self.title)?;
        writeln!(
            out,
            "| | SKS | Keyrink | Keyrink / SKS | must | |\n|---|---|---|---|---|---|"
        )?;
        let mut figures: Vec<Figure> = self.figures.keys().map(|(figure, _)| *figure).collect();
        figures.dedup();
        for figure in figures {
            let value = |side| self.figures.get(&(figure, side)).copied();
            let (sks, keyrink) = (value(SideName::Sks), value(SideName::Keyrink));
            let ratio = sks.zip(keyrink).map(|(sks, keyrink)| keyrink / sks);
            let demand = figure.demand(self.real);
            let met = match keyrink.and_then(|keyrink| demand.is_met(keyrink, ratio)) {
                Some(true) => "yes",
                Some(false) => "**no**",
                None => "",
            };
            let ratio = ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
            writeln!(
                out,
                "| {figure} | {} | {} | {ratio} | {demand} | {met} |",
                number(sks),
                number(keyrink)
            )?;
        }
        Ok(())
    }
}

/// Three significant digits or all before the point; empty if not measured.
fn number(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_ratio_and_verdict() {
        let mut table = Table::new("t", true);
        table.set(Figure::Get, SideName::Sks, 1000.0);
        table.set(Figure::Get, SideName::Keyrink, 5000.0);
        table.set(Figure::MemoryIdle, SideName::Keyrink, 12.0);
        let text = table.to_string();
        assert!(
            text.contains("| op=get by fingerprint, req/s | 1000 | 5000 | 5.00 | ≥ 6 × | **no** |"),
            "{text}"
        );
        assert!(
            text.contains("| resident memory idle, MB |  | 12.0 |  | ≤ 30 | yes |"),
            "{text}"
        );
    }
}
