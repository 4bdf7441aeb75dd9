//! "Come again in five minutes": the time a host asks for.

use std::time::Duration;

/// A host that asks for more than this is not taken at its word.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);

/// How many words may stand between the request to wait and the time.
const REACH: usize = 5;

/// The time that a text asks to wait, where it does: "try again in 5 minutes", "retry after 300s", "greylisted for 1 hour",
/// "come back in 00:05:00". A time that belongs to something else ("at most 100 messages in 60 minutes") is not one.
pub(super) fn retry_after(text: &str) -> Option<Duration> {
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower
        .split(|character: char| character.is_whitespace() || character == '=')
        .map(|word| word.trim_matches(|character: char| !character.is_alphanumeric()))
        .filter(|word| !word.is_empty())
        .collect();
    (0..words.len())
        .filter(|&at| is_requested(&words[..at]))
        .find_map(|at| time(words[at], words.get(at + 1).copied()))
        .filter(|time| !time.is_zero() && *time <= LONGEST)
}

/// Whether the words before a time make it one to wait: a preposition directly before it, and the request not far before.
fn is_requested(before: &[&str]) -> bool {
    let asks = |word: &&str| {
        ["again", "back", "wait", "delay", "reconnect", "resend", "resume"].contains(word)
            || ["retry", "retri", "greylist", "graylist", "deferred"]
                .iter()
                .any(|stem| word.starts_with(stem))
    };
    let near = &before[before.len().saturating_sub(REACH)..];
    let leads = |word: &&str| {
        ["in", "after", "for", "least", "of", "about", "wait", "minimum"].contains(word)
            || word.starts_with("retry-after")
    };
    near.last().is_some_and(|last| leads(last) || asks(last)) && near.iter().any(asks)
}

/// A time: `300s`, `5` with a unit as the next word, `an` `hour`, or `00:05:00`.
fn time(word: &str, next: Option<&str>) -> Option<Duration> {
    if let Some(time) = clock_time(word) {
        return Some(time);
    }
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    let (number, attached) = word.split_at(digits);
    let number: u64 = match (number, attached) {
        ("", "a" | "an" | "one") => return unit(next?).map(Duration::from_secs),
        _ => number.parse().ok()?,
    };
    let unit = if attached.is_empty() {
        unit(next?)?
    } else {
        unit(attached)?
    };
    number.checked_mul(unit).map(Duration::from_secs)
}

/// The unit in seconds.
fn unit(word: &str) -> Option<u64> {
    match word {
        "s" | "sec" | "secs" | "second" | "seconds" => Some(1),
        "m" | "min" | "mins" | "minute" | "minutes" => Some(60),
        "h" | "hr" | "hrs" | "hour" | "hours" => Some(3_600),
        "d" | "day" | "days" => Some(86_400),
        _ => None,
    }
}

/// `hours:minutes:seconds`.
fn clock_time(word: &str) -> Option<Duration> {
    let mut parts = word.split(':').map(|part| {
        let short = part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
        short.then(|| part.parse::<u64>().ok()).flatten()
    });
    let (Some(Some(hours)), Some(Some(minutes)), Some(Some(seconds)), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    Some(Duration::from_secs(hours * 3_600 + minutes * 60 + seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_time_that_is_asked_for() {
        for (text, seconds) in [
            ("Try again in 5 minutes.", 300),
            ("Greylisted, please retry after 300 seconds", 300),
            ("greylisted for 300s; see our page", 300),
            ("Temporarily deferred. Wait at least 90 secs", 90),
            ("Please try again in 1 hour", 3_600),
            ("please wait for a minimum of 10 minutes", 600),
            ("You must wait 2 min", 120),
            ("Greylisting in action, please come back in 00:04:30", 270),
            ("try again in an hour", 3_600),
            ("retry-after=60s", 60),
            ("Too many connections (try again in 30sec)", 30),
            ("mailbox over quota, will be retried in 1 day", 86_400),
        ] {
            assert_eq!(retry_after(text), Some(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn finds_none_in_other_times() {
        for text in [
            "",
            "Try again later",
            "try again in some minutes",
            "limit of 100 messages in 60 minutes exceeded, try again later",
            "try again later: limit 100 messages in 60 minutes",
            "unable to deliver in 840 minutes",
            "retrying will NOT succeed",
            "try again in 0 seconds",
            "try again in 99999999999999999999 seconds",
            "try again in 18446744073709551615 days",
            "try again in 30 days",
            "try again in 5 parsecs",
            "wait 1:2",
        ] {
            assert_eq!(retry_after(text), None, "{text}");
        }
    }
}
