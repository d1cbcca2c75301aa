//! Guests for tests: components made from a few lines of WebAssembly text, with the types of `wit/`.
//!
//! A guest exports `meta` and any roles, each with a body of its own. Its memory begins as zeros, and zeros at [`ANSWER`] are the plainest
//! valid result of every role but `encode`: nothing added, success, retry at once. Addresses from 1024 to 64 Ki are free for the test;
//! arguments from the host lie above.

use std::fmt::Write as _;
use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Address of a role's result: 0 in its first byte is `ok`, 1 is `err`.
pub const ANSWER: u32 = 128;

/// Body that returns the plainest valid result.
pub const PLAIN: &str = "(i32.const 128)";

/// Body of an encoder that returns the request unchanged. The request is at byte 88 of the arguments and has 32 bytes.
pub const ECHO: &str =
    "(memory.copy (i32.const 132) (i32.add (local.get $p) (i32.const 88)) (i32.const 32)) (i32.const 128)";

/// Body that never ends.
pub const ENDLESS: &str = "(loop $again (br $again)) (unreachable)";

/// Imports that the host provides; a module imports those that its text names.
const IMPORTS: [(&str, &str); 5] = [
    ("$log", r#"(import "carillon:policy/log@0.1.0" "write" (func $log (param i32 i32 i32)))"#),
    ("$key_id", r#"(import "carillon:policy/keys@0.1.0" "[method]key.id" (func $key_id (param i32 i32)))"#),
    ("$mac", r#"(import "carillon:policy/keys@0.1.0" "[method]key.mac" (func $mac (param i32 i32 i32 i32 i32)))"#),
    (
        "$signature",
        r#"(import "carillon:policy/keys@0.1.0" "[method]key.sign" (func $signature (param i32 i32 i32 i32 i32)))"#,
    ),
    ("$drop_key", r#"(import "carillon:policy/keys@0.1.0" "[resource-drop]key" (func $drop_key (param i32)))"#),
];

/// Allocator that hands out memory from 64 Ki upwards and never reuses it.
const REALLOC: &str = r#"
  (global $next (mut i32) (i32.const 65536))
  (func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
    (global.set $next (i32.add (local.get $at) (local.get 3)))
    (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
      (then (if (i32.eq (memory.grow (i32.add (i32.shr_u (local.get 3) (i32.const 16)) (i32.const 1))) (i32.const -1))
        (then (unreachable)))))
    (local.get $at))"#;

/// Builder of a guest.
#[derive(Clone)]
pub struct Guest {
    roles: Vec<(String, String)>,
    items: String,
    memory: String,
    realloc: String,
    description: [String; 4],
    check: String,
    has_meta: bool,
    wit: String,
    imports: String,
    own_imports: String,
}

impl Guest {
    /// Makes a guest that plays `role` with `body`, which leaves the address of a result; `$p` is the address of the arguments, `$i` and `$n`
    /// are spare locals.
    pub fn new(role: &str, body: &str) -> Self {
        Self::describing("guest", "1.0.0", "{}").role(role, body)
    }

    /// Makes a guest without a role, with this description.
    pub fn describing(name: &str, version: &str, schema: &str) -> Self {
        Self {
            roles: Vec::new(),
            items: String::new(),
            memory: r#"(memory (export "memory") 2)"#.to_owned(),
            realloc: REALLOC.to_owned(),
            description: [name.to_owned(), version.to_owned(), "a guest for tests".to_owned(), schema.to_owned()],
            check: PLAIN.to_owned(),
            has_meta: true,
            wit: policy_wit(),
            imports: String::new(),
            own_imports: String::new(),
        }
    }

    /// Sets the summary.
    pub fn summary(mut self, summary: &str) -> Self {
        summary.clone_into(&mut self.description[2]);
        self
    }

    /// Replaces the body of the first role.
    pub fn instead(mut self, body: &str) -> Self {
        body.clone_into(&mut self.roles[0].1);
        self
    }

    /// Adds another role.
    pub fn role(mut self, role: &str, body: &str) -> Self {
        self.roles.push((role.to_owned(), body.to_owned()));
        self
    }

    /// Adds an item to the module: data, functions, tables, a start function.
    pub fn with(mut self, item: &str) -> Self {
        writeln!(self.items, "  {item}").expect("a string takes it");
        self
    }

    /// Adds an import.
    pub fn first(mut self, import: &str) -> Self {
        writeln!(self.own_imports, "  {import}").expect("a string takes it");
        self
    }

    /// Sets the memory; the default is two pages without a maximum.
    pub fn memory(mut self, memory: &str) -> Self {
        memory.clone_into(&mut self.memory);
        self
    }

    /// Sets the allocator.
    pub fn realloc(mut self, realloc: &str) -> Self {
        realloc.clone_into(&mut self.realloc);
        self
    }

    /// Sets the body of `check`.
    pub fn check(mut self, body: &str) -> Self {
        body.clone_into(&mut self.check);
        self
    }

    /// Removes the export `meta`.
    pub fn without_meta(mut self) -> Self {
        self.has_meta = false;
        self
    }

    /// Changes the interface that the guest is made for: `from` in `wit/` becomes `to`.
    pub fn speaking(mut self, from: &str, to: &str) -> Self {
        assert!(self.wit.contains(from), "`{from}` is not in wit/");
        self.wit = self.wit.replace(from, to);
        self
    }

    /// Imports an interface, such as `wasi:clocks/wall-clock@0.2.0`, whose package is written in `package`.
    pub fn importing(mut self, interface: &str, package: &str) -> Self {
        writeln!(self.imports, "import {interface};").expect("a string takes it");
        writeln!(self.wit, "{package}").expect("a string takes it");
        self
    }

    /// Builds the component.
    pub fn build(&self) -> Vec<u8> {
        let text = self.module();
        let mut module = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let mut resolve = Resolve::default();
        let package = resolve.push_str("guest.wit", &self.world()).expect("the WIT is right");
        let world = resolve.select_world(&[package], None).expect("there is one world");
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("the module is a module");
        ComponentEncoder::default()
            .validate(true)
            .module(&module)
            .and_then(|mut encoder| encoder.encode())
            .unwrap_or_else(|error| panic!("{error:?}\n{text}"))
    }

    fn world(&self) -> String {
        let meta = if self.has_meta { "export carillon:policy/meta@0.1.0;\n" } else { "" };
        let mut roles = String::new();
        for (role, _) in &self.roles {
            writeln!(roles, "export carillon:policy/{role}@0.1.0;").expect("a string takes it");
        }
        format!(
            "package test:guest;\n{}\nworld guest {{\nimport carillon:policy/log@0.1.0;\nimport carillon:policy/keys@0.1.0;\n{}{meta}{roles}}}",
            self.wit, self.imports,
        )
    }

    fn module(&self) -> String {
        let mut rest = format!("  {}\n{}\n{}", self.memory, self.realloc, self.items);
        if self.has_meta {
            rest.push_str(&self.meta());
        }
        for (role, body) in &self.roles {
            let (function, parameters) = match role.as_str() {
                "retry" => ("next", "(param $p i32) (result i32)"),
                "observe" => ("observe", "(param $p i32) (param i32 i32 i32)"),
                role => (role, "(param $p i32) (result i32)"),
            };
            writeln!(
                rest,
                "  (func $play_{role} (export \"carillon:policy/{role}@0.1.0#{function}\") {parameters} (local $i i32) (local $n i32)\n    {body})"
            )
            .expect("a string takes it");
        }
        let imports = IMPORTS.iter().filter(|(name, _)| rest.contains(&format!("{name} "))).map(|(_, text)| *text);
        format!("(module\n{}\n{}\n{rest})", imports.collect::<Vec<_>>().join("\n"), self.own_imports)
    }

    fn meta(&self) -> String {
        let (mut at, mut words, mut data) = (256, Vec::new(), String::new());
        for text in &self.description {
            words.extend([at, u32::try_from(text.len()).expect("short")]);
            data.push_str(&bytes(at, text.as_bytes()));
            at += u32::try_from(text.len()).expect("short");
        }
        assert!(at <= 1024, "the description is too long for its place");
        format!(
            "  {}{data}  (func (export \"carillon:policy/meta@0.1.0#describe\") (result i32) (i32.const 64))\n  (func (export \"carillon:policy/meta@0.1.0#check\") (param $p i32) (param $len i32) (result i32)\n    {})\n",
            self::words(64, &words),
            self.check,
        )
    }
}

/// Returns data: little-endian words at an address.
pub fn words(at: u32, words: &[u32]) -> String {
    bytes(at, &words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>())
}

/// Returns data: bytes at an address.
pub fn bytes(at: u32, bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        write!(text, "\\{byte:02x}").expect("a string takes it");
    }
    format!("(data (i32.const {at}) \"{text}\")\n")
}

/// Returns a role's `err` result, `offset` bytes after its first byte: 4, or 8 for `retry`.
pub fn failure(offset: u32, blame: u32, code: &str, message: &str) -> String {
    let (code_at, message_at) = (1024, 1280);
    let place = |text: &str| u32::try_from(text.len()).expect("short");
    let fields = [blame, code_at, place(code), message_at, place(message)];
    words(ANSWER, &[1])
        + &words(ANSWER + offset, &fields)
        + &bytes(code_at, code.as_bytes())
        + &bytes(message_at, message.as_bytes())
}

/// Returns a signer's result with these headers, and a body of `body` zero bytes if there is one.
pub fn signed(headers: &[(&str, &[u8])], body: Option<u32>) -> String {
    let count = u32::try_from(headers.len()).expect("few");
    let mut data = words(ANSWER, &[0, 1024, count, u32::from(body.is_some()), 65536, body.unwrap_or(0)]);
    let (mut records, mut at) = (Vec::new(), 1024 + count * 16);
    for text in headers.iter().flat_map(|(name, value)| [name.as_bytes(), value]) {
        let len = u32::try_from(text.len()).expect("short");
        records.extend([at, len]);
        data.push_str(&bytes(at, text));
        at += len;
    }
    data + &words(1024, &records)
}

/// Returns all of `wit/` as one nested package.
fn policy_wit() -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
    let mut files: Vec<_> =
        std::fs::read_dir(directory).expect("wit/").map(|entry| entry.expect("wit/").path()).collect();
    files.sort();
    let mut wit = String::from("package carillon:policy@0.1.0 {\n");
    for file in files {
        let text = std::fs::read_to_string(file).expect("a file of wit/");
        wit.push_str(&text.replacen("package carillon:policy@0.1.0;", "", 1));
    }
    wit + "}\n"
}
