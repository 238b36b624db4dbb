//! Durations as Go writes them, such as `1h30m` and `24h0m0s`.

use std::time::Duration;

/// Reads the duration in `field`, of which 0 and nothing mean the default, as in kube-proxy.
///
/// # Errors
/// What cannot be read, in words for a person: then the default holds.
pub(super) fn read(text: Option<&str>, default: Duration) -> Result<Duration, String> {
    let Some(text) = text.filter(|text| !matches!(*text, "" | "0")) else { return Ok(default) };
    let duration =
        text.parse::<jiff::SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
    match duration {
        Some(Duration::ZERO) => Ok(default),
        Some(duration) => Ok(duration),
        None => Err(format!(
            "`{text}` is not a duration, so {}s applies; write one such as 30s",
            default.as_secs()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read_and_nothing_means_the_default() {
        const DEFAULT: Duration = Duration::from_secs(7);
        for (text, seconds) in
            [("30s", 30), ("24h0m0s", 86_400), ("1h30m", 5400), ("1.5h", 5400), ("0s", 7), ("0", 7), ("", 7)]
        {
            assert_eq!(read(Some(text), DEFAULT), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(read(None, DEFAULT), Ok(DEFAULT));
        for text in ["often", "-5s", "5"] {
            let error = read(Some(text), DEFAULT).expect_err(text);
            assert!(error.contains(text) && error.contains("7s"), "{error}");
        }
    }
}
