//! Golden files of the documents that are stored for the entities of each kind.

use crate::bulks::{BulkAction, BulkRecord};
use crate::entities::{GroupRecord, KeyRecord, TenantRecord};
use crate::schedules::ScheduleRecord;
use crate::token::TokenRecord;
use crate::tried::{Canary, Shadow};
use crate::versions::Binding;
use carillon_core::test_util::assert_stored_form;
use carillon_policy::PluginRecord;

#[test]
fn stored_documents_of_each_kind_of_entity_keep_their_form() {
    assert_stored_form::<TenantRecord>(include_str!("stored_documents/tenant.json"));
    assert_stored_form::<GroupRecord>(include_str!("stored_documents/group.json"));
    assert_stored_form::<KeyRecord>(include_str!("stored_documents/key.json"));
    assert_stored_form::<TokenRecord>(include_str!("stored_documents/token.json"));
    assert_stored_form::<TokenRecord>(include_str!("stored_documents/confined_token.json"));
    assert_stored_form::<PluginRecord>(include_str!("stored_documents/plugin.json"));
    assert_stored_form::<ScheduleRecord>(include_str!("stored_documents/schedule.json"));
    assert_stored_form::<BulkRecord>(include_str!("stored_documents/bulk.json"));
    assert_stored_form::<Binding>(include_str!("stored_documents/binding.json"));
}

#[test]
fn stored_documents_of_versions_under_trial_keep_their_form() {
    assert_stored_form::<Canary>(include_str!("stored_documents/canary.json"));
    assert_stored_form::<Shadow>(include_str!("stored_documents/shadow.json"));
}

#[test]
fn stored_documents_of_bulk_changes_name_every_action() {
    for action in [r#"{"action": "cancel"}"#, r#"{"action": "redrive"}"#, r#"{"action": "purge"}"#] {
        assert_stored_form::<BulkAction>(action);
    }
}
