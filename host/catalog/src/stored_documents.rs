//! Golden files of the documents that are stored for the entities of each kind.

use crate::bulks::{BulkAction, BulkDoc};
use crate::entities::{GroupDoc, KeyDoc, TenantDoc};
use crate::schedules::ScheduleDoc;
use crate::token::TokenDoc;
use crate::tried::{Canary, Shadow};
use crate::versions::Binding;
use carillon_core::test_util::assert_stored_form;
use carillon_policy::PluginDoc;

#[test]
fn stored_documents_of_each_kind_of_entity_keep_their_form() {
    assert_stored_form::<TenantDoc>(include_str!("stored_documents/tenant.json"));
    assert_stored_form::<GroupDoc>(include_str!("stored_documents/group.json"));
    assert_stored_form::<KeyDoc>(include_str!("stored_documents/key.json"));
    assert_stored_form::<TokenDoc>(include_str!("stored_documents/token.json"));
    assert_stored_form::<TokenDoc>(include_str!("stored_documents/confined_token.json"));
    assert_stored_form::<PluginDoc>(include_str!("stored_documents/plugin.json"));
    assert_stored_form::<ScheduleDoc>(include_str!("stored_documents/schedule.json"));
    assert_stored_form::<BulkDoc>(include_str!("stored_documents/bulk.json"));
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
