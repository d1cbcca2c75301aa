//! Cases of reading jobs, attempts and counts.

use super::*;
use crate::{JobFilter, JobsQuery, NamesQuery, Stats};
use carillon_core::job::Settlement;

/// Returns the query for all jobs of the world's group.
pub fn all(world: &World) -> JobsQuery {
    JobsQuery { filter: JobFilter::all(world.tenant, world.group), before: None, limit: 1_000 }
}

async fn listed(world: &World, query: JobsQuery) -> Vec<JobId> {
    world.store.jobs(query).await.unwrap().into_iter().map(|job| job.id).collect()
}

pub async fn tenants_are_apart(world: &World) {
    let stranger = TenantId(world.put(0, Kind::Tenant, "stranger").await.id);
    let leased = world.leased().await;
    let id = leased.job.id;
    let settled = Settlement::retry(&leased, NOW, an_attempt(&leased, None), NOW);
    world.store.settle(vec![settled]).await.unwrap();

    assert_eq!(world.store.job(stranger, id).await.unwrap(), None);
    assert_eq!(world.store.body(stranger, id).await.unwrap(), None);
    assert!(world.store.attempts(stranger, id, 0, 10).await.unwrap().is_empty());
    assert_eq!(world.store.change(stranger, vec![id], JobChange::Cancel, NOW).await.unwrap(), [ChangeOutcome::Unknown]);
    assert_eq!(world.store.stats(stranger, world.group, NOW).await.unwrap(), Stats::default());
    for (state, name) in [(None, None), (Some(State::Scheduled), None), (None, Some("n".to_owned()))] {
        let filter = JobFilter { state, name, ..JobFilter::all(stranger, world.group) };
        assert_eq!(world.store.count(filter.clone()).await.unwrap(), 0);
        let query = JobsQuery { filter, ..all(world) };
        assert!(world.store.jobs(query).await.unwrap().is_empty());
    }
    let job = world.get(id).await;
    assert!(job.state == State::Scheduled && !job.cancel_requested);
    assert_eq!(listed(world, all(world)).await, [id]);
}

/// Makes two jobs in each state, the older ones named `one`, the younger `two`; returns ids from new to old with their states and names.
async fn two_in_each_state(world: &World) -> Vec<(JobId, State, &'static str)> {
    let mut made = Vec::new();
    for name in ["one", "two"] {
        for state in State::ALL {
            let job = NewJob { name: Some(name.to_owned()), ..world.job(NOW) };
            let id = job.id;
            made.push((id, state, name));
            world.store.insert(vec![job].into()).await.unwrap();
            match state {
                State::Scheduled => continue,
                State::Cancelled => {
                    world.change(id, JobChange::Cancel).await;
                    continue;
                }
                _ => {}
            }
            let leased = world.claim(NOW, 10).await;
            let (this, others): (Vec<_>, Vec<_>) = leased.into_iter().partition(|leased| leased.job.id == id);
            let mut settlements: Vec<_> = others.iter().map(|other| Settlement::released(other, NOW)).collect();
            let attempt = an_attempt(&this[0], Some(200));
            match state {
                State::Succeeded => settlements.push(Settlement::succeeded(&this[0], NOW, attempt)),
                State::Dead => settlements.push(Settlement::dead(&this[0], NOW, attempt)),
                State::Expired => settlements.push(Settlement::expired(&this[0], NOW, None)),
                _ => {}
            }
            world.store.settle(settlements).await.unwrap();
        }
    }
    made.reverse();
    made
}

pub async fn pages_go_from_new_to_old(world: &World) {
    let made: Vec<JobId> = two_in_each_state(world).await.into_iter().map(|(id, ..)| id).collect();
    let elsewhere = world.new_group("other").await;
    world.store.insert(vec![world.job_in(elsewhere, NOW)].into()).await.unwrap();
    assert_eq!(listed(world, all(world)).await, made);
    let mut pages = Vec::new();
    loop {
        let page = listed(world, JobsQuery { before: pages.last().copied(), limit: 5, ..all(world) }).await;
        assert!(page.len() <= 5);
        if page.is_empty() {
            break;
        }
        pages.extend(page);
    }
    assert_eq!(pages, made);
    let one = world.store.jobs(JobsQuery { limit: 1, ..all(world) }).await.unwrap().remove(0);
    assert_eq!(one, world.get(made[0]).await, "a list shows what a get shows");
}

pub async fn pages_of_a_tenant_merge_its_groups(world: &World) {
    let groups = [world.group, world.new_group("b").await, world.new_group("c").await];
    let mut made = Vec::new();
    for round in 0..4 {
        for group in groups {
            let job = NewJob { name: Some(format!("n{}", round % 2)), ..world.job_in(group, NOW) };
            made.push(job.id);
            world.store.insert(vec![job].into()).await.unwrap();
        }
    }
    world.change(made[0], JobChange::Cancel).await;
    let stranger = world.put(0, Kind::Tenant, "stranger").await.id;
    let elsewhere = GroupId(world.put(stranger, Kind::Group, "theirs").await.id);
    let theirs = NewJob { tenant: TenantId(stranger), ..world.job_in(elsewhere, NOW) };
    world.store.insert(vec![theirs.clone()].into()).await.unwrap();
    made.reverse();
    let of_tenant = async |query: JobsQuery| -> Vec<JobId> {
        world.store.jobs_of_tenant(query).await.unwrap().into_iter().map(|job| job.id).collect()
    };
    assert_eq!(of_tenant(all(world)).await, made);
    let mut pages: Vec<JobId> = Vec::new();
    loop {
        let page = of_tenant(JobsQuery { before: pages.last().copied(), limit: 5, ..all(world) }).await;
        if page.is_empty() {
            break;
        }
        pages.extend(page);
    }
    assert_eq!(pages, made);
    let all_jobs = JobFilter::all(world.tenant, world.group);
    let cancelled = JobFilter { state: Some(State::Cancelled), ..all_jobs.clone() };
    assert_eq!(of_tenant(JobsQuery { filter: cancelled, ..all(world) }).await, made[11..]);
    let named = JobFilter { name: Some("n1".to_owned()), ..all_jobs };
    assert_eq!(of_tenant(JobsQuery { filter: named, ..all(world) }).await.len(), 6);
    let filter = JobFilter::all(TenantId(stranger), world.group);
    assert_eq!(of_tenant(JobsQuery { filter, ..all(world) }).await, [theirs.id], "tenants are apart");
}

pub async fn pages_filter_by_state_and_name(world: &World) {
    let made = two_in_each_state(world).await;
    let expected = |state: Option<State>, name: Option<&str>| -> Vec<JobId> {
        let fits = |(id, its_state, its_name): &(JobId, State, &str)| {
            (state.is_none_or(|state| state == *its_state) && name.is_none_or(|name| name == *its_name)).then_some(*id)
        };
        made.iter().filter_map(fits).collect()
    };
    for state in State::ALL.map(Some).into_iter().chain([None]) {
        for name in [None, Some("one"), Some("two"), Some("on"), Some("One")] {
            let filter = JobFilter { state, name: name.map(str::to_owned), ..all(world).filter };
            let query = JobsQuery { filter, ..all(world) };
            let expected = expected(state, name);
            assert_eq!(listed(world, query.clone()).await, expected, "{state:?} {name:?}");
            let Some(first) = expected.first() else { continue };
            let rest = JobsQuery { before: Some(*first), ..query };
            assert_eq!(listed(world, rest).await, expected[1..], "{state:?} {name:?}");
        }
    }
}

pub async fn attempts_are_paged(world: &World) {
    let mut leased = world.leased().await;
    let mut made = Vec::new();
    for status in [500, 501, 502, 503, 504] {
        let attempt = an_attempt(&leased, Some(status));
        made.push(attempt.clone());
        world.store.settle(vec![Settlement::retry(&leased, NOW, attempt, NOW)]).await.unwrap();
        leased = world.claim(NOW, 1).await.remove(0);
    }
    let page = |after, limit| world.store.attempts(world.tenant, leased.job.id, after, limit);
    assert_eq!(page(0, 10).await.unwrap(), made);
    assert_eq!(page(0, 2).await.unwrap(), made[..2]);
    assert_eq!(page(2, 2).await.unwrap(), made[2..4]);
    assert_eq!(page(4, 2).await.unwrap(), made[4..]);
    assert!(page(5, 2).await.unwrap().is_empty());
    assert!(world.store.attempts(world.tenant, JobId(Uuid::nil()), 0, 10).await.unwrap().is_empty());
}

pub async fn stats_are_exact(world: &World) {
    let stats = |now| world.store.stats(world.tenant, world.group, now);
    assert_eq!(stats(NOW).await.unwrap(), Stats::default());
    two_in_each_state(world).await;
    let later = [5, 5, 9].map(|at| world.job(NOW.plus(ms(at))));
    world.store.insert(Vec::from(later).into()).await.unwrap();
    let other = world.new_group("other").await;
    world.store.insert(vec![world.job_in(other, NOW)].into()).await.unwrap();
    let expected = Stats {
        scheduled: 5,
        running: 2,
        succeeded: 2,
        dead: 2,
        expired: 2,
        cancelled: 2,
        available: 2,
        in_flight: 2,
        delayed: 3,
    };
    assert_eq!(stats(NOW).await.unwrap(), expected);
    assert_eq!(stats(NOW.plus(ms(5))).await.unwrap(), Stats { available: 4, delayed: 1, ..expected });
    assert_eq!(stats(NOW.minus(ms(1))).await.unwrap(), Stats { available: 0, delayed: 5, ..expected });
}

pub async fn filters_find_and_count(world: &World) {
    let labelled = |key: &str, value: &str| Spec {
        metadata: serde_json::from_value(json!({key: value, "space": {"in": value}})).unwrap(),
        ..world.job(NOW).spec
    };
    let jobs = [
        NewJob { name: Some("mail-1".to_owned()), spec: labelled("plan", "free"), ..world.job(NOW) },
        NewJob {
            name: Some("mail-2".to_owned()),
            spec: labelled("plan", "paid"),
            created_at: NOW.plus(ms(5)),
            ..world.job(NOW)
        },
        NewJob { name: Some("sms_1".to_owned()), spec: labelled("a.b", "paid"), ..world.job(NOW) },
        NewJob { order_key: Some("o".to_owned()), spec: Spec::default(), ..world.job(NOW.plus(ms(9))) },
    ];
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    world.store.insert(jobs.to_vec().into()).await.unwrap();
    world.change(ids[0], JobChange::Cancel).await;
    let none = || all(world).filter;
    let metadata = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    let cases = [
        (none(), vec![3, 2, 1, 0]),
        (JobFilter { name_prefix: Some("mail-".to_owned()), ..none() }, vec![1, 0]),
        (JobFilter { name_prefix: Some("%".to_owned()), ..none() }, vec![]),
        (JobFilter { name_prefix: Some("mail".to_owned()), state: Some(State::Scheduled), ..none() }, vec![1]),
        (JobFilter { name: Some("mail-2".to_owned()), metadata: metadata("plan", "free"), ..none() }, vec![]),
        (JobFilter { metadata: metadata("plan", "paid"), ..none() }, vec![1]),
        (JobFilter { metadata: metadata("a.b", "paid"), ..none() }, vec![2]),
        (JobFilter { metadata: metadata("space.in", "paid"), ..none() }, vec![2, 1]),
        (JobFilter { created_from: Some(NOW.plus(ms(1))), ..none() }, vec![1]),
        (JobFilter { created_before: Some(NOW.plus(ms(5))), ..none() }, vec![3, 2, 0]),
        (JobFilter { due_from: Some(NOW.plus(ms(9))), ..none() }, vec![3]),
        (JobFilter { due_before: Some(NOW.plus(ms(9))), name_prefix: Some("mail".to_owned()), ..none() }, vec![1, 0]),
        (JobFilter { order_key: Some("o".to_owned()), ..none() }, vec![3]),
        (JobFilter { order_key: Some("O".to_owned()), ..none() }, vec![]),
        (JobFilter { url: Some("https://example.org/".to_owned()), ..none() }, vec![2, 1, 0]),
        (JobFilter { url: Some("https://example.org".to_owned()), ..none() }, vec![]),
        (JobFilter { url_prefix: Some("https://example.org".to_owned()), ..none() }, vec![2, 1, 0]),
        (JobFilter { url_prefix: Some("https://example.org/%".to_owned()), ..none() }, vec![]),
        (JobFilter { url: Some("\0\"\\".to_owned()), ..none() }, vec![]),
        (JobFilter { states: vec![State::Cancelled, State::Dead], ..none() }, vec![0]),
        (JobFilter { states: vec![State::Cancelled, State::Scheduled], ..none() }, vec![3, 2, 1, 0]),
        (JobFilter { states: vec![State::Cancelled], state: Some(State::Scheduled), ..none() }, vec![3, 2, 1]),
        (JobFilter { states: vec![State::Dead], name: Some("mail-1".to_owned()), ..none() }, vec![]),
        (JobFilter { accepted_before: Some(ids[2]), ..none() }, vec![1, 0]),
    ];
    for (filter, expected) in cases {
        let expected: Vec<JobId> = expected.into_iter().map(|index: usize| ids[index]).collect();
        assert_eq!(world.store.count(filter.clone()).await.unwrap(), expected.len() as u64, "{filter:?}");
        let query = JobsQuery { filter: filter.clone(), ..all(world) };
        assert_eq!(listed(world, query).await, expected, "{filter:?}");
    }
}

pub async fn the_newest_of_each_name_in_order(world: &World) {
    let mut newest = Vec::new();
    for name in ["b@2", "a@1", "b@1", "a@1", "b", "\u{10ffff}", "a@2", "ü"] {
        let job = NewJob { name: Some(name.to_owned()), ..world.job(NOW) };
        newest.retain(|(known, _)| *known != name);
        newest.push((name, job.id));
        world.store.insert(vec![job, world.job(NOW)].into()).await.unwrap();
    }
    newest.sort_by_key(|(name, _)| *name);
    let page = async |prefix: &str, after: &str, limit: u32| {
        let query = NamesQuery {
            tenant: world.tenant,
            group: world.group,
            prefix: prefix.to_owned(),
            after: after.to_owned(),
            limit,
        };
        let jobs = world.store.newest_of_names(query).await.unwrap();
        jobs.into_iter().map(|job| (job.name.unwrap(), job.id)).collect::<Vec<_>>()
    };
    let expected = |names: std::ops::Range<usize>| {
        newest[names].iter().map(|(name, id)| ((*name).to_owned(), *id)).collect::<Vec<_>>()
    };
    assert_eq!(page("", "", 99).await, expected(0..7));
    assert_eq!(page("", "a@2", 2).await, expected(2..4));
    assert_eq!(page("b@", "", 99).await, expected(3..5));
    assert_eq!(page("b@", "b@1", 99).await, expected(4..5));
    assert_eq!(page("c", "", 99).await, []);
    let elsewhere = NamesQuery {
        tenant: TenantId(world.tenant.0 + 77),
        group: world.group,
        prefix: String::new(),
        after: String::new(),
        limit: 9,
    };
    assert_eq!(world.store.newest_of_names(elsewhere).await.unwrap(), []);
}

pub async fn the_backlog_is_what_waits(world: &World) {
    let empty = world.store.backlog(NOW).await.unwrap();
    assert_eq!((empty.waiting, empty.due, empty.earliest), (0, 0, None));
    assert!(empty.database_bytes > 0);
    let other = world.new_group("other").await;
    let jobs = [world.job(NOW), world.job(NOW.plus(ms(5))), world.job_in(other, NOW.plus(ms(9)))];
    world.store.insert(jobs.to_vec().into()).await.unwrap();
    let key = |run_at| NewJob { order_key: Some("k".to_owned()), ..world.job(run_at) };
    world.store.insert(vec![key(NOW.plus(ms(7))), key(NOW.plus(ms(1)))].into()).await.unwrap();
    let backlog = world.store.backlog(NOW.plus(ms(5))).await.unwrap();
    assert_eq!((backlog.waiting, backlog.due, backlog.earliest), (4, 2, Some(NOW)), "the blocked one does not count");
    world.claim(NOW, 10).await;
    let backlog = world.store.backlog(NOW.plus(ms(5))).await.unwrap();
    assert_eq!((backlog.waiting, backlog.due, backlog.earliest), (3, 1, Some(NOW.plus(ms(5)))), "one runs");
}

pub async fn unfinished_jobs_of_a_tenant_are_counted_over_its_groups(world: &World) {
    assert_eq!(world.store.unfinished(world.tenant).await.unwrap(), 0);
    let other = world.new_group("other").await;
    let jobs = [world.job(NOW), world.job(NOW.plus(ms(5))), world.job_in(other, NOW.plus(ms(9)))];
    world.store.insert(jobs.to_vec().into()).await.unwrap();
    assert_eq!(world.store.unfinished(world.tenant).await.unwrap(), 3);
    let [leased] = &world.claim(NOW, 1).await[..] else { panic!("one job is leased") };
    assert_eq!(world.store.unfinished(world.tenant).await.unwrap(), 3, "a running job is unfinished");
    world.store.settle(vec![Settlement::succeeded(leased, NOW, an_attempt(leased, Some(200)))]).await.unwrap();
    assert_eq!(world.store.unfinished(world.tenant).await.unwrap(), 2);
    assert_eq!(world.store.unfinished(TenantId(world.tenant.0 + 1_000)).await.unwrap(), 0);
}

pub async fn what_cannot_be_read_is_left_out_and_shortens_no_page(world: &World) {
    let mut ids = Vec::new();
    for n in 0..6 {
        let job = NewJob { name: Some(format!("n{n}")), ..world.job(NOW) };
        ids.push(job.id);
        world.store.insert(vec![job].into()).await.unwrap();
    }
    for damaged in [1, 3, 4] {
        world.damage(ids[damaged]).await;
    }
    let left = [ids[5], ids[2], ids[0]];
    assert_eq!(listed(world, all(world)).await, left);
    assert_eq!(listed(world, JobsQuery { limit: 2, ..all(world) }).await, left[..2], "as many as asked for");
    assert_eq!(listed(world, JobsQuery { limit: 2, before: Some(ids[5]), ..all(world) }).await, left[1..]);
    let of_tenant = world.store.jobs_of_tenant(JobsQuery { limit: 2, ..all(world) }).await.unwrap();
    assert_eq!(of_tenant.iter().map(|job| job.id).collect::<Vec<_>>(), left[..2]);
    let names =
        NamesQuery { tenant: world.tenant, group: world.group, prefix: String::new(), after: String::new(), limit: 2 };
    let newest = world.store.newest_of_names(names).await.unwrap();
    assert_eq!(newest.iter().map(|job| job.id).collect::<Vec<_>>(), [ids[0], ids[2]]);

    let leased = world.leased().await;
    let settled = Settlement::retry(&leased, NOW, an_attempt(&leased, None), NOW);
    world.store.settle(vec![settled]).await.unwrap();
    world.damage_attempts(leased.job.id).await;
    let again = world.claim(NOW, 100).await.into_iter().find(|again| again.job.id == leased.job.id).unwrap();
    world.store.settle(vec![Settlement::succeeded(&again, NOW, an_attempt(&again, Some(200)))]).await.unwrap();
    let attempts = world.store.attempts(world.tenant, leased.job.id, 0, 1).await.unwrap();
    assert_eq!(attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [2]);
}

pub async fn job_bytes_are_those_of_payloads_documents_and_attempts(world: &World) {
    let store = &world.store;
    let sized = |len: usize| NewJob { body: Bytes::from(vec![0xff; len]), ..world.job(NOW) };
    let (small, large) = (sized(10), sized(100_000));
    store.insert(vec![small.clone(), large.clone()].into()).await.unwrap();
    let spec = u64::try_from(carillon_core::limits::json_len(&small.spec)).unwrap();
    let bytes = async |ids: &[JobId]| store.job_bytes(ids.to_vec()).await.unwrap();
    assert_eq!(bytes(&[]).await, 0);
    assert_eq!(bytes(&[small.id]).await, 10 + spec);
    assert_eq!(bytes(&[small.id, large.id, JobId(uuid::Uuid::nil())]).await, 100_010 + 2 * spec);
    let leased = world.claim(NOW, 2).await;
    let leased = leased.iter().find(|leased| leased.job.id == small.id).unwrap();
    let mut attempt = an_attempt(leased, Some(200));
    attempt.response_body = Bytes::from_static(b"ok");
    let detail = u64::try_from(carillon_core::limits::json_len(&attempt.detail)).unwrap();
    store.settle(vec![Settlement::succeeded(leased, NOW, attempt)]).await.unwrap();
    assert_eq!(bytes(&[small.id]).await, 10 + spec + detail + 2, "of an ended job as well");
    world.change(small.id, JobChange::Purge).await;
    assert_eq!(bytes(&[small.id, large.id]).await, 100_000 + spec);
}
