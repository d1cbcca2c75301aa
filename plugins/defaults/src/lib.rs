//! The default plugins, built along with the server, so that a fresh installation can deliver without an upload.
//!
//! Invariant: each is an ordinary component, with no privilege over one that a tenant uploads.

/// A plugin that the server brings along.
#[derive(Clone, Copy, Debug)]
pub struct Embedded {
    /// The plugin's own name, as its `describe` says it.
    pub name: &'static str,
    /// The component.
    pub component: &'static [u8],
}

macro_rules! embedded {
    ($name:literal) => {
        Embedded { name: $name, component: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".wasm")) }
    };
}

/// All of them, by name.
pub const ALL: [Embedded; 6] = [
    embedded!("backoff"),
    embedded!("base64-envelope"),
    embedded!("expected-status"),
    embedded!("hmac"),
    embedded!("standard-webhooks"),
    embedded!("werkzeug-cookie"),
];

#[cfg(test)]
mod tests {
    use wit_component::WitPrinter;

    use super::ALL;

    /// The world of a component, as WIT.
    fn world(component: &[u8]) -> String {
        let decoded = wit_component::decode(component).expect("a component");
        let mut printer = WitPrinter::default();
        printer.print(decoded.resolve(), decoded.package(), &[]).expect("WIT");
        printer.output.to_string()
    }

    fn lines<'a>(wit: &'a str, keyword: &str) -> Vec<&'a str> {
        let mut names: Vec<&str> = wit
            .lines()
            .filter_map(|line| {
                line.trim().strip_prefix(keyword)?.strip_prefix(" carillon:policy/")?.strip_suffix("@0.1.0;")
            })
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn each_exports_its_role_and_imports_no_more_than_it_needs() {
        for (plugin, (name, role)) in ALL.iter().zip([
            ("backoff", "retry"),
            ("base64-envelope", "encode"),
            ("expected-status", "judge"),
            ("hmac", "sign"),
            ("standard-webhooks", "sign"),
            ("werkzeug-cookie", "sign"),
        ]) {
            assert_eq!(plugin.name, name);
            let world = world(plugin.component);
            let mut exports = ["meta", role];
            exports.sort_unstable();
            assert_eq!(lines(&world, "export"), exports, "{world}");
            let functions = lines(&world, "import")
                .into_iter()
                .filter(|import| !["types", "judge"].contains(import))
                .collect::<Vec<_>>();
            let needed = match role {
                "sign" => vec!["keys"],
                _ => vec![],
            };
            assert_eq!(functions, needed, "{world}");
            assert!(!world.contains("wasi:"), "{world}");
        }
    }

    #[test]
    fn none_names_the_directory_it_was_built_in() {
        let directory = env!("CARGO_MANIFEST_DIR").trim_end_matches("/plugins/defaults");
        for plugin in ALL {
            assert!(
                !plugin.component.windows(directory.len()).any(|window| window == directory.as_bytes()),
                "{}",
                plugin.name
            );
        }
    }

    #[test]
    fn none_is_larger_than_a_default_plugin_should_be() {
        const LARGEST_BYTES: usize = 512 * 1024;
        for plugin in ALL {
            assert!(plugin.component.len() < LARGEST_BYTES, "{} has {} bytes", plugin.name, plugin.component.len());
        }
    }
}
