//! Jobs on their way into the inner store and out of it.

use std::sync::Arc;

use super::cipher::TenantCipher;
use super::{SealedStore, forms};
use carillon_core::job::{Job, LeasedJob, NewJob, Settlement};
use carillon_store::unreadable::{Claimed, UnreadableJob, note};
use carillon_store::{IdempotentRequest, InsertOutcome, StoreError};

impl SealedStore {
    /// Encrypts jobs that are to be stored.
    pub(super) async fn sealed_jobs(&self, jobs: Vec<NewJob>) -> Result<Vec<NewJob>, StoreError> {
        let mut sealed = Vec::with_capacity(jobs.len());
        for job in jobs {
            let cipher = self.keys.for_new(job.tenant).await?;
            sealed.push(forms::seal_job(job, &cipher, &*self.clock)?);
        }
        Ok(sealed)
    }

    /// Encrypts the response that is recorded for a request. It is written in the store's transaction, from jobs in their stored form.
    pub(super) async fn sealed_request(&self, once: IdempotentRequest) -> Result<IdempotentRequest, StoreError> {
        let (cipher, clock, answer) = (self.keys.for_new(once.tenant).await?, Arc::clone(&self.clock), once.answer);
        let answer = Arc::new(move |outcomes: &[InsertOutcome]| {
            let opened: Vec<_> = outcomes.iter().map(|outcome| opened_or_bare(outcome, Some(&cipher))).collect();
            // A response is much shorter than the cipher's limit.
            forms::seal_answer(&answer(&opened), &cipher, &*clock).unwrap_or_default()
        });
        Ok(IdempotentRequest { answer, ..once })
    }

    /// Encrypts the attempt and the follow-up jobs of a settlement. The record of a job that cannot be read has nothing of the job.
    ///
    /// If the tenant has no key, because it was deleted or its key is lost, nothing is stored but the result: the settlements of others, which
    /// are written together with this one, must not fail.
    pub(super) async fn sealed_settlement(&self, settlement: Settlement) -> Result<Settlement, StoreError> {
        match self.settlement_with_key(settlement.clone()).await {
            Err(error @ (StoreError::Corrupt(_) | StoreError::Conflict(_))) => {
                tracing::error!(job = %settlement.id, %error, "record of an attempt cannot be encrypted; storing the result alone");
                Ok(settlement.reduced(&error.to_string()))
            }
            sealed => sealed,
        }
    }

    async fn settlement_with_key(&self, mut settlement: Settlement) -> Result<Settlement, StoreError> {
        settlement.follow_ups = self.sealed_jobs(std::mem::take(&mut settlement.follow_ups)).await?;
        if let Some((attempt, tenant)) = settlement.attempt.as_ref().zip(settlement.tenant()) {
            let cipher = self.keys.for_new(tenant).await?;
            settlement.attempt = Some(Arc::new(forms::seal_attempt(attempt, &cipher, &*self.clock)?));
        }
        Ok(settlement)
    }

    /// Decrypts a job.
    pub(super) async fn opened(&self, job: Job) -> Result<Job, StoreError> {
        if !forms::is_sealed(&job.spec) {
            return Ok(job);
        }
        let cipher = self.keys.for_stored(job.tenant).await?;
        forms::open_job(job, &cipher)
    }

    /// Decrypts jobs of a list, which leaves out those that cannot be decrypted.
    pub(super) async fn listed(&self, jobs: Vec<Job>) -> Result<Vec<Job>, StoreError> {
        let mut listed = Vec::with_capacity(jobs.len());
        for job in jobs {
            let id = job.id;
            match self.opened(job).await {
                Err(error @ StoreError::Corrupt(_)) => note(Some(id), &error),
                opened => listed.push(opened?),
            }
        }
        Ok(listed)
    }

    /// Decrypts the jobs of an outcome. The request is carried out already, so a job that cannot be decrypted shows what is readable of it.
    pub(super) async fn opened_outcome(&self, outcome: InsertOutcome) -> InsertOutcome {
        let jobs = match &outcome {
            InsertOutcome::Duplicate(job) | InsertOutcome::Debounced(job) => vec![job],
            InsertOutcome::Carried { job, before } => vec![job, before],
            _ => Vec::new(),
        };
        let sealed = jobs.into_iter().find(|job| forms::is_sealed(&job.spec)).map(|job| (job.tenant, job.id));
        let Some((tenant, id)) = sealed else { return outcome };
        let cipher = self.keys.for_stored(tenant).await.inspect_err(|error| note(Some(id), error)).ok();
        opened_or_bare(&outcome, cipher.as_deref())
    }

    /// Decrypts one job that was asked for.
    pub(super) async fn only(&self, job: Job) -> Result<Job, StoreError> {
        let id = job.id;
        match self.opened(job).await {
            Err(error @ StoreError::Corrupt(_)) => {
                note(Some(id), &error);
                Err(StoreError::Unreadable(id))
            }
            opened => opened,
        }
    }

    /// Decrypts leased jobs. Those that cannot be decrypted are kept apart.
    pub(super) async fn claimed(&self, leased: Vec<LeasedJob>) -> Result<Claimed, StoreError> {
        let mut claimed = Claimed::default();
        for one in leased {
            if !forms::is_sealed(&one.job.spec) {
                claimed.leased.push(one);
                continue;
            }
            let (lease, attempt_count) = (one.lease(), Some(one.job.attempt_count));
            let opened = match self.keys.for_stored(one.job.tenant).await {
                Ok(cipher) => forms::open_leased(one, &cipher),
                Err(error) => Err(error),
            };
            match opened {
                Ok(one) => claimed.leased.push(one),
                Err(error @ StoreError::Corrupt(_)) => {
                    note(Some(lease.0), &error);
                    claimed.unreadable.push(UnreadableJob { lease, attempt_count, error });
                }
                // The leases end, and other nodes take the jobs.
                Err(error) => return Err(error),
            }
        }
        Ok(claimed)
    }
}

/// Returns an outcome with its jobs decrypted, or with what is readable of them.
fn opened_or_bare(outcome: &InsertOutcome, cipher: Option<&TenantCipher>) -> InsertOutcome {
    let opened = |job: &Job| {
        let opened = cipher.and_then(|cipher| forms::open_job(job.clone(), cipher).ok());
        Box::new(opened.unwrap_or_else(|| forms::bare_job(job)))
    };
    match outcome {
        InsertOutcome::Duplicate(job) => InsertOutcome::Duplicate(opened(job)),
        InsertOutcome::Debounced(job) => InsertOutcome::Debounced(opened(job)),
        InsertOutcome::Carried { job, before } => InsertOutcome::Carried { job: opened(job), before: opened(before) },
        other => other.clone(),
    }
}
