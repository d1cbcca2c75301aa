//! Encrypted forms of jobs, attempts and schedules: what stays readable for queries, and the way back.

use serde_json::{Value, json};

use super::cipher::{Column, OVERHEAD, TenantCipher};
use carillon_core::clock::Clock;
use carillon_core::job::{AttemptDetail, AttemptError, AttemptRecord, Job, LeasedJob, NewJob, Spec, Target, bare_url};
use carillon_store::documents::to_json;
use carillon_store::{Edit, StoreError};

/// Member of an encrypted document, and beginning of an encrypted text.
const SEALED: &str = "sealed";
const SEALED_TEXT: &str = "sealed:";

/// Encrypts a job's request, settings and payload. An empty payload stays empty.
pub(super) fn seal_job(job: NewJob, cipher: &TenantCipher, clock: &dyn Clock) -> Result<NewJob, StoreError> {
    let sealed_body = !job.body.is_empty();
    let body = if sealed_body { cipher.seal(Column::Body, &job.body, clock)? } else { job.body };
    Ok(NewJob { spec: Spec { sealed_body, ..seal_spec(&job.spec, cipher, clock)? }, body, ..job })
}

/// Encrypts the new values of an edit. A payload that stays keeps its form, and the store its mark.
pub(super) fn seal_edit(edit: Edit, cipher: &TenantCipher, clock: &dyn Clock) -> Result<Edit, StoreError> {
    let spec = seal_spec(&edit.spec, cipher, clock)?;
    let Some(body) = edit.body.as_ref().filter(|body| !body.is_empty()) else { return Ok(Edit { spec, ..edit }) };
    let body = cipher.seal(Column::Body, body, clock)?;
    Ok(Edit { spec: Spec { sealed_body: true, ..spec }, body: Some(body), ..edit })
}

/// Encrypts a spec. Labels, and the URL without its credentials, query and fragment, stay readable: lists are filtered by them.
fn seal_spec(spec: &Spec, cipher: &TenantCipher, clock: &dyn Clock) -> Result<Spec, StoreError> {
    let shown =
        |target: &Target| Target { method: target.method.clone(), url: bare_url(&target.url), headers: Vec::new() };
    Ok(Spec {
        target: spec.target.as_ref().map(shown),
        metadata: spec.metadata.clone(),
        binding: spec.binding,
        parent: spec.parent,
        sealed: Some(cipher.seal_text(Column::Spec, to_json(spec)?.as_bytes(), clock)?),
        ..Spec::default()
    })
}

/// Returns whether a part of the job is encrypted.
pub(super) fn is_sealed(spec: &Spec) -> bool {
    spec.sealed.is_some() || spec.sealed_body
}

/// Decrypts the request and settings of a job.
pub(super) fn open_job(mut job: Job, cipher: &TenantCipher) -> Result<Job, StoreError> {
    if job.spec.sealed_body {
        job.body_len = job.body_len.saturating_sub(OVERHEAD as u64);
    }
    job.spec = open_spec(job.spec, cipher)?;
    Ok(job)
}

/// Returns what is readable of a job that cannot be decrypted.
pub(super) fn bare_job(job: &Job) -> Job {
    let job = job.clone();
    Job { spec: Spec { sealed: None, sealed_body: false, ..job.spec }, ..job }
}

/// Decrypts a leased job.
pub(super) fn open_leased(leased: LeasedJob, cipher: &TenantCipher) -> Result<LeasedJob, StoreError> {
    let body = open_body(&leased.job.spec, leased.body, cipher)?;
    Ok(LeasedJob { job: open_job(leased.job, cipher)?, body, ..leased })
}

/// Decrypts a payload that is stored beside this spec.
pub(super) fn open_body(spec: &Spec, body: bytes::Bytes, cipher: &TenantCipher) -> Result<bytes::Bytes, StoreError> {
    if spec.sealed_body { cipher.open(Column::Body, &body) } else { Ok(body) }
}

fn open_spec(spec: Spec, cipher: &TenantCipher) -> Result<Spec, StoreError> {
    let Some(sealed) = &spec.sealed else { return Ok(Spec { sealed_body: false, ..spec }) };
    let opened = cipher.open_text(Column::Spec, sealed)?;
    serde_json::from_slice(&opened).map_err(|error| StoreError::Corrupt(format!("column `spec`: {error}")))
}

/// Encrypts an attempt's record. The store reads whether it is spent, and the code of its error.
pub(super) fn seal_attempt(
    attempt: &AttemptRecord,
    cipher: &TenantCipher,
    clock: &dyn Clock,
) -> Result<AttemptRecord, StoreError> {
    let detail = &attempt.detail;
    let error = detail.error.as_ref().map(|error| AttemptError { code: error.code.clone(), message: String::new() });
    let sealed = Some(cipher.seal_text(Column::Detail, to_json(detail)?.as_bytes(), clock)?);
    let response_body = match &attempt.response_body[..] {
        [] => bytes::Bytes::new(),
        body => cipher.seal(Column::ResponseBody, body, clock)?,
    };
    let detail = AttemptDetail { spent: detail.spent, error, sealed, ..AttemptDetail::default() };
    Ok(AttemptRecord { response_body, detail, ..*attempt })
}

/// Decrypts an attempt's record.
pub(super) fn open_attempt(attempt: AttemptRecord, cipher: &TenantCipher) -> Result<AttemptRecord, StoreError> {
    let Some(sealed) = &attempt.detail.sealed else { return Ok(attempt) };
    let opened = cipher.open_text(Column::Detail, sealed)?;
    let detail =
        serde_json::from_slice(&opened).map_err(|error| StoreError::Corrupt(format!("column `detail`: {error}")))?;
    let response_body = match &attempt.response_body[..] {
        [] => bytes::Bytes::new(),
        sealed => cipher.open(Column::ResponseBody, sealed)?,
    };
    Ok(AttemptRecord { response_body, detail, ..attempt })
}

/// Encrypts the document of a schedule, which has the request and the payload of its jobs.
pub(super) fn seal_document(doc: &Value, cipher: &TenantCipher, clock: &dyn Clock) -> Result<Value, StoreError> {
    Ok(json!({SEALED: cipher.seal_text(Column::Schedule, doc.to_string().as_bytes(), clock)?}))
}

/// Returns the encrypted text of a document, if it is encrypted.
pub(super) fn sealed_document(doc: &Value) -> Option<&str> {
    let members = doc.as_object()?;
    members.get(SEALED).filter(|_| members.len() == 1)?.as_str()
}

/// Decrypts the document of a schedule.
pub(super) fn open_document(sealed: &str, cipher: &TenantCipher) -> Result<Value, StoreError> {
    let opened = cipher.open_text(Column::Schedule, sealed)?;
    serde_json::from_slice(&opened).map_err(|error| StoreError::Corrupt(format!("column `doc`: {error}")))
}

/// Encrypts the recorded response to a request with an idempotency key. It is JSON, which never begins as the encrypted text does.
pub(super) fn seal_answer(answer: &str, cipher: &TenantCipher, clock: &dyn Clock) -> Result<String, StoreError> {
    Ok(format!("{SEALED_TEXT}{}", cipher.seal_text(Column::Answer, answer.as_bytes(), clock)?))
}

/// Returns the encrypted text of a recorded response, if it is encrypted.
pub(super) fn sealed_answer(answer: &str) -> Option<&str> {
    answer.strip_prefix(SEALED_TEXT)
}

/// Decrypts a recorded response.
pub(super) fn open_answer(sealed: &str, cipher: &TenantCipher) -> Result<String, StoreError> {
    let opened = cipher.open_text(Column::Answer, sealed)?;
    String::from_utf8(opened.to_vec()).map_err(|error| StoreError::Corrupt(format!("column `doc`: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::job::SEALED_BODY;

    #[test]
    fn mark_of_an_encrypted_payload_is_at_the_end_of_the_text() {
        let hostile = json!({"sealed_body": true});
        let spec = Spec { policy: Some(hostile), ..Spec::default() };
        assert!(!to_json(&spec).unwrap().ends_with(SEALED_BODY));
        assert!(to_json(&Spec { sealed_body: true, ..spec }).unwrap().ends_with(SEALED_BODY));
        assert!(to_json(&Spec { sealed_body: true, ..Spec::default() }).unwrap().ends_with(SEALED_BODY));
    }
}
