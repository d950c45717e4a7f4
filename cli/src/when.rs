//! A moment as people write it.

use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// A moment, or how long before now it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// At this time.
    At(Timestamp),
    /// So long ago.
    Ago(Duration),
}

impl When {
    /// The moment, seen from `now`.
    pub(crate) fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Ago(span) => now.checked_sub(span).unwrap_or(Timestamp::UNIX_EPOCH),
        }
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "now" {
            return Ok(Self::Ago(Duration::ZERO));
        }
        if let Ok(time) = text.parse() {
            return Ok(Self::At(time));
        }
        if let Ok(midnight) = text.parse::<Date>().and_then(|day| day.to_zoned(TimeZone::UTC)) {
            return Ok(Self::At(midnight.timestamp()));
        }
        humantime::parse_duration(text)
            .map(Self::Ago)
            .map_err(|_| "write 2026-11-22T10:00:00Z, 2026-11-22, 14d (so long ago) or now".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_days_and_spans_are_understood() {
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let at = |text: &str| text.parse::<When>().unwrap().before(now).to_string();
        assert_eq!(at("now"), "2026-11-22T10:00:00Z");
        assert_eq!(at("14d"), "2026-11-08T10:00:00Z");
        assert_eq!(at("2026-11-20"), "2026-11-20T00:00:00Z");
        assert_eq!(at("2026-11-20T12:30:00+02:00"), "2026-11-20T10:30:00Z");
        assert_eq!(at("90000y"), "1970-01-01T00:00:00Z");
        assert!("yesterday".parse::<When>().is_err());
    }
}
