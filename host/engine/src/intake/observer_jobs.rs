//! Jobs that observers request. They take the way of all jobs: checked like a client's, and durable once they are stored.
//!
//! An observer sees an event at most once, so a job that cannot be made is not tried again: its group shows the reason under `observer`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio_util::sync::CancellationToken;

use super::Intake;
use super::build::ValidationCache;
use super::error::IntakeError;
use super::input::JobInput;
use crate::observers::ObserverRunner;
use carillon_catalog::Group;
use carillon_policy::AskedJob;
use carillon_policy::binding::{Invalid, pointer_to};

/// Makes the jobs that observers request, until `stop`.
pub async fn make_requested_jobs(intake: Arc<Intake>, observers: Arc<ObserverRunner>, stop: CancellationToken) {
    let mut requested = observers.requested().await;
    while let Some(Some(requested)) = stop.run_until_cancelled(requested.recv()).await {
        for job in requested.jobs {
            let made = make(&intake, &requested.group, &requested.jobs_group, job).await;
            observers.answered(requested.group.id, made.err().map(|error| error.to_string()));
        }
    }
}

async fn make(intake: &Intake, observed: &Group, name: &str, job: AskedJob) -> Result<(), IntakeError> {
    let group = intake.services.catalog.jobs_group(observed.tenant.id, name).map_err(IntakeError::conflict)?;
    let job =
        intake.new_job(&group, document(job)?, intake.services.clock.now(), &mut ValidationCache::default()).await?;
    intake.accept(observed.tenant.id, vec![job].into()).await?;
    Ok(())
}

/// Builds the job's document, as a client would post it.
fn document(job: AskedJob) -> Result<JobInput, IntakeError> {
    let AskedJob { name, method, url, headers, body, delay_ms } = job;
    let text = |name: &str, value| {
        String::from_utf8(value)
            .map_err(|_| Invalid::at(format!("/headers{}", pointer_to(name)), "the value of the header is not text"))
    };
    let headers = headers.into_iter().map(|header| Ok((header.name.clone(), text(&header.name, header.value)?)));
    Ok(JobInput {
        url: Some(url),
        method: Some(method),
        headers: headers.collect::<Result<Vec<_>, Invalid>>()?.into(),
        payload_base64: Some(STANDARD.encode(body)),
        run_at: (delay_ms > 0).then(|| format!("+{delay_ms}ms").into()),
        name,
        ..JobInput::default()
    })
}
