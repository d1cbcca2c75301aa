//! Meaning of a response: for the judge, for the retry policy, and for the receiver's state.

use std::time::{Duration, UNIX_EPOCH};

use jiff::fmt::rfc2822::DateTimeParser;
use serde_json::Value;

use crate::delivery::receiver::Health;
use crate::delivery::send::Answer;
use carillon_core::clock::UnixMs;
use carillon_core::error_code::TransportError;
use carillon_core::job::{AttemptRecord, Inputs, LeasedJob, RecordedFailure};
use carillon_policy::{Exchange, Header, Plan, Response, Ruling};

/// Statuses with which a receiver asks for a pause, if it has `Retry-After`.
const BUSY: [u16; 2] = [429, 503];

/// Parses dates as they are in e-mail. A date with a wrong weekday still counts: it is no reason to send sooner.
const RFC_2822: DateTimeParser = DateTimeParser::new().relaxed_weekday(true);

/// Builds the exchange that the judge sees.
pub(super) fn exchange_of(answer: &Answer) -> Exchange {
    let ms = |elapsed: &Duration| u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX);
    match answer {
        Answer::Response { status, headers, body, truncated, elapsed } => Exchange::Response(Response {
            status: *status,
            headers: headers.iter().map(|(name, value)| Header { name: name.clone(), value: value.clone() }).collect(),
            body: body.to_vec(),
            truncated: *truncated,
            elapsed_ms: ms(elapsed),
        }),
        Answer::Failure { error, message, elapsed } => Exchange::TransportError(carillon_policy::TransportError {
            code: error.code().to_owned(),
            message: message.clone(),
            elapsed_ms: ms(elapsed),
        }),
    }
}

/// Builds the part of the response that is stored beside the record, so that the attempt can be decided again.
pub(super) fn inputs_of(leased: &LeasedJob, answered_at: UnixMs, answer: &Answer) -> Inputs {
    let (truncated, failure) = match answer {
        Answer::Response { truncated, .. } => (*truncated, None),
        Answer::Failure { error, message, .. } => {
            (false, Some(RecordedFailure { code: error.code().to_owned(), message: message.clone() }))
        }
    };
    Inputs { run_at: leased.job.run_at, answered_at, truncated, failure }
}

/// Restores the response of an attempt, as far as it was stored; `None` if there was none, or if only a newer version knows the failure.
pub(super) fn answer_of(record: &AttemptRecord, inputs: &Inputs) -> Option<Answer> {
    let elapsed = Duration::from_micros(record.detail.timings.exchange);
    if let Some(RecordedFailure { code, message }) = &inputs.failure {
        let error = TransportError::parse(code)?;
        return Some(Answer::Failure { error, message: message.clone(), elapsed });
    }
    let header = |(name, value): &(String, String)| (name.clone(), value.clone().into_bytes());
    Some(Answer::Response {
        status: record.status?,
        headers: record.detail.response_headers.iter().map(header).collect(),
        body: record.response_body.clone(),
        truncated: inputs.truncated,
        elapsed,
    })
}

/// Returns the health of the receiver of the first request. Any response, or a redirect, proves that it responds.
pub(super) fn health_of(answer: &Answer, redirects: &[String]) -> Health {
    match answer {
        _ if !redirects.is_empty() => Health::Answered,
        Answer::Response { .. } => Health::Answered,
        Answer::Failure { error, .. } => health_after(*error),
    }
}

/// Returns what a transport error says of the receiver.
fn health_after(error: TransportError) -> Health {
    match error {
        TransportError::Dns
        | TransportError::Connect
        | TransportError::Tls
        | TransportError::Timeout
        | TransportError::Reset => Health::Failed,
        // Bytes of a response have arrived.
        TransportError::Body | TransportError::Redirect | TransportError::Protocol => Health::Answered,
        // Nothing was sent.
        TransportError::RefusedAddress => Health::Unknown,
    }
}

/// Returns the pause that the receiver asks for its URL; `None` if it asks for none, or if the job's policy ignores `Retry-After`.
///
/// The policy's decision has priority: an attempt that it wants sooner is not delayed.
pub(super) fn pause_asked(answer: &Answer, now: UnixMs, plan: &Plan, ruling: &Ruling) -> Option<Duration> {
    let Answer::Response { status, .. } = answer else { return None };
    let asked = retry_after(answer, now).filter(|asked| BUSY.contains(status) && !asked.is_zero())?;
    if !honours_retry_after(&plan.retry.config) {
        return None;
    }
    Some(match ruling {
        Ruling::RetryAfter(delay) => asked.min(*delay),
        Ruling::Done | Ruling::GiveUp(_) => asked,
    })
}

/// Returns whether a retry policy's config honours `Retry-After`. It does by default.
fn honours_retry_after(config: &str) -> bool {
    let config = serde_json::from_str::<Value>(config).unwrap_or_default();
    config.get("honour_retry_after").and_then(Value::as_bool).unwrap_or(true)
}

/// Parses `Retry-After` in seconds or as an HTTP date (RFC 9110, section 10.2.3), as a time from `now`. A number that is too large becomes
/// the longest time.
pub(super) fn retry_after(answer: &Answer, now: UnixMs) -> Option<Duration> {
    let Answer::Response { headers, .. } = answer else { return None };
    let (_, value) = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("retry-after"))?;
    let text = std::str::from_utf8(value).ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    Some(http_date(text)?.since(now))
}

/// Parses a date in one of the three forms that a recipient must accept (RFC 9110, section 5.6.7), or in the more general form of e-mail.
fn http_date(text: &str) -> Option<UnixMs> {
    if let Ok(at) = httpdate::parse_http_date(text) {
        let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        return Some(UnixMs(0).plus(since_epoch));
    }
    let at = RFC_2822.parse_zoned(text).ok()?.timestamp();
    Some(UnixMs(at.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(retry_after: &str) -> Answer {
        Answer::Response {
            status: 503,
            headers: vec![("Retry-After".to_owned(), retry_after.as_bytes().to_vec())],
            body: bytes::Bytes::new(),
            truncated: false,
            elapsed: Duration::ZERO,
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = UnixMs(784_111_777_000 - 90_000);
        assert_eq!(retry_after(&answer("120"), now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after(&answer("Sun, 06 Nov 1994 08:49:37 GMT"), now), Some(Duration::from_secs(90)));
        for none in ["soon", "-1", "+1", "1.5", "", "nan", "1e400"] {
            assert_eq!(retry_after(&answer(none), now), None, "{none}");
        }
    }

    #[test]
    fn retry_after_takes_the_three_forms_of_a_date() {
        let now = UnixMs(784_111_777_000 - 90_000);
        for date in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 09:49:37 +0100",
        ] {
            assert_eq!(retry_after(&answer(date), now), Some(Duration::from_secs(90)), "{date}");
            assert_eq!(retry_after(&answer(date), UnixMs(784_111_777_001)), Some(Duration::ZERO), "{date}: past");
        }
    }

    #[test]
    fn retry_after_saturates() {
        for number in ["18446744073709552", "18446744073709551615", "18446744073709551616", &"9".repeat(200)] {
            let asked = retry_after(&answer(number), UnixMs(0)).unwrap();
            assert!(asked >= Duration::from_secs(18_446_744_073_709_552), "{number}");
        }
    }

    #[test]
    fn retry_after_counts_unless_the_policy_says_otherwise() {
        assert!(honours_retry_after("{}") && honours_retry_after(r#"{"honour_retry_after": true}"#));
        assert!(!honours_retry_after(r#"{"base": 1, "honour_retry_after": false}"#));
    }

    #[test]
    fn what_is_no_fault_of_the_receiver_does_not_count() {
        let failure = |code| {
            let error = TransportError::parse(code).unwrap();
            Answer::Failure { error, message: String::new(), elapsed: Duration::ZERO }
        };
        let health = |answer: &Answer| health_of(answer, &[]);
        for code in ["dns", "connect", "tls", "timeout", "reset"] {
            assert_eq!(health(&failure(code)), Health::Failed, "{code}");
            let behind = health_of(&failure(code), &["http://b/".to_owned()]);
            assert_eq!(behind, Health::Answered, "a redirect is an answer");
        }
        assert_eq!(health(&failure("body")), Health::Answered);
        assert_eq!(health(&failure("redirect")), Health::Answered);
        assert_eq!(health(&failure("refused-address")), Health::Unknown);
        assert_eq!(health(&failure("protocol")), Health::Answered);
        assert_eq!(health(&answer("7")), Health::Answered, "asking for a pause is an answer");
    }
}
