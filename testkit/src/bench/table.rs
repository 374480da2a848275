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
    /// Each figure as often as it was measured.
    figures: BTreeMap<(Figure, SideName), Vec<f64>>,
}

impl Table {
    pub(super) fn new(title: &str, real: bool) -> Self {
        Self {
            title: title.to_owned(),
            real,
            figures: BTreeMap::new(),
        }
    }

    /// Adds one measurement. The sides take turns, so that the first ones of both were taken at about the same time.
    pub(super) fn add(&mut self, figure: Figure, side: SideName, value: f64) {
        self.figures.entry((figure, side)).or_default().push(value);
    }

    fn value(&self, figure: Figure, side: SideName) -> Option<f64> {
        median(self.figures.get(&(figure, side))?.clone())
    }

    /// Keyrink's figure divided by that of SKS beside it; the median over all pairs.
    fn ratio(&self, figure: Figure) -> Option<f64> {
        let values = |side| self.figures.get(&(figure, side));
        let pairs = values(SideName::Keyrink)?.iter().zip(values(SideName::Sks)?);
        median(pairs.map(|(keyrink, sks)| keyrink / sks).collect())
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
            let (sks, keyrink) = (self.value(figure, SideName::Sks), self.value(figure, SideName::Keyrink));
            let ratio = self.ratio(figure);
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

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
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
        for (sks, keyrink) in [(1000.0, 5000.0), (500.0, 2400.0), (1001.0, 6006.0)] {
            table.add(Figure::Get, SideName::Sks, sks);
            table.add(Figure::Get, SideName::Keyrink, keyrink);
        }
        table.add(Figure::MemoryIdle, SideName::Keyrink, 12.0);
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
