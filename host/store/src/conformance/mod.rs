//! Contract of every backend, as named cases against `dyn Store`.
//!
//! A backend runs all cases with `conformance!(path::to::a_function)`, each as a test of its own; the function returns a [`Backend`] on an
//! empty database. Where each test would need its own database server, `conformance!(as list)` gives the same cases as a list. A case that is
//! added to the list below runs on every backend.

pub mod admit;
pub mod audit;
pub mod catalog;
pub mod change;
pub mod insert;
pub mod lease;
pub mod left;
pub mod list;
pub mod machine;
pub mod model;
pub mod order;
pub mod settle;
pub mod ticks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use serde_json::json;
use uuid::Uuid;

use super::{
    Audit, ChangeOutcome, ClaimDue, ClaimLost, DeleteEntity, Entity, JobChange, Kind, Precondition, Prune, PutEntity,
    Store,
};
use carillon_core::audit::AuditId;
use carillon_core::clock::UnixMs;
use carillon_core::error_code::{ErrorCode, TransportError};
use carillon_core::job::{
    Admission, AttemptDetail, AttemptError, AttemptRecord, DispatchMode, GroupId, Job, JobId, LeasedJob, NewJob,
    Outcome, Priority, Spec, State, Target, TenantId,
};
use carillon_core::test_util::new_job;

/// Makes a test of each case for a backend, or a list of all cases.
#[macro_export]
macro_rules! conformance {
    (as list) => { $crate::conformance! { cases list } };
    ($backend:path) => { $crate::conformance! { cases $backend } };
    (cases $($form:tt)+) => {
        $crate::conformance! { ($($form)+)
            insert: [
                gives_everything_back, is_all_or_nothing_with_a_duplicate, is_all_or_nothing_in_a_large_call, refuses_an_id_twice_in_one_call,
                refuses_a_group_that_is_not_there, refuses_too_many, fails_alone, survives_reopening,
                is_seen_by_the_next_read, takes_the_most_that_is_allowed,
            ]
            lease: [
                goes_to_the_earliest_within_the_quota, never_comes_early, comes_from_the_named_groups_only,
                comes_from_many_groups_at_once, is_given_once, waiting_groups_are_named_with_their_earliest_job,
                that_ran_out_is_given_anew, that_ran_out_cannot_settle_or_extend, is_taken_back_only_where_it_is_named,
                that_was_lost_to_a_pause_is_not_counted, can_be_prolonged, is_moved_back_only_where_that_is_asked_for,
                of_a_job_that_cannot_be_read_ends_it_and_others_flow_on, unreadable_jobs_take_no_place_of_a_claim,
                of_an_unreadable_job_is_revoked_at_the_present_time,
                shows_the_last_hundred_attempts, survives_reopening_or_ends,
            ]
            settle: [
                success_ends_a_job, retry_puts_a_job_back, every_error_code_comes_back, held_spends_nothing_and_is_replaced, released_leaves_no_trace,
                a_claim_sees_what_began_to_be_settled_before_it, answers_in_order, applies_the_first_of_two, many_at_once, cancel_in_every_state,
                cancel_while_running_replaces_a_retry_only, prune_keeps_what_is_younger, prune_is_bounded,
            ]
            order: [
                priority_goes_first, one_of_a_key_at_a_time_in_order, a_key_is_free_after_each_kind_of_end, a_redriven_job_waits_for_its_key,
                jobs_to_pull_are_apart, what_a_priority_is_owed_goes_first,
            ]
            admit: [
                a_request_is_carried_out_once, a_key_of_another_request_is_refused, a_dedupe_key_holds_for_its_window,
                only_a_job_that_does_the_work_has_duplicates, a_debounced_job_carries_the_newest_request,
                a_debounced_request_is_in_the_job_that_starts_or_in_the_next, of_many_newest_requests_one_is_carried,
                of_many_debounced_producers_one_pushes_now_and_one_later, a_debounced_job_that_was_cancelled_skips_nothing,
                kinds_of_keys_are_apart, jobs_of_one_name_are_replaced, a_job_is_moved_unless_it_runs, what_is_remembered_is_pruned,
            ]
            ticks: [
                a_tick_makes_one_job,
                a_tick_skips_queues_or_cancels,
                a_run_waits_for_the_one_whose_place_it_takes,
                skipped_ticks_are_written_once_and_stay_when_they_are_made_up_for,
                runs_that_were_asked_for_do_not_count_and_say_nothing_of_earlier_ticks,
                a_schedule_stops_at_its_most_runs,
                a_schedule_that_has_gone_leaves_no_count,
            ]
            change: [
                each_change_in_each_state, a_redrive_begins_a_new_series, each_life_is_as_long_as_the_first, an_edit_replaces_and_counts, an_edit_that_keeps_a_payload_keeps_its_mark, many_are_changed_in_order,
                overdue_jobs_are_found, a_job_that_cannot_be_read_is_cancelled_and_purged, follow_ups_come_with_the_settlement, a_lease_is_held_by_its_newest_token,
            ]
            list: [
                tenants_are_apart, pages_go_from_new_to_old, pages_of_a_tenant_merge_its_groups, pages_filter_by_state_and_name, attempts_are_paged,
                stats_are_exact, the_backlog_is_what_waits, filters_find_and_count, the_newest_of_each_name_in_order,
                what_cannot_be_read_is_left_out_and_shortens_no_page, unfinished_jobs_of_a_tenant_are_counted_over_its_groups,
                job_bytes_are_those_of_payloads_documents_and_attempts,
            ]
            catalog: [
                put_counts_versions, put_expects, names_are_unique_per_tenant_and_kind, generation_rises_with_each_change, a_change_is_read_without_the_rest,
                delete_frees_the_name_and_not_the_id, delete_waits_for_unfinished_jobs, deleted_group_is_emptied_by_prune,
                components_are_kept_while_a_plugin_names_them, a_plugin_goes_only_if_nothing_has_changed,
                the_first_proof_of_the_master_key_is_kept, sealed_values_are_replaced_together_or_not_at_all, survives_reopening,
            ]
            audit: [
                an_entry_is_written_with_its_change_and_not_without, entries_are_found_by_what_they_name,
                chains_are_kept_for_each_node_and_survive_reopening, a_changed_row_is_found, entries_are_pruned_by_age,
                entries_of_concurrent_changes_follow_each_other,
            ]
            left: [
                a_year_after_everything_is_deleted_nothing_is_left, each_schedule_takes_its_ticks_along,
                deleted_tenant_leaves_nothing_and_its_namesake_has_nothing, deletion_of_a_tenant_goes_on_in_slices_after_reopening,
            ]
            machine: [random_walks_follow_the_diagram]
        }
    };
    ((list) $($module:ident: [$($case:ident),* $(,)?])*) => {
        [$( $( $crate::conformance::Case {
            name: concat!(stringify!($module), "::", stringify!($case)),
            run: |world| Box::pin($crate::conformance::$module::$case(world)),
        }, )* )*]
    };
    (($backend:path) $($module:ident: [$($case:ident),* $(,)?])*) => { $(
        mod $module { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let world = $crate::conformance::World::new(Box::new($backend().await)).await;
                $crate::conformance::$module::$case(&world).await;
            }
        )* }
    )* };
}
/// A case and its name.
pub struct Case {
    pub name: &'static str,
    pub run: for<'w> fn(&'w World) -> LocalBoxFuture<'w, ()>,
}

/// A database that can be closed and opened again.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Closes the store that an earlier call opened, if there is one, and opens the same database.
    async fn open(&self) -> Arc<dyn Store>;

    /// Makes the stored row of a job unreadable.
    async fn damage(&self, id: JobId);

    /// Makes the stored rows of a job's attempts unreadable.
    async fn damage_attempts(&self, id: JobId);

    /// Changes a stored entry of the audit log behind the store's back.
    async fn forge_audit(&self, id: AuditId);

    /// Counts the rows of each table, partitions included, without the rows that an empty database has.
    async fn rows(&self) -> BTreeMap<String, u64>;
}

#[async_trait]
impl<B: Backend + ?Sized> Backend for Arc<B> {
    async fn open(&self) -> Arc<dyn Store> {
        (**self).open().await
    }

    async fn rows(&self) -> BTreeMap<String, u64> {
        (**self).rows().await
    }

    async fn damage(&self, id: JobId) {
        (**self).damage(id).await;
    }

    async fn damage_attempts(&self, id: JobId) {
        (**self).damage_attempts(id).await;
    }

    async fn forge_audit(&self, id: AuditId) {
        (**self).forge_audit(id).await;
    }
}

/// Tables that have rows in an empty database.
pub const TABLES_WITH_ROWS: [&str; 5] = ["_sqlx_migrations", "generation", "level", "carillon", "sqlite_sequence"];

/// Current time in the tests.
pub const NOW: UnixMs = UnixMs(1_795_168_800_000);

/// Duration of leases.
pub const LEASE: Duration = Duration::from_secs(30);

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A store with a tenant and a group.
pub struct World {
    backend: Box<dyn Backend>,
    pub store: Arc<dyn Store>,
    pub tenant: TenantId,
    pub group: GroupId,
}

impl World {
    pub async fn new(backend: Box<dyn Backend>) -> Self {
        let store = backend.open().await;
        let mut world = Self { backend, store, tenant: TenantId(0), group: GroupId(0) };
        world.tenant = TenantId(world.put(0, Kind::Tenant, "acme").await.id);
        world.group = world.new_group("reminders").await;
        world
    }

    /// Counts the rows of each table that has any.
    pub async fn rows(&self) -> BTreeMap<String, u64> {
        let mut rows = self.backend.rows().await;
        rows.retain(|_, count| *count > 0);
        rows
    }

    pub async fn damage(&self, id: JobId) {
        self.backend.damage(id).await;
    }

    pub async fn damage_attempts(&self, id: JobId) {
        self.backend.damage_attempts(id).await;
    }

    pub async fn forge_audit(&self, id: AuditId) {
        self.backend.forge_audit(id).await;
    }

    /// Returns the store after a restart.
    pub async fn reopened(&self) -> Arc<dyn Store> {
        self.backend.open().await
    }

    pub async fn put(&self, tenant: i64, kind: Kind, name: &str) -> Entity {
        self.store.put(an_entity(tenant, kind, name, Precondition::Anything)).await.unwrap().done
    }

    pub async fn new_group(&self, name: &str) -> GroupId {
        GroupId(self.put(self.tenant.0, Kind::Group, name).await.id)
    }

    /// Returns a job of the group that is due at `run_at`.
    pub fn job(&self, run_at: UnixMs) -> NewJob {
        self.job_in(self.group, run_at)
    }

    pub fn job_in(&self, group: GroupId, run_at: UnixMs) -> NewJob {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = Uuid::from_u128(u128::from(NEXT.fetch_add(1, Ordering::Relaxed)) << 64);
        let target = Target { method: "POST".to_owned(), url: "https://example.org/".to_owned(), headers: Vec::new() };
        let job = new_job().id(JobId(id)).of(self.tenant, group).run_at(run_at).created_at(NOW).seed(7);
        job.target(target).body(Bytes::from_static(b"{}")).build()
    }

    /// Stores `count` jobs that are due now, and returns their ids in order.
    pub async fn insert_due(&self, count: usize) -> Vec<JobId> {
        let jobs: Vec<NewJob> = (0..count).map(|_| self.job(NOW)).collect();
        let ids = jobs.iter().map(|job| job.id).collect();
        self.store.insert(jobs.into()).await.unwrap();
        ids
    }

    /// Leases at most `quota` jobs of the group that are due at `now`.
    pub async fn claim(&self, now: UnixMs, quota: u32) -> Vec<LeasedJob> {
        claim(&*self.store, self.group, now, quota).await
    }

    /// Stores a job that is due now, and leases it.
    pub async fn leased(&self) -> LeasedJob {
        let [id] = self.insert_due(1).await[..] else { unreachable!() };
        let leased = self.claim(NOW, 1_000).await;
        leased.into_iter().find(|leased| leased.job.id == id).unwrap()
    }

    pub async fn change(&self, id: JobId, change: JobChange) -> ChangeOutcome {
        self.store.change(self.tenant, vec![id], change, NOW).await.unwrap()[0]
    }

    /// Removes jobs that ended in these states at or before these times.
    pub async fn prune(&self, ended: &[(State, UnixMs)], limit: u32) -> u32 {
        self.store.prune(Prune { ended: ended.to_vec(), limit, ..Prune::default() }).await.unwrap()
    }

    pub async fn get(&self, id: JobId) -> Job {
        self.store.job(self.tenant, id).await.unwrap().unwrap()
    }

    pub async fn state(&self, id: JobId) -> State {
        self.get(id).await.state
    }
}

pub async fn claim(store: &dyn Store, group: GroupId, now: UnixMs, quota: u32) -> Vec<LeasedJob> {
    store
        .claim_due(ClaimDue {
            due_by: now,
            lease_until: now.plus(LEASE),
            mode: DispatchMode::Push,
            quotas: vec![(group, quota)],
            owed: Vec::new(),
        })
        .await
        .unwrap()
}

/// Leases anew at most `limit` jobs whose leases have ended at `now`.
pub async fn claim_lost(store: &dyn Store, now: UnixMs, lease_until: UnixMs, limit: u32) -> Vec<LeasedJob> {
    let ended = store.ending_leases(now, now, limit).await.unwrap();
    let lost = ended.into_iter().map(|(lease, _)| lease).collect();
    store.claim_lost(ClaimLost { lost, ended_by: now, now, lease_until }).await.unwrap()
}

pub fn an_entity(tenant: i64, kind: Kind, name: &str, expect: Precondition) -> PutEntity {
    PutEntity {
        tenant,
        kind,
        name: name.to_owned(),
        doc: json!({"of": name}),
        now: NOW,
        expect,
        needs: Vec::new(),
        component: None,
        audit: Audit::Upkeep,
    }
}

pub fn a_removal(tenant: i64, kind: Kind, name: String) -> DeleteEntity {
    DeleteEntity { tenant, kind, name, now: NOW, generation: None, audit: Audit::Upkeep }
}

/// Returns a version of a plugin whose component has this digest.
pub fn a_plugin(tenant: i64, name: &str, digest: &str, component: &[u8]) -> PutEntity {
    let component = Some((digest.to_owned(), Bytes::copy_from_slice(component)));
    PutEntity {
        doc: json!({"digest": digest}),
        component,
        ..an_entity(tenant, Kind::Plugin, name, Precondition::Anything)
    }
}

pub fn ids(leased: &[LeasedJob]) -> Vec<JobId> {
    leased.iter().map(|leased| leased.job.id).collect()
}

/// Returns the next attempt of a leased job, with the response's `status`, or without a response.
pub fn an_attempt(leased: &LeasedJob, status: Option<u16>) -> AttemptRecord {
    let error = AttemptError { code: TransportError::Timeout.into(), message: "no answer within 10 s".to_owned() };
    AttemptRecord {
        number: leased.number(),
        started_at: NOW,
        finished_at: NOW.plus(ms(12)),
        outcome: if status == Some(200) { Outcome::Success } else { Outcome::Retryable },
        status,
        response_body: Bytes::from_static(b"\xff\x00 not text"),
        detail: AttemptDetail {
            spent: true,
            error: status.is_none().then_some(error),
            response_headers: vec![("server".to_owned(), "test".to_owned())],
            ..AttemptDetail::default()
        },
    }
}
