//! What a change touches: counted as the entities that are made again, with few and with many others.

use std::sync::Arc;

use serde_json::{Value, json};

use super::CatalogState;
use crate::presets::Presets;
use crate::secrets::Vault;
use carillon_core::clock::UnixMs;
use carillon_core::job::TenantId;
use carillon_core::limits::TenantLimits;
use carillon_store::{Entity, Kind};

const LIMITS: TenantLimits = TenantLimits {
    jobs: u64::MAX,
    stored_bytes: u64::MAX,
    schedules: u64::MAX,
    groups: u64::MAX,
    keys: u64::MAX,
    tokens: u64::MAX,
    plugins: u64::MAX,
    config_bytes: u64::MAX,
    bulks: u64::MAX,
    compile_seconds: u64::MAX,
};

/// Numbers of the two tenants.
const TENANT: i64 = 1;
const OTHER: i64 = 2;

struct World {
    state: CatalogState,
    vault: Vault,
}

fn entity(id: i64, tenant: i64, kind: Kind, name: &str, version: i64) -> Entity {
    let doc = match kind {
        Kind::Group => json!({"policy": {}}),
        Kind::Schedule => {
            let job = "{\"url\": \"http://127.0.0.1/\"}";
            json!({"spec": {"group": "g0", "cron": "@hourly", "time_zone": "UTC", "start": null, "end": null, "max_runs": null,
                "jitter": {"secs": 0, "nanos": 0}, "overlap": "skip", "catch_up": {"secs": 0, "nanos": 0}, "catch_up_all": false, "job": job},
                "paused": false, "since": 0})
        }
        Kind::Tenant => json!({"defaults": {}}),
        _ => json!({}),
    };
    Entity { id, tenant, kind, name: name.to_owned(), version, doc, created_at: UnixMs(0), updated_at: UnixMs(0) }
}

impl World {
    fn with(groups: i64) -> Self {
        let vault = Vault::from_hex(&"0".repeat(64)).unwrap();
        let mut state = CatalogState::new(Value::Object(serde_json::Map::new()), Presets::new(), Vec::new(), LIMITS);
        let tenants = [(TENANT, "one"), (OTHER, "two")].map(|(id, name)| entity(id, 0, Kind::Tenant, name, 1));
        let group = |number| entity(100 + number, TENANT, Kind::Group, &format!("g{number}"), 1);
        state.load(tenants.into_iter().chain((0..groups).map(group)).collect(), &vault);
        Self { state, vault }
    }

    fn groups(&self) -> Vec<*const crate::Group> {
        let mut groups: Vec<_> = self.state.groups_of(TenantId(TENANT)).map(Arc::as_ptr).collect();
        groups.sort_unstable();
        groups
    }

    /// Applies a change that another node made; returns how many groups were made again or removed, and how many entities are known.
    fn change(&mut self, changed: Vec<Entity>, gone: Vec<i64>) -> (usize, usize) {
        let before: Vec<_> = self.state.groups_of(TenantId(TENANT)).cloned().collect();
        let (changed, gone) = self.state.order(changed, &gone);
        for (tenant, kind, name) in gone {
            self.state.remove(tenant, kind, &name);
        }
        for entity in changed {
            // An entity that cannot be read is known nevertheless.
            drop(self.state.apply(entity, None, &self.vault));
        }
        let now = self.groups();
        let touched = before.iter().filter(|group| now.binary_search(&Arc::as_ptr(group)).is_err()).count();
        (touched, self.state.known.len())
    }
}

#[test]
fn change_touches_what_it_names_whatever_else_there_is() {
    for groups in [10, 1_000] {
        let known = usize::try_from(groups).unwrap() + 2;
        let mut world = World::with(groups);
        let of = |kind| entity(5_000, TENANT, kind, "x", 1);
        let changes = [
            ("a group", vec![entity(103, TENANT, Kind::Group, "g3", 2)], vec![], (1, known)),
            ("a new group", vec![entity(4_999, TENANT, Kind::Group, "new", 1)], vec![], (0, known + 1)),
            ("a group that is gone", vec![], vec![4_999], (1, known)),
            ("a schedule", vec![of(Kind::Schedule)], vec![], (0, known + 1)),
            ("a schedule that is gone", vec![], vec![5_000], (0, known)),
            ("a key", vec![entity(5_001, TENANT, Kind::Key, "k", 1)], vec![], (0, known + 1)),
            ("a key that is gone", vec![], vec![5_001], (0, known)),
            ("a token", vec![entity(5_002, TENANT, Kind::ApiToken, "t", 1)], vec![], (0, known + 1)),
            ("a plugin", vec![entity(5_003, TENANT, Kind::Plugin, "p@1.0.0", 1)], vec![], (0, known + 2)),
            ("another tenant", vec![entity(OTHER, 0, Kind::Tenant, "two", 2)], vec![], (0, known + 2)),
            ("nothing", vec![], vec![], (0, known + 2)),
        ];
        for (what, changed, gone, expected) in changes {
            assert_eq!(world.change(changed, gone), expected, "{what}, {groups} groups");
        }
        // Its groups inherit from a tenant: all of them are touched.
        let all = usize::try_from(groups).unwrap();
        assert_eq!(world.change(vec![entity(TENANT, 0, Kind::Tenant, "one", 2)], vec![]).0, all);
        assert_eq!(world.state.ids.len(), world.state.known.len());
    }
}

#[test]
fn entity_that_was_made_again_under_its_name_is_known_once() {
    let mut world = World::with(1);
    // The new one is seen before the removal of the old one.
    world.change(vec![entity(7, TENANT, Kind::Group, "g0", 1)], vec![]);
    assert_eq!(world.change(vec![], vec![100]), (0, 3));
    assert_eq!(world.state.group(TenantId(TENANT), "g0").map(|group| group.id.0), Some(7));
    assert_eq!(world.change(vec![], vec![7]).1, 2);
    assert!(world.state.group(TenantId(TENANT), "g0").is_none());
}
