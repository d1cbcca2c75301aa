//! Order in which changed entities are applied: what others refer to comes before them.

use carillon_store::Kind;

/// Returns the place of a kind in the order.
pub(super) fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::Tenant => 0,
        Kind::Plugin => 1,
        Kind::Key => 2,
        Kind::Group => 3,
        Kind::ApiToken => 4,
        Kind::Schedule => 5,
        Kind::Bulk => 6,
        Kind::Binding => 7,
        Kind::DataKey => 8,
    }
}
