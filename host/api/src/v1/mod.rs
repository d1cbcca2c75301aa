//! The native API under `/v1`: one file for each noun. Every handler takes what its route needs, calls one verb, and shapes the
//! answer; nothing is decided here.

pub(super) mod attempts;
pub(super) mod audit;
pub(super) mod bulk;
pub(super) mod contents;
pub(super) mod copies;
mod disclosure;
pub(super) mod events;
mod group_view;
pub(super) mod groups;
mod handed_over;
pub(super) mod health;
pub(super) mod job_changes;
mod job_filter;
pub(super) mod job_lists;
mod job_patch;
mod job_view;
pub(super) mod jobs;
pub(super) mod keys;
pub(super) mod leases;
pub(super) mod nodes;
pub(super) mod plugins;
pub(super) mod quarantine;
mod quarantine_view;
pub(super) mod replays;
pub(super) mod schedule_patch;
pub(super) mod schedule_runs;
mod schedule_view;
mod schedule_warnings;
pub(super) mod schedules;
pub(super) mod shadow;
pub(super) mod simulate;
pub(super) mod tenants;
pub(super) mod tokens;
pub(super) mod versions;
mod views;

use std::sync::Arc;

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::ApiState;
use super::auth::Access;
use super::error::Problem;
use carillon_catalog::Group;
use carillon_core::limits::json_len;

/// Entries of a page if the client does not say.
const PAGE: u32 = 100;

/// The most entries of a page.
const MAX_PAGE: u32 = 1_000;

/// Page of a list that a client requests.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Paging {
    /// Cursor: `next_cursor` of the previous page.
    cursor: Option<String>,
    /// Largest number of entries: 1 to 1000. Default: 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

impl Paging {
    fn limit(&self) -> Result<u32, Problem> {
        match self.limit.unwrap_or(PAGE) {
            limit @ 1..=MAX_PAGE => Ok(limit),
            _ => Err(Problem::parameter("limit", format!("`limit` must be a whole number from 1 to {MAX_PAGE}"))),
        }
    }
}

/// A cursor is not one that a page ended with.
fn foreign_cursor() -> Problem {
    Problem::parameter("cursor", "`cursor` is not the `next_cursor` of a page of this list")
}

/// Page of a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Page<T> {
    /// Entries of the page.
    items: Vec<T>,
    /// Cursor of the next page; null on the last page.
    next_cursor: Option<String>,
    /// Cursor of each entry.
    #[serde(skip)]
    cursors: Vec<String>,
}

/// Size at which a page ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageSize {
    /// Number of entries.
    count: u32,
    /// Bytes of the entries together.
    bytes: usize,
}

impl<T> Page<T> {
    /// `items` may hold one entry more than `limit`, which says that there is a next page.
    fn cut(mut items: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let cursors: Vec<_> = items.iter().map(cursor).collect();
        let next_cursor = cursors.last().filter(|_| more).cloned();
        Self { items, next_cursor, cursors }
    }

    /// The same page, which another one follows if `is_cut`.
    fn continued(mut self, is_cut: bool) -> Self {
        if is_cut && self.next_cursor.is_none() {
            self.next_cursor = self.cursors.last().cloned();
        }
        self
    }

    /// The same page, with each entry as `view` shows it.
    fn shown<V>(self, view: impl FnMut(T) -> Result<V, Problem>) -> Result<Page<V>, Problem> {
        let items = self.items.into_iter().map(view).collect::<Result<_, _>>()?;
        Ok(Page { items, next_cursor: self.next_cursor, cursors: self.cursors })
    }

    /// The same page without the entries that exceed its size in bytes; it has one entry at least.
    fn within(mut self, bytes: usize) -> Self
    where
        T: Serialize,
    {
        let mut sum = 0_usize;
        let fits = |item: &&T| {
            sum = sum.saturating_add(json_len(item)).saturating_add(1);
            sum <= bytes
        };
        let fitting = self.items.iter().take_while(fits).count().max(1);
        if fitting < self.items.len() {
            self.items.truncate(fitting);
            self.next_cursor = self.cursors.get(fitting - 1).cloned();
        }
        self
    }

    /// The page of a list that is held in memory, in the order of `name`.
    fn of_sorted(items: Vec<T>, paging: &Paging, name: impl Fn(&T) -> String) -> Result<Self, Problem> {
        let limit = paging.limit()?;
        let after = |item: &T| paging.cursor.as_ref().is_none_or(|cursor| name(item) > *cursor);
        let rest = items.into_iter().filter(after).take(usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1));
        Ok(Self::cut(rest.collect(), limit, name))
    }

    /// The page of a list that is held in memory in the order of `id`, the last one first.
    fn of_newest(items: Vec<T>, paging: &Paging, id: impl Fn(&T) -> String) -> Result<Self, Problem> {
        let limit = paging.limit()?;
        let after = |item: &T| paging.cursor.as_ref().is_none_or(|cursor| id(item) < *cursor);
        let rest = items.into_iter().rev().filter(after);
        let rest = rest.take(usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1));
        Ok(Self::cut(rest.collect(), limit, id))
    }

    /// The page of a list that is held in memory, in the order of `number`, the highest first.
    fn of_numbered(items: Vec<T>, paging: &Paging, number: impl Fn(&T) -> i64) -> Result<Self, Problem> {
        let limit = paging.limit()?;
        let before = paging.cursor.as_deref().map(str::parse::<i64>).transpose();
        let before = before.map_err(|_| foreign_cursor())?;
        let after = |item: &T| before.is_none_or(|before| number(item) < before);
        let rest = items.into_iter().filter(after).take(usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1));
        Ok(Self::cut(rest.collect(), limit, |item| number(item).to_string()))
    }
}

/// Answers the removal of a thing: 204, or 404 if it was not there.
fn removed(was_there: bool, what: &str, name: &str) -> Result<StatusCode, Problem> {
    if was_there { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::unknown(what, name)) }
}

/// Returns the size of a page that a client requests.
fn page_size(api: &ApiState, paging: &Paging) -> Result<PageSize, Problem> {
    Ok(PageSize { count: paging.limit()?, bytes: api.config.limits.answer })
}

fn find_group(api: &ApiState, access: &Access, name: &str) -> Result<Arc<Group>, Problem> {
    let group = api.services.catalog.group(access.tenant.id, name).filter(|group| access.sees(&group.name));
    group.ok_or_else(|| Problem::unknown("group", name))
}
