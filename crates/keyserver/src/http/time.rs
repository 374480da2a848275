//! Times as answers write them, all in UTC.

use std::fmt;

const DAY: u64 = 86_400;

/// Seconds since 1970, displayed as a date: `2026-06-05`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date(pub u64);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.0 / DAY);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// Seconds since 1970, displayed as RFC 3339 has it: `2026-06-05T12:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instant(pub u64);

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 % DAY;
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        write!(f, "{}T{hours:02}:{minutes:02}:{:02}Z", Date(self.0), seconds % 60)
    }
}

impl serde::Serialize for Instant {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Instant {
    /// Reads what [`Instant`] displays.
    pub fn parse(text: &str) -> Option<Self> {
        let part = |at: std::ops::Range<usize>| text.get(at)?.parse::<u64>().ok();
        let (year, month, day) = (part(0..4)?, part(5..7)?, part(8..10)?);
        let seconds = part(11..13)? * 3600 + part(14..16)? * 60 + part(17..19)?;
        let instant = Self(days(year, month, day)? * DAY + seconds);
        (instant.to_string() == text).then_some(instant)
    }
}

impl<'de> serde::Deserialize<'de> for Instant {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong =
            || serde::de::Error::custom(format!("{text:?} is no time; right would be: \"2026-06-05T12:00:00Z\""));
        Self::parse(&text).ok_or_else(wrong)
    }
}

/// How far a time is away, in words: `in 3 months`, `2 days ago`, `today`.
pub fn away(time: u64, now: u64) -> String {
    let days = time.abs_diff(now) / DAY;
    let (count, unit) = match days {
        0 => return "today".into(),
        1..=59 => (days, "day"),
        60..=729 => (days * 12 / 365, "month"),
        _ => (days * 100 / 36_525, "year"),
    };
    let plural = if count == 1 { "" } else { "s" };
    if time > now {
        format!("in {count} {unit}{plural}")
    } else {
        format!("{count} {unit}{plural} ago")
    }
}

/// Days from 1970 to a date of these times, the inverse of [`civil`].
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let near = year.checked_sub(1970)? * 365 + month.checked_sub(1)? * 30;
    let mut near = near..near + 365 * 6;
    near.find(|days| civil(*days) == (year, month, day))
}

/// Year, month and day of a number of days since 1970 (proleptic Gregorian calendar).
///
/// Counted in years that begin with March, so that the leap day is the last day of a year.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    const FROM_MARCH_OF_YEAR_0_TO_1970: u64 = 719_468;
    let days = days + FROM_MARCH_OF_YEAR_0_TO_1970;
    let (era, day_of_era) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on have 153 days in every five.
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_follows_the_one_before() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..60_000 {
            assert_eq!(civil(days), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(Instant(1_780_662_896).to_string(), "2026-06-05T12:34:56Z");
        assert_eq!(Date(u64::from(u32::MAX)).to_string(), "2106-02-07");
    }

    #[test]
    fn distances_in_words() {
        let now = 1_000 * DAY;
        assert_eq!(away(now + 3_600, now), "today");
        assert_eq!(away(now + DAY, now), "in 1 day");
        assert_eq!(away(now - 59 * DAY, now), "59 days ago");
        assert_eq!(away(now + 365 * DAY, now), "in 12 months");
        assert_eq!(away(now + 731 * DAY, now), "in 2 years");
    }
}
