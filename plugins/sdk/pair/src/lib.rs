//! The component type of a plugin with both `judge` and `retry`, without code; a part of `carillon-policy-sdk`.
//!
//! The types of the two roles cannot be put together from their own ones: `retry` takes the verdict's type from the `judge` that
//! is exported or, alone, from one that is imported. It is a crate of its own because wit-bindgen names the macros that it
//! exports after the interfaces, and the SDK has those for the roles one by one.

#[allow(missing_docs, unsafe_code, clippy::all, reason = "generated")]
#[doc(hidden)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package carillon:sdk;
            world judge-retry {
                export carillon:policy/judge@0.1.0;
                export carillon:policy/retry@0.1.0;
            }
        ",
        world: "carillon:sdk/judge-retry",
        skip: ["judge", "next"],
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_judge_retry_type",
    });
}
