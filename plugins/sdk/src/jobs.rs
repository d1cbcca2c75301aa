//! An observer's way to tell somebody of what it has seen: it asks for a job, in the group that its binding names as `jobs`.
//!
//! On other targets than wasm32 there is no host: what is asked for is kept for `testing::asked_jobs`.

#[cfg(target_arch = "wasm32")]
use crate::bindings::shared::jobs::create as ask;
use crate::{Header, JobRefusal, NewJob};

/// Asks for a job. It is made when the call has ended well.
///
/// # Errors
/// If the binding names no group for it, or the call has asked for too much.
pub fn create(job: &NewJob) -> Result<(), JobRefusal> {
    ask(job)
}

impl NewJob {
    /// A `POST` of a JSON text that is due at once.
    pub fn post_json(url: impl Into<String>, json: impl Into<String>) -> Self {
        let json_type = Header { name: "content-type".to_owned(), value: b"application/json".to_vec() };
        Self {
            name: None,
            method: "POST".to_owned(),
            url: url.into(),
            headers: vec![json_type],
            body: json.into().into_bytes(),
            delay_ms: 0,
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
std::thread_local! {
    /// What this thread has asked for.
    pub(crate) static ASKED: std::cell::RefCell<Vec<NewJob>> = const { std::cell::RefCell::new(Vec::new()) };
}

#[cfg(not(target_arch = "wasm32"))]
fn ask(job: &NewJob) -> Result<(), JobRefusal> {
    ASKED.with_borrow_mut(|asked| asked.push(job.clone()));
    Ok(())
}
