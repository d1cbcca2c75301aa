//! Golden files of the documents that are stored with each job and attempt.

use super::{AttemptDetail, LastAccepted, Outcome, Overlap, Spec, State};
use crate::test_util::assert_stored_form;

#[test]
fn stored_documents_of_jobs_and_attempts_keep_their_form() {
    assert_stored_form::<Spec>(include_str!("stored_documents/spec.json"));
    assert_stored_form::<AttemptDetail>(include_str!("stored_documents/attempt_detail.json"));
    assert_stored_form::<LastAccepted>(include_str!("stored_documents/debounce.json"));
}

#[test]
fn stored_values_of_jobs_and_attempts_keep_their_names() {
    for state in ["scheduled", "running", "succeeded", "dead", "expired", "cancelled"] {
        assert_stored_form::<State>(&format!("\"{state}\""));
    }
    for outcome in ["success", "retryable", "permanent"] {
        assert_stored_form::<Outcome>(&format!("\"{outcome}\""));
    }
    for overlap in ["skip", "queue", "cancel", "allow"] {
        assert_stored_form::<Overlap>(&format!("\"{overlap}\""));
    }
}

#[test]
#[should_panic(expected = "another form than before")]
fn stored_document_with_another_name_of_a_field_is_noticed() {
    assert_stored_form::<AttemptDetail>(r#"{"spent": true, "request_sha256": "00"}"#);
}
