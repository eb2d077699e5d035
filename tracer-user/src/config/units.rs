//! Durations and sizes with units.

use std::time::Duration;

/// A duration such as `10m` or `100ms`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("not a duration: {error}; write it like `100ms`, `30s` or `10m`"))
}

/// A share such as `1%`, from 0 to 1.
pub(super) fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok());
    number
        .filter(|number| (0.0..=100.0).contains(number))
        .map(|number| number / 100.0)
        .ok_or_else(|| format!("\"{text}\" is not a share of 0% to 100%; write it like `1%` or `0.5%`"))
}

/// A size in bytes such as `16MiB`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(format!("\"{text}\" is not a size; write it like `64KiB`, `16MiB` or `1GiB`")),
    };
    let number: u64 =
        number.parse().map_err(|_| format!("\"{text}\" is not a size; write it like `16MiB`"))?;
    number.checked_mul(factor).ok_or_else(|| format!("\"{text}\" is larger than any memory"))
}
