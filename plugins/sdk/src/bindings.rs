//! The generated side of the interface: one small world for each role, so that a plugin exports the roles it lists and no others.
//!
//! A single `bundle` world would not do: its component type demands every role, and the host reads from the exports what a
//! plugin can do. The worlds share their types through `with`.

/// What the roles have in common, and what a guest may import.
pub mod shared {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package carillon:sdk;
            world shared {
                import carillon:policy/types@0.1.0;
                import carillon:policy/log@0.1.0;
                import carillon:policy/keys@0.1.0;
                import carillon:policy/jobs@0.1.0;
            }
        ",
        world: "carillon:sdk/shared",
        additional_derives: [Clone, PartialEq, Eq],
        generate_unused_types: true,
        generate_all,
    });
    pub use carillon::policy::{jobs, keys, log, types};
}

/// The export that every plugin has.
pub mod meta {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package carillon:sdk;
            world meta { export carillon:policy/meta@0.1.0; }
        ",
        world: "carillon:sdk/meta",
        pub_export_macro: true,
        export_macro_name: "export_meta",
        generate_all,
    });
    pub use exports::carillon::policy::meta::{Description, Guest};
}

/// `encode`.
pub mod encode {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package carillon:sdk;
            world encode { export carillon:policy/encode@0.1.0; }
        ",
        world: "carillon:sdk/encode",
        with: { "carillon:policy/types@0.1.0": super::shared::types },
        pub_export_macro: true,
        export_macro_name: "export_encode",
    });
    pub use exports::carillon::policy::encode::Guest;
}

/// `sign`, in two halves: wit-bindgen cannot generate an export that takes a list of borrowed handles
/// (<https://github.com/bytecodealliance/wit-bindgen/issues/811>). `contract` carries the true component type and no code; `abi`
/// is the code for the same function with the handles as the numbers they are in the canonical ABI.
pub mod sign {
    /// The component type.
    pub mod contract {
        wit_bindgen::generate!({
            path: "../../wit",
            inline: "
                package carillon:sdk;
                world sign { export carillon:policy/sign@0.1.0; }
            ",
            world: "carillon:sdk/sign",
            skip: ["sign"],
            generate_all,
            pub_export_macro: true,
            export_macro_name: "export_sign_type",
        });
    }

    /// The code. Its record and function must stay equal to those in `wit/sign.wit`.
    pub mod abi {
        wit_bindgen::generate!({
            path: "../../wit",
            inline: "
                package carillon:sdk;
                interface sign-abi {
                    use carillon:policy/types@0.1.0.{attempt, request, header, failure};
                    record signed { headers: list<header>, body: option<list<u8>> }
                    sign: func(attempt: attempt, config: string, request: request, keys: list<u32>) -> result<signed, failure>;
                }
                world sign-code { export sign-abi; }
            ",
            world: "carillon:sdk/sign-code",
            with: { "carillon:policy/types@0.1.0": crate::bindings::shared::types },
            additional_derives: [Clone, PartialEq, Eq],
            pub_export_macro: true,
            export_macro_name: "export_sign_abi_is_not_used",
        });
        pub use exports::carillon::sdk::sign_abi::{__post_return_sign, _export_sign_cabi};
    }
    pub use abi::exports::carillon::sdk::sign_abi::{Guest, Signed};
    pub use contract::export_sign_type;
}

/// `judge`.
pub mod judge {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package carillon:sdk;
            world judge { export carillon:policy/judge@0.1.0; }
        ",
        world: "carillon:sdk/judge",
        with: { "carillon:policy/types@0.1.0": super::shared::types },
        additional_derives: [Clone, PartialEq, Eq],
        pub_export_macro: true,
        export_macro_name: "export_judge",
    });
    pub use exports::carillon::policy::judge::{Exchange, Guest, Outcome, Response, TransportError, Verdict};
}

/// `retry`.
pub mod retry {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package carillon:sdk;
            world retry { export carillon:policy/retry@0.1.0; }
        ",
        world: "carillon:sdk/retry",
        with: {
            "carillon:policy/types@0.1.0": super::shared::types,
            "carillon:policy/judge@0.1.0": super::judge::exports::carillon::policy::judge,
        },
        additional_derives: [Clone, PartialEq, Eq],
        pub_export_macro: true,
        export_macro_name: "export_retry",
    });
    pub use exports::carillon::policy::retry::{Decision, Guest, Past};
}

/// `observe`.
pub mod observe {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package carillon:sdk;
            world observe { export carillon:policy/observe@0.1.0; }
        ",
        world: "carillon:sdk/observe",
        with: { "carillon:policy/types@0.1.0": super::shared::types },
        additional_derives: [Clone, PartialEq, Eq],
        pub_export_macro: true,
        export_macro_name: "export_observe",
    });
    pub use exports::carillon::policy::observe::{Event, Guest};
}
