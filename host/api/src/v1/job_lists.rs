//! Lists of jobs and attempts, which are read in slices: a list ends when it fills a response, however large its entries are.

use super::super::ApiState;
use super::super::auth::Access;
use super::super::scope::visible_jobs;
use super::disclosure::Disclosure;
use super::job_view::{JobView, job_view};
use super::{Page, PageSize};
use carillon_core::job::{AttemptRecord, Job, JobId};
use carillon_core::limits::json_len;
use carillon_store::{JobsQuery, StoreError};

/// Number of jobs or attempts of one read: with their follow-up jobs, or with what receivers answered, they may have a megabyte each.
const SLICE: u32 = 24;

/// Jobs that are searched.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Scope<'a> {
    /// Those of the filter's group.
    Group,
    /// Those of all groups that the request may see.
    Visible(&'a Access),
}

/// Part of a list.
pub(in super::super) struct Slices<T> {
    /// Entries that were read.
    pub(in super::super) items: Vec<T>,
    /// Whether the list was cut off because of its size.
    pub(in super::super) is_cut: bool,
}

/// Returns the size of a job in a list that shows no payload.
pub(in super::super) fn job_len(job: &Job) -> usize {
    json_len(&job.spec)
}

/// Returns the size of a job in a list that shows its payload in base64.
pub(in super::super) fn job_with_payload_len(job: &Job) -> usize {
    let payload = usize::try_from(job.body_len).unwrap_or(usize::MAX);
    json_len(&job.spec).saturating_add(payload.saturating_mul(4) / 3)
}

/// Reads the newest jobs, until there are as many as the query asks for, or their sizes exceed `limits.answer`.
pub(in super::super) async fn read_jobs(
    api: &ApiState,
    mut query: JobsQuery,
    scope: Scope<'_>,
    len: fn(&Job) -> usize,
) -> Result<Slices<Job>, StoreError> {
    let (mut items, mut sum, mut left) = (Vec::new(), 0_usize, query.limit);
    while left > 0 {
        query.limit = left.min(SLICE);
        let slice = match scope {
            Scope::Group => api.services.store.jobs(query.clone()).await?,
            Scope::Visible(access) => visible_jobs(api, access, query.clone()).await?,
        };
        let count = u32::try_from(slice.len()).unwrap_or(u32::MAX);
        left = left.saturating_sub(count);
        query.before = slice.last().map(|job| job.id);
        sum = slice.iter().map(len).fold(sum, usize::saturating_add);
        items.extend(slice);
        if count < query.limit {
            break;
        }
        if sum > api.config.limits.answer {
            return Ok(Slices { items, is_cut: left > 0 });
        }
    }
    Ok(Slices { items, is_cut: false })
}

/// Reads a job's attempts in the same way, oldest first.
pub(super) async fn read_attempts(
    api: &ApiState,
    access: &Access,
    job: JobId,
    mut after: u32,
    mut left: u32,
) -> Result<Slices<AttemptRecord>, StoreError> {
    let len = |attempt: &AttemptRecord| json_len(&attempt.detail).saturating_add(attempt.response_body.len());
    let (mut items, mut sum) = (Vec::new(), 0_usize);
    while left > 0 {
        let limit = left.min(SLICE);
        let slice = api.services.store.attempts(access.tenant.id, job, after, limit).await?;
        let count = u32::try_from(slice.len()).unwrap_or(u32::MAX);
        left = left.saturating_sub(count);
        after = slice.last().map_or(after, |attempt| attempt.number);
        sum = slice.iter().map(len).fold(sum, usize::saturating_add);
        items.extend(slice);
        if count < limit {
            break;
        }
        if sum > api.config.limits.answer {
            return Ok(Slices { items, is_cut: left > 0 });
        }
    }
    Ok(Slices { items, is_cut: false })
}

/// Returns the page of these jobs.
pub(super) fn job_page(api: &ApiState, access: &Access, jobs: Slices<Job>, size: PageSize) -> Page<JobView> {
    let disclosure = Disclosure::from(access);
    let views = jobs.items.into_iter().map(|job| job_view(api, job).disclosed(disclosure)).collect();
    Page::cut(views, size.count, JobView::cursor).continued(jobs.is_cut).within(size.bytes)
}
