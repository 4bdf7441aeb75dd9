//! Numbers for people: as many digits as say something.

/// Rounds to three significant digits. What moves less than that would change a status without telling anything new.
pub(crate) fn to_three_digits(number: f64) -> f64 {
    if number == 0.0 || !number.is_finite() {
        return 0.0;
    }
    let digits = 2 - number.abs().log10().floor() as i32;
    if digits >= 0 {
        let scale = 10_f64.powi(digits);
        (number * scale).round() / scale
    } else {
        let scale = 10_f64.powi(-digits);
        (number / scale).round() * scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits() {
        for (number, rounded) in [
            (0.0, 0.0),
            (1.0, 1.0),
            (0.123_456, 0.123),
            (99.96, 100.0),
            (12.345, 12.3),
            (123_456.0, 123_000.0),
            (-2.3456, -2.35),
            (0.000_123_44, 0.000_123),
            (f64::NAN, 0.0),
            (f64::INFINITY, 0.0),
        ] {
            assert_eq!(to_three_digits(number), rounded, "{number}");
        }
    }
}
