//! Bindings that `bindgen!` generates from `wit/`. Private: the rest of the crate uses the plain types that [`super`] re-exports.

#![expect(missing_docs, reason = "the documentation is in wit/")]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "bundle",
    with: { "carillon:policy/keys.key": super::keys::GrantedKey },
    imports: { default: trappable },
});

pub use self::carillon::policy::{jobs as jobs_import, keys as keys_import, log as log_import, types};
pub use self::exports::carillon::policy::{
    encode as encode_export, judge as judge_export, meta as meta_export, observe as observe_export,
    retry as retry_export, sign as sign_export,
};
