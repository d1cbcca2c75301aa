//! Jobs that observers ask for. They go the way of all jobs: checked like those of a client, and safe when they have been stored.
//!
//! An observer is told at most once of what happens, so a job that cannot be made is not tried again: its group says why, under `observer`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::super::Api;
use super::super::error::Problem;
use super::job_doc::JobDoc;
use super::new_job::Checked;
use crate::catalog::Group;
use crate::observers::Asked;
use crate::policy::AskedJob;
use crate::policy::binding::{Invalid, pointer_to};

impl Api {
    /// Makes the jobs that observers ask for, until `stop`.
    pub async fn run_asked(self: Arc<Self>, asked: Arc<Mutex<mpsc::Receiver<Asked>>>, stop: CancellationToken) {
        let mut asked = asked.lock_owned().await;
        while let Some(Some(asked)) = stop.run_until_cancelled(asked.recv()).await {
            for job in asked.jobs {
                let made = self.make_asked(&asked.group, &asked.jobs_group, job).await;
                let refused = made.err().map(|problem| problem.detail().to_owned());
                self.observers.answered(asked.group.id, refused);
            }
        }
    }

    async fn make_asked(&self, observed: &Group, name: &str, job: AskedJob) -> Result<(), Problem> {
        let group = self.catalog.jobs_group(observed.tenant.id, name).map_err(Problem::conflict)?;
        let job = self.new_job(&group, document(job)?, self.clock.now(), &mut Checked::default()).await?;
        self.place(vec![job].into()).await?;
        Ok(())
    }
}

/// The job as a client would post it.
fn document(job: AskedJob) -> Result<JobDoc, Problem> {
    let AskedJob { name, method, url, headers, body, delay_ms } = job;
    let text = |name: &str, value| {
        String::from_utf8(value).map_err(|_| Invalid::at(format!("/headers{}", pointer_to(name)), "it is not a text"))
    };
    let headers = headers.into_iter().map(|header| Ok((header.name.clone(), text(&header.name, header.value)?)));
    Ok(JobDoc {
        url: Some(url),
        method: Some(method),
        headers: headers.collect::<Result<Vec<_>, Invalid>>()?.into(),
        payload_base64: Some(STANDARD.encode(body)),
        run_at: (delay_ms > 0).then(|| format!("+{delay_ms}ms").into()),
        name,
        ..JobDoc::default()
    })
}
