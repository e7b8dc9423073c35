//! Values of flags, as typed: numbers with their limits, sizes with their units; and numbers as they are said.

use std::num::{IntErrorKind, ParseIntError};
use std::str::FromStr;
use std::time::Duration;

pub fn parse_threshold(value: &str) -> Result<f32, String> {
    match value.parse::<f32>() {
        Ok(threshold) if (0.0..=1.0).contains(&threshold) => Ok(threshold),
        _ => Err("expected a probability from 0 to 1".to_owned()),
    }
}

pub fn parse_share(value: &str) -> Result<f64, String> {
    match value.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}

/// Any whole number that the type holds.
pub fn parse_whole<T: FromStr<Err = ParseIntError>>(value: &str) -> Result<T, String> {
    value.parse().map_err(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => "expected a smaller whole number".to_owned(),
        _ => "expected a whole number of at least 0".to_owned(),
    })
}

/// Any number; which of them make sense is told by whoever takes it.
pub fn parse_number(value: &str) -> Result<f64, String> {
    value.parse().map_err(|_| "expected a number".to_owned())
}

pub fn parse_count(value: &str) -> Result<usize, String> {
    match value.parse::<usize>() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("expected a whole number of at least 1".to_owned()),
    }
}

pub fn parse_threads(value: &str) -> Result<usize, String> {
    parse_count(value)
        .ok()
        .filter(|&count| count <= 1024)
        .ok_or_else(|| "expected a whole number from 1 to 1024".to_owned())
}

/// About a year, so that no sum of a time and as many seconds overflows.
const MOST_SECONDS: u32 = 30_000_000;

pub fn parse_seconds(value: &str) -> Result<Duration, String> {
    match value.parse::<f64>() {
        Ok(seconds) if (0.0..=f64::from(MOST_SECONDS)).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("expected a number of seconds from 0 to {MOST_SECONDS}")),
    }
}

/// The time between two of something: never none.
pub fn parse_pause(value: &str) -> Result<Duration, String> {
    match value.parse::<u32>() {
        Ok(seconds) if (1..=MOST_SECONDS).contains(&seconds) => Ok(Duration::from_secs(seconds.into())),
        _ => Err(format!("expected a whole number of seconds from 1 to {MOST_SECONDS}")),
    }
}

pub fn parse_bytes(value: &str) -> Result<usize, String> {
    let digits = value.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match &value[digits.len()..] {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err("expected a number of bytes, or one with KiB, MiB or GiB".to_owned()),
    };
    let bytes = digits
        .parse::<usize>()
        .ok()
        .and_then(|count| count.checked_mul(1 << shift));
    bytes
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| "expected a whole number of bytes of at least 1".to_owned())
}

/// `"a", "b"`
pub fn quoted_list(names: &[&str]) -> String {
    format!("\"{}\"", names.join("\", \""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(parse_bytes("16MiB"), Ok(16 << 20));
        assert_eq!(parse_bytes("1"), Ok(1));
        for value in ["", "0", "MiB", "1.5MiB", "16MB", "-1", "99999999999GiB", "é"] {
            assert!(parse_bytes(value).is_err(), "{value}");
        }
    }

    #[test]
    fn times_have_an_end_that_can_be_reckoned_with() {
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_seconds("0"), Ok(Duration::ZERO));
        assert_eq!(parse_pause("30000000"), Ok(Duration::from_secs(30_000_000)));
        for value in ["", "-1", "NaN", "inf", "30000001", "18446744073709551615"] {
            assert!(parse_seconds(value).is_err(), "{value}");
            assert!(parse_pause(value).is_err(), "{value}");
        }
        assert!(parse_pause("0").is_err());
    }

    #[test]
    fn thresholds_are_probabilities() {
        assert_eq!(parse_threshold("0.5"), Ok(0.5));
        for value in ["NaN", "1.01", "-0.1", "inf", ""] {
            assert!(parse_threshold(value).is_err(), "{value}");
        }
    }

    #[test]
    fn shares_are_from_none_to_all() {
        assert_eq!(parse_share("1"), Ok(1.0));
        for value in ["NaN", "1.01", "-0.1", "inf", ""] {
            assert!(parse_share(value).is_err(), "{value}");
        }
    }
}
