//! Cases of configured entities.

use super::*;
use crate::{Reseal, StoreError};
use carillon_core::job::Settlement;

fn is_conflict<T>(result: Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Conflict(_)))
}

async fn loaded(world: &World) -> Vec<Entity> {
    world.store.load().await.unwrap().1
}

pub async fn put_counts_versions(world: &World) {
    let tenant = world.tenant.0;
    let first = world.put(tenant, Kind::Plugin, "p@1").await;
    assert_eq!((first.version, first.tenant, first.kind, first.name.as_str()), (1, tenant, Kind::Plugin, "p@1"));
    assert_eq!((first.created_at, first.updated_at, &first.doc), (NOW, NOW, &json!({"of": "p@1"})));
    let later = NOW.plus(ms(3));
    let doc = json!({"text": "ü \"quoted\"", "list": [1, 2.5, null]});
    let put =
        PutEntity { now: later, doc: doc.clone(), ..an_entity(tenant, Kind::Plugin, "p@1", Precondition::Anything) };
    let second = world.store.put(put).await.unwrap().done;
    assert_eq!(second, Entity { version: 2, updated_at: later, doc, ..first });
    assert!(loaded(world).await.contains(&second));
}

pub async fn put_expects(world: &World) {
    let put = |expect| world.store.put(an_entity(world.tenant.0, Kind::Key, "k", expect));
    assert!(is_conflict(put(Precondition::Version(1)).await));
    let before = world.store.generation().await.unwrap();
    assert_eq!(put(Precondition::Nothing).await.unwrap().done.version, 1);
    assert!(is_conflict(put(Precondition::Nothing).await));
    assert!(is_conflict(put(Precondition::Version(2)).await));
    assert_eq!(put(Precondition::Version(1)).await.unwrap().done.version, 2);
    assert!(is_conflict(put(Precondition::Version(1)).await));
    assert_eq!(world.store.generation().await.unwrap(), before + 2, "a conflict changes nothing");
}

pub async fn names_are_unique_per_tenant_and_kind(world: &World) {
    let other = world.put(0, Kind::Tenant, "other").await.id;
    let mut ids = Vec::new();
    for tenant in [world.tenant.0, other] {
        for kind in [Kind::Group, Kind::Key, Kind::ApiToken, Kind::Plugin] {
            ids.push(world.store.put(an_entity(tenant, kind, "same", Precondition::Nothing)).await.unwrap().done.id);
        }
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 8);
    assert_eq!(loaded(world).await.iter().filter(|entity| entity.name == "same").count(), 8);
}

pub async fn generation_rises_with_each_change(world: &World) {
    let generation = || async {
        let (loaded, _) = world.store.load().await.unwrap();
        assert_eq!(loaded, world.store.generation().await.unwrap());
        loaded
    };
    let first = generation().await;
    assert_eq!(generation().await, first);
    world.put(world.tenant.0, Kind::Key, "k").await;
    let second = generation().await;
    assert!(second > first);
    world.put(world.tenant.0, Kind::Key, "k").await;
    let third = generation().await;
    assert!(third > second);
    assert!(world.store.delete(a_removal(world.tenant.0, Kind::Key, "k".to_owned())).await.unwrap().done);
    let fourth = generation().await;
    assert!(fourth > third);
    assert!(!world.store.delete(a_removal(world.tenant.0, Kind::Key, "k".to_owned())).await.unwrap().done);
    assert_eq!(generation().await, fourth);
}

pub async fn delete_frees_the_name_and_not_the_id(world: &World) {
    for kind in Kind::ALL {
        let old = world.put(world.tenant.0, kind, "gone").await;
        assert!(world.store.delete(a_removal(world.tenant.0, kind, "gone".to_owned())).await.unwrap().done);
        assert!(!loaded(world).await.iter().any(|entity| entity.id == old.id));
        let new = world.store.put(an_entity(world.tenant.0, kind, "gone", Precondition::Nothing)).await.unwrap().done;
        assert!(new.id > old.id && new.version == 1, "{kind:?}");
        let stranger =
            world.store.delete(a_removal(world.tenant.0 + 1_000, kind, "gone".to_owned())).await.unwrap().done;
        assert!(!stranger);
    }
}

async fn delete_group(world: &World) -> Result<bool, StoreError> {
    world.store.delete(a_removal(world.tenant.0, Kind::Group, "reminders".to_owned())).await.map(|removed| removed.done)
}

pub async fn delete_waits_for_unfinished_jobs(world: &World) {
    world.insert_due(1).await;
    assert!(is_conflict(delete_group(world).await), "a job waits");
    let leased = world.claim(NOW, 1).await.remove(0);
    assert!(is_conflict(delete_group(world).await), "a job runs");
    assert!(loaded(world).await.iter().any(|entity| entity.id == world.group.0));
    world.store.settle(vec![Settlement::dead(&leased, NOW, an_attempt(&leased, None))]).await.unwrap();
    assert!(delete_group(world).await.unwrap());
    let refused = world.store.insert(vec![world.job(NOW)].into()).await;
    assert!(matches!(refused, Err(StoreError::NoSuchGroup)), "{refused:?}");
    assert!(!delete_group(world).await.unwrap());
}

pub async fn deleted_group_is_emptied_by_prune(world: &World) {
    let jobs = world.insert_due(5).await;
    let kept = world.new_group("kept").await;
    let keeper = world.job_in(kept, NOW.plus(ms(1)));
    world.store.insert(vec![keeper.clone()].into()).await.unwrap();
    let end = |leased: &LeasedJob| Settlement::succeeded(leased, NOW, an_attempt(leased, Some(200)));
    world.store.settle(world.claim(NOW, 5).await.iter().map(end).collect()).await.unwrap();
    assert!(delete_group(world).await.unwrap());
    let namesake = world.new_group("reminders").await;
    let stats = world.store.stats(world.tenant, namesake, NOW).await.unwrap();
    assert_eq!(stats.succeeded, 0, "a group of the same name has none of the old jobs");

    assert_eq!(
        world.prune(&[(State::Succeeded, NOW)], 3).await,
        3,
        "one limit for old jobs and those of deleted groups"
    );
    assert_eq!(world.prune(&[], 3).await, 2);
    assert_eq!(world.prune(&[], 3).await, 0);
    for id in jobs {
        assert_eq!(world.store.job(world.tenant, id).await.unwrap(), None);
        assert!(world.store.attempts(world.tenant, id, 0, 10).await.unwrap().is_empty());
    }
    assert_eq!(world.state(keeper.id).await, State::Scheduled);
    assert!(loaded(world).await.iter().any(|entity| entity.id == namesake.0));
}

pub async fn components_are_kept_while_a_plugin_names_them(world: &World) {
    let bytes: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let there = async |digest: &str| world.store.component(digest).await.unwrap();
    let delete = async |tenant: i64, name: &str| {
        assert!(world.store.delete(a_removal(tenant, Kind::Plugin, name.to_owned())).await.unwrap().done, "{name}");
    };
    assert_eq!(there("d1").await, None);
    for (tenant, name) in [(1, "p@1"), (1, "p@2"), (2, "p@1")] {
        world.store.put(a_plugin(tenant, name, "d1", &bytes)).await.unwrap();
    }
    world.store.put(a_plugin(1, "q@1", "d2", b"other")).await.unwrap();
    assert_eq!(there("d1").await, Some(Bytes::from(bytes)));
    delete(1, "p@1").await;
    delete(1, "p@2").await;
    assert!(there("d1").await.is_some(), "another tenant has it");
    delete(2, "p@1").await;
    assert_eq!((there("d1").await, there("d2").await), (None, Some(Bytes::from_static(b"other"))));
    world.store.put(a_plugin(1, "p@1", "d1", b"again")).await.unwrap();
    assert_eq!(there("d1").await, Some(Bytes::from_static(b"again")));
    let refused = PutEntity { expect: Precondition::Nothing, ..a_plugin(1, "p@1", "d3", b"not written") };
    assert!(matches!(world.store.put(refused).await, Err(StoreError::Conflict(_))));
    assert_eq!(there("d3").await, None);
}

pub async fn a_plugin_goes_only_if_nothing_has_changed(world: &World) {
    let tenant = world.tenant.0;
    let binding = |name: &str| {
        let needs = vec![(tenant, "p@1".to_owned())];
        PutEntity { needs, ..an_entity(tenant, Kind::Group, name, Precondition::Anything) }
    };
    let delete = async |generation: i64| {
        let removal = a_removal(tenant, Kind::Plugin, "p@1".to_owned());
        let deleted = world.store.delete(DeleteEntity { generation: Some(generation), ..removal }).await;
        deleted.map(|removed| removed.done)
    };
    world.store.put(a_plugin(tenant, "p@1", "d1", b"bytes")).await.unwrap();
    let seen = world.store.generation().await.unwrap();
    world.store.put(binding("binds")).await.unwrap();
    assert!(is_conflict(delete(seen).await), "it was bound since");
    assert!(world.store.component("d1").await.unwrap().is_some());
    assert!(delete(world.store.generation().await.unwrap()).await.unwrap());
    assert!(!delete(world.store.generation().await.unwrap()).await.unwrap());

    let before = world.store.generation().await.unwrap();
    assert!(is_conflict(world.store.put(binding("late")).await), "it has gone");
    world.store.put(a_plugin(tenant + 1_000, "p@1", "d1", b"bytes")).await.unwrap();
    assert!(is_conflict(world.store.put(binding("late")).await), "another tenant's is none");
    assert!(!loaded(world).await.iter().any(|entity| entity.name == "late"));
    assert_eq!(world.store.generation().await.unwrap(), before + 1);
}

pub async fn the_first_proof_of_the_master_key_is_kept(world: &World) {
    assert_eq!(world.store.sealed_proof().await.unwrap(), None);
    let generation = world.store.generation().await.unwrap();
    let keep =
        |proof: &str, instead_of: Option<&str>| world.store.keep_proof(proof.to_owned(), instead_of.map(str::to_owned));
    let both = tokio::join!(keep("one", None), keep("two", None));
    let kept = both.0.unwrap();
    assert_eq!(both.1.unwrap(), kept, "of two servers that start together, one is first");
    assert!(["one", "two"].contains(&&*kept), "{kept}");
    assert_eq!(keep("three", None).await.unwrap(), kept);
    assert_eq!(keep("four", Some("five")).await.unwrap(), kept, "another one is kept than the caller has seen");
    assert_eq!(keep("six", Some(&kept)).await.unwrap(), "six");
    assert_eq!(world.store.generation().await.unwrap(), generation, "nothing was configured");
    let store = world.reopened().await;
    assert_eq!(store.sealed_proof().await.unwrap().as_deref(), Some("six"));
}

pub async fn sealed_values_are_replaced_together_or_not_at_all(world: &World) {
    let (tenant, store) = (world.tenant.0, &world.store);
    let (one, two) = (world.put(tenant, Kind::Key, "one").await, world.put(tenant, Kind::Key, "two").await);
    store.keep_proof("before".to_owned(), None).await.unwrap();
    let anew = |entity: &Entity, version: i64| PutEntity {
        doc: json!({"sealed": "anew"}),
        now: entity.updated_at,
        ..an_entity(tenant, Kind::Key, &entity.name, Precondition::Version(version))
    };
    let reseal = async |entities: Vec<PutEntity>, instead_of: &str| {
        let (proof, instead_of) = ("after".to_owned(), instead_of.to_owned());
        store.reseal(Reseal { entities, proof, instead_of, without_servers: Some(LEASE) }).await
    };
    let generation = store.generation().await.unwrap();
    let stale = vec![anew(&one, one.version), anew(&two, two.version + 1)];
    assert!(is_conflict(reseal(stale, "before").await), "one of them was changed meanwhile");
    assert!(
        is_conflict(reseal(vec![anew(&one, one.version)], "another").await),
        "the master key was changed meanwhile"
    );
    assert_eq!(store.generation().await.unwrap(), generation, "nothing has changed");
    assert_eq!(store.sealed_proof().await.unwrap().as_deref(), Some("before"));

    reseal(vec![anew(&one, one.version), anew(&two, two.version)], "before").await.unwrap();
    assert_eq!(store.sealed_proof().await.unwrap().as_deref(), Some("after"));
    let changed = store.changes(generation).await.unwrap().expect("it was a moment ago").changed;
    assert_eq!(changed.len(), 2, "other nodes see it");
    assert!(changed.iter().all(|entity| entity.doc == json!({"sealed": "anew"})), "{changed:?}");
}

pub async fn survives_reopening(world: &World) {
    world.put(world.tenant.0, Kind::ApiToken, "t").await;
    world.store.put(a_plugin(world.tenant.0, "p@1", "d1", b"\0asm")).await.unwrap();
    let before = world.store.load().await.unwrap();
    let store = world.reopened().await;
    assert_eq!(store.load().await.unwrap(), before);
    assert_eq!(store.component("d1").await.unwrap(), Some(Bytes::from_static(b"\0asm")));
}

pub async fn a_change_is_read_without_the_rest(world: &World) {
    for groups in [10, 1_000] {
        for number in 0..groups {
            world.put(world.tenant.0, Kind::Group, &format!("{groups}-{number}")).await;
        }
        let since = world.store.generation().await.unwrap();
        let changed = world.put(world.tenant.0, Kind::Key, "k").await;
        let again = world.put(world.tenant.0, Kind::Key, "k").await;
        assert_eq!(again.id, changed.id);
        let gone = world.put(world.tenant.0, Kind::Key, "gone").await;
        let (tenant, name) = (world.tenant.0, gone.name);
        assert!(world.store.delete(a_removal(tenant, gone.kind, name)).await.unwrap().done);
        let group = world.new_group("short-lived").await;
        assert!(world.store.delete(a_removal(tenant, Kind::Group, "short-lived".to_owned())).await.unwrap().done);
        let found = world.store.changes(since).await.unwrap().expect("it was a moment ago");
        assert_eq!((&found.changed[..], &found.gone[..]), (&[again][..], &[gone.id, group.0][..]), "{groups} groups");
        assert_eq!(found.generation, world.store.generation().await.unwrap());
        let nothing = world.store.changes(found.generation).await.unwrap().unwrap();
        assert!(nothing.changed.is_empty() && nothing.gone.is_empty());
    }
    assert_eq!(world.store.changes(1).await.unwrap(), None, "that is long ago: everything is to be loaded");
}
