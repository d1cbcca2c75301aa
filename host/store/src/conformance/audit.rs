//! Cases of the audit log.

use super::*;
use crate::audit::{BrokenLink, ChainFault, Rest, check_rows};
use crate::{AuditQuery, Chained, StoreError, StoredEntry};
use carillon_core::audit::{AuditEntry, AuditObject, AuditTenant, Origin, Outcome, Verb};
use carillon_core::clock::SystemClock;

fn entry(world: &World, node: &str, verb: Verb, object: AuditObject) -> AuditEntry {
    AuditEntry {
        id: AuditId::new(&SystemClock),
        at: NOW,
        node: node.to_owned(),
        actor: Origin::system().actor,
        tenant: Some(AuditTenant { id: world.tenant.0, name: "acme".to_owned() }),
        verb,
        object,
        changed: Vec::new(),
        address: None,
        request_id: None,
        outcome: Outcome::Done,
        count: 1,
    }
}

fn key(name: &str) -> AuditObject {
    AuditObject::new("key", Some(name.to_owned()))
}

fn put(world: &World, node: &str, name: &str, expect: Precondition) -> PutEntity {
    let audit = Audit::Recorded(Box::new(entry(world, node, Verb::KEY_PUT, key(name))));
    PutEntity { audit, ..an_entity(world.tenant.0, Kind::Key, name, expect) }
}

async fn all(store: &dyn Store) -> Vec<Chained> {
    store.audit(AuditQuery { limit: 1_000, ..AuditQuery::default() }).await.unwrap()
}

async fn rows(store: &dyn Store) -> Vec<StoredEntry> {
    store.audit_chain((String::new(), 0), 1_000).await.unwrap()
}

async fn broken(store: &dyn Store) -> Vec<BrokenLink> {
    check_rows(None, &rows(store).await, &store.audit_heads().await.unwrap(), Rest::None).0
}

pub async fn an_entry_is_written_with_its_change_and_not_without(world: &World) {
    let store = &*world.store;
    let first = store.put(put(world, "n", "k", Precondition::Nothing)).await.unwrap().entry.unwrap();
    assert_eq!((first.object.version.as_deref(), first.changed.len()), (Some("1"), 0));
    let kind = PutEntity { doc: json!({"kind": "header"}), ..put(world, "n", "k", Precondition::Version(1)) };
    let second = store.put(kind).await.unwrap().entry.unwrap();
    assert_eq!((second.object.version.as_deref(), &second.changed[..]), (Some("2"), &["/kind".to_owned()][..]));
    let refused = store.put(put(world, "n", "k", Precondition::Nothing)).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))));
    let removal = |name: &str| DeleteEntity {
        audit: Audit::Recorded(Box::new(entry(world, "n", Verb::KEY_DELETE, key(name)))),
        ..a_removal(world.tenant.0, Kind::Key, name.to_owned())
    };
    assert_eq!(store.delete(removal("none")).await.unwrap(), crate::Recorded { done: false, entry: None });
    let third = store.delete(removal("k")).await.unwrap().entry.unwrap();
    world.put(world.tenant.0, Kind::Key, "upkeep").await;
    let entries: Vec<_> = all(store).await.into_iter().map(|chained| chained.entry).collect();
    assert_eq!(entries, [third, second, first]);
    let tenant = AuditTenant { id: 0, name: "other".to_owned() };
    let made = AuditEntry { tenant: Some(tenant), ..entry(world, "n", Verb::TENANT_PUT, key("other")) };
    let made = PutEntity {
        audit: Audit::Recorded(Box::new(made)),
        ..an_entity(0, Kind::Tenant, "other", Precondition::Nothing)
    };
    let made = store.put(made).await.unwrap();
    assert_eq!(made.entry.unwrap().tenant_id(), made.done.id, "the entry belongs to the tenant that it made");
}

pub async fn entries_are_found_by_what_they_name(world: &World) {
    let store = &*world.store;
    let stranger = world.put(0, Kind::Tenant, "stranger").await.id;
    let mut ids = Vec::new();
    for (number, (verb, name)) in
        [(Verb::KEY_PUT, "a"), (Verb::KEY_PUT, "b"), (Verb::KEY_DELETE, "a")].into_iter().enumerate()
    {
        let at = NOW.plus(ms(u64::try_from(number).unwrap()));
        let entry = AuditEntry { at, ..entry(world, "n", verb, key(name)) };
        ids.push(entry.id);
        store.append(entry).await.unwrap();
    }
    let theirs = AuditEntry {
        tenant: Some(AuditTenant { id: stranger, name: "stranger".to_owned() }),
        actor: carillon_core::audit::Actor { token: Some("t".to_owned()), ..Origin::system().actor },
        ..entry(world, "n", Verb::GROUP_PUT, AuditObject::new("group", None))
    };
    ids.push(theirs.id);
    store.append(theirs).await.unwrap();
    let found = async |query: AuditQuery| {
        let found = store.audit(AuditQuery { limit: query.limit.max(1), ..query }).await.unwrap();
        let at = |chained: &Chained| ids.iter().position(|id| *id == chained.entry.id).unwrap();
        found.iter().map(at).collect::<Vec<_>>()
    };
    let many = AuditQuery { limit: 100, ..AuditQuery::default() };
    let own = AuditQuery { tenant: Some(world.tenant.0), ..many.clone() };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(found(many.clone()).await, [3, 2, 1, 0]);
    assert_eq!(found(own.clone()).await, [2, 1, 0]);
    for all in [&many, &own] {
        assert_eq!(found(AuditQuery { verb: text("key.put"), ..all.clone() }).await, [1, 0]);
        assert_eq!(found(AuditQuery { kind: text("key"), name: text("a"), ..all.clone() }).await, [2, 0]);
        assert_eq!(
            found(AuditQuery { from: Some(NOW.plus(ms(1))), to: Some(NOW.plus(ms(2))), ..all.clone() }).await,
            [1]
        );
        assert_eq!(found(AuditQuery { actor: text("system"), limit: 2, ..all.clone() }).await, [2, 1]);
        assert_eq!(found(AuditQuery { before: Some(ids[1]), ..all.clone() }).await, [0]);
    }
    assert_eq!(found(AuditQuery { actor: text("t"), ..many.clone() }).await, [3]);
    assert!(found(AuditQuery { actor: text("t"), ..own }).await.is_empty());
}

pub async fn chains_are_kept_for_each_node_and_survive_reopening(world: &World) {
    for node in ["a", "b", "a"] {
        world.store.append(entry(world, node, Verb::REQUEST, key("k"))).await.unwrap();
    }
    let store = world.reopened().await;
    store.append(entry(world, "a", Verb::REQUEST, key("k"))).await.unwrap();
    let places: Vec<_> = rows(&*store).await.iter().map(|row| (row.node.clone(), row.number)).collect();
    assert_eq!(places, [("a", 1), ("a", 2), ("a", 3), ("b", 1)].map(|(node, number)| (node.to_owned(), number)));
    assert_eq!(broken(&*store).await, []);
    let rest = store.audit_chain(("a".to_owned(), 2), 1).await.unwrap();
    assert_eq!((rest.len(), rest[0].number), (1, 3));
}

pub async fn a_changed_row_is_found(world: &World) {
    for name in ["a", "b", "c"] {
        world.store.put(put(world, "n", name, Precondition::Nothing)).await.unwrap();
    }
    assert_eq!(broken(&*world.store).await, []);
    let second = all(&*world.store).await[1].entry.id;
    world.forge_audit(second).await;
    let fault = BrokenLink { node: "n".to_owned(), number: 2, fault: ChainFault::Changed };
    assert_eq!(broken(&*world.store).await, [fault]);
}

pub async fn entries_are_pruned_by_age(world: &World) {
    for age in [3, 2, 1] {
        let entry = AuditEntry { at: NOW.minus(ms(age)), ..entry(world, "n", Verb::REQUEST, key("k")) };
        world.store.append(entry).await.unwrap();
    }
    world
        .store
        .append(AuditEntry { at: NOW.minus(ms(3)), ..entry(world, "gone", Verb::REQUEST, key("k")) })
        .await
        .unwrap();
    let prune = |audit| Prune { audit, limit: 10, ..Prune::default() };
    world.store.prune(prune(NOW.minus(ms(2)))).await.unwrap();
    let left: Vec<_> = rows(&*world.store).await.iter().map(|row| row.number).collect();
    assert_eq!(left, [3]);
    assert_eq!(
        world.store.audit_heads().await.unwrap().len(),
        1,
        "the chain of a node that has gone goes with its entries"
    );
    assert_eq!(broken(&*world.store).await, [], "what is kept is whole");
    world.store.prune(prune(NOW)).await.unwrap();
    world.store.append(entry(world, "n", Verb::REQUEST, key("k"))).await.unwrap();
    assert_eq!(broken(&*world.store).await, []);
}

pub async fn entries_of_concurrent_changes_follow_each_other(world: &World) {
    let writes = (0..40).map(|number| {
        let name = format!("k{}", number / 2);
        async move {
            if number % 2 == 0 {
                world.store.put(put(world, "n", &name, Precondition::Anything)).await.map(drop)
            } else {
                world.store.append(entry(world, "n", Verb::REQUEST, key(&name))).await
            }
        }
    });
    for written in futures_util::future::join_all(writes).await {
        written.unwrap();
    }
    assert_eq!(rows(&*world.store).await.len(), 40);
    assert_eq!(broken(&*world.store).await, []);
}
