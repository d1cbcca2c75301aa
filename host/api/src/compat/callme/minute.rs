//! Times, whose resolution is a minute.

use super::super::refusal::Refusal;
use carillon_core::clock::UnixMs;

/// Seconds of a minute.
pub(super) const MINUTE: i64 = 60;

/// The start of the minute that `now` is in, in Unix seconds.
pub(super) fn minute_of(now: UnixMs) -> i64 {
    now.0.div_euclid(1_000 * MINUTE) * MINUTE
}

/// The number that a text of nothing but digits is.
pub(super) fn digits(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A Unix time that begins a minute after this one; or `+` and a number of minutes, hours or days from the start of this one, which may be
/// none.
pub(super) fn time(text: &str, now: UnixMs) -> Result<i64, Refusal> {
    let current = minute_of(now);
    let Some(delay) = text.strip_prefix('+') else {
        let at = digits(text).ok_or_else(|| not_a_time(text))?;
        if at % MINUTE != 0 {
            return Err(Refusal::bad(format!("`trigger_at` must be a multiple of {MINUTE} seconds, not {at}")));
        }
        if at <= current {
            return Err(Refusal::bad("`trigger_at` must be later than the current minute"));
        }
        return Ok(at);
    };
    let unit = match delay.chars().last() {
        Some('m') => MINUTE,
        Some('h') => 60 * MINUTE,
        Some('d') => 24 * 60 * MINUTE,
        _ => return Err(not_a_time(text)),
    };
    let at = digits(&delay[..delay.len() - 1]).and_then(|count| current.checked_add(count.checked_mul(unit)?));
    at.ok_or_else(|| not_a_time(text))
}

fn not_a_time(text: &str) -> Refusal {
    let text = text.escape_debug();
    Refusal::bad(format!("`trigger_at` is not a time: `{text}`; a Unix time or `+<integer>{{m,h,d}}` is needed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 90 seconds into a quarter of an hour.
    const NOW: UnixMs = UnixMs(1_795_168_890_500);

    #[test]
    fn times_begin_minutes() {
        let at = |text: &str| time(text, NOW).map_err(|refusal| refusal.message);
        let current = 1_795_168_860;
        assert_eq!(at("1795168920"), Ok(current + 60));
        assert_eq!(
            (at("+0m"), at("+1m"), at("+6h"), at("+2d")),
            (Ok(current), Ok(current + 60), Ok(current + 21_600), Ok(current + 172_800))
        );
        for bad in [
            "1795168860",
            "1795168921",
            "0",
            "-60",
            "",
            "+",
            "m",
            "+m",
            "+1",
            "+1s",
            "+-1m",
            "+1.5h",
            "+ 1m",
            " 60",
            "tomorrow",
            "+ä",
        ] {
            assert!(at(bad).is_err(), "{bad}");
        }
        assert!(at("+99999999999999999999m").is_err());
        assert!(at("+9223372036854775807d").is_err());
    }
}
