//! What an answer says, and to whom: to the judge, to the retry policy, and of the receiver.

use std::time::Duration;

use crate::clock::UnixMs;
use crate::job::{AttemptError, AttemptRecord, Inputs, Leased};
use crate::policy::{Exchange, Header, Response, TransportError};
use crate::receiver::Health;
use crate::send::{Answer, TRANSPORT_ERRORS};

/// The statuses with which a receiver asks to be left alone, if it says for how long.
const BUSY: [u16; 2] = [429, 503];

/// What the judge is shown.
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
        Answer::Failure { code, message, elapsed } => Exchange::TransportError(TransportError {
            code: (*code).to_owned(),
            message: message.clone(),
            elapsed_ms: ms(elapsed),
        }),
    }
}

/// What is kept of the answer, besides the rest of the record, for deciding again.
pub(super) fn inputs_of(leased: &Leased, answered_at: UnixMs, answer: &Answer) -> Inputs {
    let (truncated, failure) = match answer {
        Answer::Response { truncated, .. } => (*truncated, None),
        Answer::Failure { code, message, .. } => {
            (false, Some(AttemptError { code: (*code).to_owned(), message: message.clone() }))
        }
    };
    Inputs { run_at: leased.job.run_at, answered_at, truncated, failure }
}

/// The answer of an attempt, as far as it was kept. None if there was none.
pub(super) fn answer_of(record: &AttemptRecord, inputs: &Inputs) -> Option<Answer> {
    let elapsed = Duration::from_micros(record.detail.timings.exchange);
    if let Some(AttemptError { code, message }) = &inputs.failure {
        let code = TRANSPORT_ERRORS.into_iter().find(|known| known == code)?;
        return Some(Answer::Failure { code, message: message.clone(), elapsed });
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

/// What an answer says of the receiver that was asked first. One that redirects, or breaks off in the middle, did answer.
pub(super) fn health_of(answer: &Answer, redirects: &[String], now: UnixMs) -> Health {
    match answer {
        _ if !redirects.is_empty() => Health::Answered,
        Answer::Response { status, .. } if BUSY.contains(status) => match retry_after(answer, now) {
            Some(time) if !time.is_zero() => Health::Busy(time),
            _ => Health::Answered,
        },
        Answer::Failure { code: "dns" | "connect" | "tls" | "timeout" | "reset", .. } => Health::Failed,
        Answer::Failure { code: "refused-address", .. } => Health::Unknown,
        Answer::Response { .. } | Answer::Failure { .. } => Health::Answered,
    }
}

/// `Retry-After` in seconds or as an HTTP date (RFC 9110, section 10.2.3), as a time from `now`.
pub(super) fn retry_after(answer: &Answer, now: UnixMs) -> Option<Duration> {
    let Answer::Response { headers, .. } = answer else { return None };
    let (_, value) = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("retry-after"))?;
    let text = std::str::from_utf8(value).ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(UnixMs(at.as_millisecond()).since(now))
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
        assert_eq!(retry_after(&answer("soon"), now), None);
        assert_eq!(retry_after(&answer("-1"), now), None);
    }

    #[test]
    fn what_is_no_fault_of_the_receiver_does_not_count() {
        let failure = |code| Answer::Failure { code, message: String::new(), elapsed: Duration::ZERO };
        let health = |answer: &Answer| health_of(answer, &[], UnixMs(0));
        for code in ["dns", "connect", "tls", "timeout", "reset"] {
            assert_eq!(health(&failure(code)), Health::Failed, "{code}");
            let behind = health_of(&failure(code), &["http://b/".to_owned()], UnixMs(0));
            assert_eq!(behind, Health::Answered, "a redirect is an answer");
        }
        assert_eq!(health(&failure("body")), Health::Answered);
        assert_eq!(health(&failure("redirect")), Health::Answered);
        assert_eq!(health(&failure("refused-address")), Health::Unknown);
        assert_eq!(health(&answer("7")), Health::Busy(Duration::from_secs(7)));
        assert_eq!(health(&answer("0")), Health::Answered);
        assert_eq!(health(&answer("soon")), Health::Answered);
    }
}
