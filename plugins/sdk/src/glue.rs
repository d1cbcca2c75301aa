//! Between the generated bindings and the traits of an author: parses the config once, installs the panic hook, borrows keys.
//!
//! A config that does not parse here passed the plugin's schema and its `check`, or came from an older version of the plugin:
//! the binding is to blame, not the job.

use std::marker::PhantomData;

use crate::{
    Attempt, Decision, Encode, Event, Exchange, Failure, Judge, Key, Observe, Past, Plugin, Request, Retry, Sign,
    Signed, Verdict, bindings, log,
};

/// Implements the generated traits for a plugin. Named only by [`export!`](crate::export).
#[derive(Debug)]
pub struct Exported<P>(PhantomData<P>);

/// Reads a config, or says in one sentence what is wrong with it. Positions are left out: the text was merged by the host.
pub(crate) fn parse_config<P: Plugin>(json: &str) -> Result<P::Config, String> {
    serde_json::from_str(json).map_err(|error| {
        let text = error.to_string();
        match text.rfind(" at line ") {
            Some(end) if error.is_data() => text[..end].to_owned(),
            _ => text,
        }
    })
}

fn config<P: Plugin>(json: &str) -> Result<P::Config, Failure> {
    parse_config::<P>(json).map_err(|message| Failure::config("bad-config", message))
}

impl<P: Plugin> bindings::meta::Guest for Exported<P> {
    fn describe() -> bindings::meta::Description {
        log::report_panics();
        bindings::meta::Description {
            name: P::NAME.to_owned(),
            version: P::VERSION.to_owned(),
            summary: P::SUMMARY.to_owned(),
            config_schema: P::CONFIG_SCHEMA.to_owned(),
        }
    }

    fn check(config: String) -> Result<(), String> {
        log::report_panics();
        P::check(&parse_config::<P>(&config)?)
    }
}

impl<P: Encode> bindings::encode::Guest for Exported<P> {
    fn encode(attempt: Attempt, json: String, request: Request) -> Result<Request, Failure> {
        log::report_panics();
        P::encode(&attempt, &config::<P>(&json)?, request)
    }
}

impl<P: Sign> bindings::sign::Guest for Exported<P> {
    fn sign(attempt: Attempt, json: String, request: Request, handles: Vec<u32>) -> Result<Signed, Failure> {
        log::report_panics();
        #[expect(
            unsafe_code,
            reason = "the numbers are borrowed handles which the host has just passed, each is taken once"
        )]
        let keys: Vec<_> =
            handles.into_iter().map(|handle| unsafe { bindings::shared::keys::Key::from_handle(handle) }).collect();
        let keys: Vec<&dyn Key> = keys.iter().map(|key| key as &dyn Key).collect();
        P::sign(&attempt, &config::<P>(&json)?, request, &keys)
    }
}

impl<P: Judge> bindings::judge::Guest for Exported<P> {
    fn judge(attempt: Attempt, json: String, exchange: Exchange) -> Result<Verdict, Failure> {
        log::report_panics();
        P::judge(&attempt, &config::<P>(&json)?, exchange)
    }
}

impl<P: Retry> bindings::retry::Guest for Exported<P> {
    fn next(attempt: Attempt, json: String, verdict: Verdict, history: Vec<Past>) -> Result<Decision, Failure> {
        log::report_panics();
        P::next(&attempt, &config::<P>(&json)?, &verdict, &history)
    }
}

impl<P: Observe> bindings::observe::Guest for Exported<P> {
    fn observe(json: String, events: Vec<Event>) {
        log::report_panics();
        match parse_config::<P>(&json) {
            Ok(config) => P::observe(&config, &events),
            Err(message) => log::error(&message),
        }
    }
}

/// Exports a plugin and exactly the roles listed: `export!(MyPlugin: judge, retry);`
///
/// The type must implement [`Plugin`] and the trait of each role. On other targets than wasm32 it only checks that.
#[macro_export]
macro_rules! export {
    ($plugin:ty: $($role:ident),+ $(,)?) => {
        const _: () = {
            #[allow(dead_code, reason = "named by the generated exports, which exist on wasm32 only")]
            type Exported = $crate::__private::Exported<$plugin>;
            $($crate::__private::assert_role::$role::<$plugin>();)+
            #[cfg(target_arch = "wasm32")]
            $crate::__private::bindings::meta::export_meta!(Exported with_types_in $crate::__private::bindings::meta);
            $(
                #[cfg(target_arch = "wasm32")]
                $crate::__export_role!($role, Exported);
            )+
            #[cfg(target_arch = "wasm32")]
            $crate::__export_judge_and_retry!(Exported, [] [], $($role)+);
        };
    };
}

/// Exports one role, save `judge` and `retry`. A part of [`export!`](crate::export).
#[doc(hidden)]
#[macro_export]
macro_rules! __export_role {
    (encode, $exported:ident) => {
        $crate::__private::bindings::encode::export_encode!($exported with_types_in $crate::__private::bindings::encode);
    };
    (sign, $exported:ident) => {
        $crate::__private::bindings::sign::export_sign_type!($exported with_types_in $crate::__private::bindings::sign::contract);
        #[unsafe(export_name = "carillon:policy/sign@0.1.0#sign")]
        unsafe extern "C" fn export_sign(arguments: *mut u8) -> *mut u8 {
            unsafe { $crate::__private::bindings::sign::abi::_export_sign_cabi::<$exported>(arguments) }
        }
        #[unsafe(export_name = "cabi_post_carillon:policy/sign@0.1.0#sign")]
        unsafe extern "C" fn post_return_sign(result: *mut u8) {
            unsafe { $crate::__private::bindings::sign::abi::__post_return_sign::<$exported>(result) }
        }
    };
    (judge, $exported:ident) => {};
    (retry, $exported:ident) => {};
    (observe, $exported:ident) => {
        $crate::__private::bindings::observe::export_observe!($exported with_types_in $crate::__private::bindings::observe);
    };
}

/// Looks for `judge` and `retry` among the roles and exports those found. Both together have a component type of their own.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_judge_and_retry {
    ($exported:ident, [$($judge:ident)?] [$($retry:ident)?], judge $($rest:ident)*) => {
        $crate::__export_judge_and_retry!($exported, [judge] [$($retry)?], $($rest)*);
    };
    ($exported:ident, [$($judge:ident)?] [$($retry:ident)?], retry $($rest:ident)*) => {
        $crate::__export_judge_and_retry!($exported, [$($judge)?] [retry], $($rest)*);
    };
    ($exported:ident, [$($judge:ident)?] [$($retry:ident)?], $other:ident $($rest:ident)*) => {
        $crate::__export_judge_and_retry!($exported, [$($judge)?] [$($retry)?], $($rest)*);
    };
    ($exported:ident, [] [],) => {};
    ($exported:ident, [judge] [],) => {
        $crate::__private::bindings::judge::export_judge!($exported with_types_in $crate::__private::bindings::judge);
    };
    ($exported:ident, [] [retry],) => {
        $crate::__private::bindings::retry::export_retry!($exported with_types_in $crate::__private::bindings::retry);
    };
    ($exported:ident, [judge] [retry],) => {
        $crate::__private::pair::export_judge_retry_type!(
            $exported with_types_in $crate::__private::pair
        );
        $crate::__private::bindings::judge::exports::carillon::policy::judge::__export_carillon_policy_judge_0_1_0_cabi!(
            $exported with_types_in $crate::__private::bindings::judge::exports::carillon::policy::judge
        );
        $crate::__private::bindings::retry::exports::carillon::policy::retry::__export_carillon_policy_retry_0_1_0_cabi!(
            $exported with_types_in $crate::__private::bindings::retry::exports::carillon::policy::retry
        );
    };
}

/// Turns a role that a plugin lists but does not implement into one readable compiler message, on every target.
pub mod assert_role {
    /// The plugin implements [`crate::Encode`].
    pub const fn encode<P: crate::Encode>() {}
    /// The plugin implements [`crate::Sign`].
    pub const fn sign<P: crate::Sign>() {}
    /// The plugin implements [`crate::Judge`].
    pub const fn judge<P: crate::Judge>() {}
    /// The plugin implements [`crate::Retry`].
    pub const fn retry<P: crate::Retry>() {}
    /// The plugin implements [`crate::Observe`].
    pub const fn observe<P: crate::Observe>() {}
}
