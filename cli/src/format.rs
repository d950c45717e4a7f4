//! Numbers and times for people.

use jiff::{SignedDuration, Timestamp};

/// What stands where nothing is known.
pub(crate) const ABSENT: &str = "-";

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Bytes in binary units with one decimal.
pub(crate) fn bytes(value: Option<u64>) -> String {
    let Some(value) = value else { return ABSENT.to_owned() };
    if value < 1024 {
        return format!("{value} B");
    }
    let mut scale = 1_u128;
    for unit in UNITS {
        scale *= 1024;
        let tenths = (u128::from(value) * 10 + scale / 2) / scale;
        if tenths < 10_240 {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{value} B")
}

/// A share as per cent with the given decimals.
pub(crate) fn percent(ratio: Option<f64>, decimals: usize) -> String {
    ratio.map_or(ABSENT.to_owned(), |ratio| format!("{:.decimals$} %", ratio * 100.0))
}

/// A number with its noun, in the plural where needed.
pub(crate) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// A span of time in its largest unit, rounded; its sign is left out.
pub(crate) fn span(span: SignedDuration) -> String {
    let seconds = span.as_secs().unsigned_abs();
    let rounded = |unit: u64| (seconds + unit / 2) / unit;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", rounded(60)),
        7_200..=172_799 => format!("{} h", rounded(3_600)),
        _ => format!("{} d", rounded(86_400)),
    }
}

/// A time as seen from `now`.
pub(crate) fn relative(at: Option<Timestamp>, now: Timestamp) -> String {
    let Some(at) = at else { return ABSENT.to_owned() };
    let since = now.duration_since(at);
    match since.as_secs() {
        0 => "now".to_owned(),
        1.. => format!("{} ago", span(since)),
        _ => format!("in {}", span(since)),
    }
}

/// Text of others (names, notes, details) without what would move a terminal's cursor or break a row.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Reads bytes such as `64MiB`, `1.5 GiB`, `512M` or `1048576`. Units are binary.
///
/// # Errors
/// Anything else, with an example.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no number of bytes; write 64MiB, 1.5GiB or 67108864");
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().to_ascii_lowercase();
    let letters = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let power = match letters {
        "" if !unit.starts_with('i') => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        "e" => 6,
        _ => return Err(wrong()),
    };
    let scale = 1024_u64.pow(power);
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(scale).ok_or_else(wrong);
    }
    let (whole, fraction) = number.split_once('.').ok_or_else(wrong)?;
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let digits =
        u32::try_from(fraction.len()).ok().filter(|digits| (1..=9).contains(digits)).ok_or_else(wrong)?;
    let fraction: u64 = fraction.parse().map_err(|_| wrong())?;
    let part = u128::from(fraction) * u128::from(scale) / 10_u128.pow(digits);
    let part = u64::try_from(part).map_err(|_| wrong())?;
    whole.checked_mul(scale).and_then(|whole| whole.checked_add(part)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_told_in_binary_units() {
        let told = |value| bytes(Some(value));
        assert_eq!(told(0), "0 B");
        assert_eq!(told(1023), "1023 B");
        assert_eq!(told(1024), "1.0 KiB");
        assert_eq!(told(64 << 20), "64.0 MiB");
        assert_eq!(told((3 << 30) / 2), "1.5 GiB");
        assert_eq!(told((1 << 20) - 1), "1.0 MiB");
        assert_eq!(told(u64::MAX), "16.0 EiB");
        assert_eq!(bytes(None), "-");
    }

    #[test]
    fn times_are_told_from_now() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let told = |text: &str| relative(Some(text.parse().unwrap()), now);
        assert_eq!(told("2026-01-01T12:00:00Z"), "now");
        assert_eq!(told("2026-01-01T11:59:30Z"), "30 s ago");
        assert_eq!(told("2026-01-01T11:00:00Z"), "60 min ago");
        assert_eq!(told("2026-01-01T14:30:00Z"), "in 3 h");
        assert_eq!(told("2025-12-20T12:00:00Z"), "12 d ago");
        assert_eq!(relative(None, now), "-");
    }

    #[test]
    fn bytes_are_read_with_and_without_units() {
        for (text, wanted) in [
            ("0", 0),
            ("67108864", 64 << 20),
            ("64MiB", 64 << 20),
            ("64 m", 64 << 20),
            ("1.5GiB", (3 << 30) / 2),
        ] {
            assert_eq!(parse_bytes(text), Ok(wanted), "{text}");
        }
        for wrong in
            ["", "MiB", "-1", "1.GiB", "1..5G", "5 apples", "5ib", "99999999999999P", "1e9", "1.5.5M"]
        {
            assert!(parse_bytes(wrong).unwrap_err().contains("64MiB"), "{wrong}");
        }
    }

    #[test]
    fn what_moves_a_cursor_is_not_printed() {
        assert_eq!(printable("web\x1b[2J\n1"), "web\u{fffd}[2J\u{fffd}1");
    }

    proptest! {
        #[test]
        fn told_bytes_read_back_within_their_rounding(value: u64) {
            let told = bytes(Some(value));
            let read = parse_bytes(&told).ok().unwrap_or(u64::MAX);
            let slack = (value / 10).max(1);
            prop_assert!(read.abs_diff(value) <= slack, "{} -> {} -> {}", value, told, read);
            let number: f64 = told.split(' ').next().unwrap().parse().unwrap();
            prop_assert!(number < 1024.0, "{}", told);
        }
    }
}
