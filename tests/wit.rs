//! `docs/reference/wit.md`, the reference of the policy interface: it is what `wit/` gives, to the letter.
//!
//! `CARILLON_WRITE_DOCS=1 cargo nextest run --release --workspace -E 'test(wit::)'` writes it anew.

use std::fmt::Write as _;

use wit_parser::{
    Docs, Function, FunctionKind, Handle, Interface, Resolve, Type, TypeDef, TypeDefKind, TypeId, TypeOwner, World,
    WorldItem, WorldKey,
};

use crate::support::repository;

/// The variable of the environment that lets the test write the page.
const WRITE: &str = "CARILLON_WRITE_DOCS";

const PAGE: &str = "docs/reference/wit.md";

const HEAD: &str = "# Reference of the policy interface

This page describes every item of the package in [wit/](../../wit), and is generated from it. [Policies](../concepts/policies.md) explains when
each function is called and what follows if it has no result. [Write a policy](../guides/write-a-policy.md) leads through a first plugin.
";

/// The interfaces in the order of an attempt; what all of them use comes first.
const ORDER: [&str; 10] = ["types", "meta", "encode", "sign", "judge", "retry", "observe", "keys", "jobs", "log"];

/// Writes the page.
struct Page<'a> {
    resolve: &'a Resolve,
    text: String,
}

impl Page<'_> {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// A doc comment, as paragraphs.
    fn docs(&mut self, docs: &Docs) {
        let contents = docs.contents.as_deref().unwrap_or_default().trim();
        if !contents.is_empty() {
            self.line(&format!("\n{contents}"));
        }
    }

    fn interface(&mut self, interface: &Interface) {
        let name = interface.name.as_deref().unwrap();
        self.line(&format!("\n## interface `{name}`"));
        self.docs(&interface.docs);
        for (name, id) in &interface.types {
            let ty = &self.resolve.types[*id];
            // What `use` brings along is described where it is from.
            if !matches!(ty.kind, TypeDefKind::Type(_)) {
                self.ty(name, *id, ty, interface);
            }
        }
        for function in interface.functions.values().filter(|it| it.kind == FunctionKind::Freestanding) {
            self.line(&format!("\n### `{}`", function.name));
            self.line(&format!("\n```wit\n{}\n```", self.signature(&function.name, function)));
            self.docs(&function.docs);
        }
    }

    fn ty(&mut self, name: &str, id: TypeId, ty: &TypeDef, interface: &Interface) {
        self.line(&format!("\n### {} `{name}`", ty.kind.as_str()));
        self.docs(&ty.docs);
        match &ty.kind {
            TypeDefKind::Record(record) => {
                let row =
                    |field: &wit_parser::Field| (field.name.clone(), Some(self.name(&field.ty)), field.docs.clone());
                self.rows(["field", "type"], record.fields.iter().map(row).collect());
            }
            TypeDefKind::Variant(variant) => {
                let ty = |case: &wit_parser::Case| case.ty.as_ref().map(|ty| self.name(ty));
                let row = |case: &wit_parser::Case| (case.name.clone(), ty(case), case.docs.clone());
                self.rows(["case", "with"], variant.cases.iter().map(row).collect());
            }
            TypeDefKind::Enum(cases) => {
                let row = |case: &wit_parser::EnumCase| (case.name.clone(), None, case.docs.clone());
                self.rows(["case", ""], cases.cases.iter().map(row).collect());
            }
            TypeDefKind::Resource => {
                for function in interface.functions.values().filter(|it| it.kind == FunctionKind::Method(id)) {
                    let short = function.item_name();
                    self.line(&format!("\n```wit\n{}\n```", self.signature(short, function)));
                    self.docs(&function.docs);
                }
            }
            other => panic!("`{name}` is a {}, of which this page knows nothing", other.as_str()),
        }
    }

    /// A table of names, types and what is said of them; columns that say nothing are left out.
    fn rows(&mut self, headings: [&str; 2], rows: Vec<(String, Option<String>, Docs)>) {
        let (typed, told) = (rows.iter().any(|row| row.1.is_some()), rows.iter().any(|row| row.2.contents.is_some()));
        let line = |name: &str, ty: &str, docs: &str| {
            let mut cells = vec![name];
            cells.extend(typed.then_some(ty));
            cells.extend(told.then_some(docs));
            format!("| {} |", cells.join(" | "))
        };
        self.line(&format!("\n{}", line(headings[0], headings[1], "")));
        self.line(&line("---", "---", "---"));
        for (name, ty, docs) in rows {
            let ty = ty.map(|ty| format!("`{ty}`")).unwrap_or_default();
            let docs = docs.contents.unwrap_or_default().trim().replace('\n', " ").replace('|', "\\|");
            self.line(&line(&format!("`{name}`"), &ty, &docs));
        }
    }

    fn world(&mut self, world: &World) {
        self.line(&format!("\n### world `{}`", world.name));
        self.docs(&world.docs);
        self.line("");
        for (way, items) in [("imports", &world.imports), ("exports", &world.exports)] {
            let names = items.iter().map(|(key, item)| match (key, item) {
                (WorldKey::Interface(id), WorldItem::Interface { .. }) => {
                    let name = self.resolve.interfaces[*id].name.as_deref().unwrap();
                    format!("[`{name}`](#interface-{name})")
                }
                other => panic!("{other:?} is no interface"),
            });
            let names: Vec<_> = names.collect();
            if !names.is_empty() {
                self.line(&format!("- {way} {}", names.join(", ")));
            }
        }
    }

    fn signature(&self, name: &str, function: &Function) -> String {
        let is_self = |name: &str| matches!(function.kind, FunctionKind::Method(_)) && name == "self";
        let params = function.params.iter().filter(|param| !is_self(&param.name));
        let params: Vec<_> = params.map(|param| format!("{}: {}", param.name, self.name(&param.ty))).collect();
        let mut text = format!("{name}: func({})", params.join(", "));
        if let Some(result) = &function.result {
            write!(text, " -> {}", self.name(result)).unwrap();
        }
        text
    }

    /// A type as WIT writes it.
    fn name(&self, ty: &Type) -> String {
        let id = match ty {
            Type::Bool => return "bool".into(),
            Type::U8 => return "u8".into(),
            Type::U16 => return "u16".into(),
            Type::U32 => return "u32".into(),
            Type::U64 => return "u64".into(),
            Type::String => return "string".into(),
            Type::Id(id) => *id,
            other => panic!("{other:?} is a type of which this page knows nothing"),
        };
        let def = &self.resolve.types[id];
        if let Some(name) = &def.name {
            return name.clone();
        }
        let side = |ty: &Option<Type>| ty.as_ref().map_or_else(|| "_".to_owned(), |ty| self.name(ty));
        match &def.kind {
            TypeDefKind::List(item) => format!("list<{}>", self.name(item)),
            TypeDefKind::Option(item) => format!("option<{}>", self.name(item)),
            TypeDefKind::Result(result) if result.ok.is_none() && result.err.is_none() => "result".into(),
            TypeDefKind::Result(result) if result.err.is_none() => format!("result<{}>", side(&result.ok)),
            TypeDefKind::Result(result) => format!("result<{}, {}>", side(&result.ok), side(&result.err)),
            TypeDefKind::Handle(Handle::Borrow(id)) => format!("borrow<{}>", self.name(&Type::Id(*id))),
            other => panic!("a {} without a name, of which this page knows nothing", other.as_str()),
        }
    }
}

/// The page, from the WIT.
fn page() -> String {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(repository().join("wit")).unwrap();
    let package = &resolve.packages[package];
    let mut page = Page { resolve: &resolve, text: HEAD.to_owned() };
    page.line(&format!("\nThe package is `{}`.", package.name));
    let mut known: Vec<_> = package.interfaces.keys().map(String::as_str).collect();
    known.sort_by_key(|name| ORDER.iter().position(|it| it == name));
    assert_eq!(known, ORDER, "each interface has its place");
    for name in ORDER {
        page.interface(&resolve.interfaces[package.interfaces[name]]);
    }
    page.line("\n## Worlds");
    for id in package.worlds.values() {
        page.world(&resolve.worlds[*id]);
    }
    let types = resolve.types.iter().filter(|(_, ty)| ty.name.is_some() && matches!(ty.owner, TypeOwner::Interface(_)));
    assert!(types.count() > 20, "it has the types");
    page.text
}

#[test]
fn the_reference_is_what_the_wit_gives() {
    let (page, path) = (page(), repository().join(PAGE));
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let different = page.lines().zip(written.lines().chain(std::iter::repeat(""))).find(|(one, other)| one != other);
    assert!(
        page == written,
        "{PAGE} is not what wit/ gives, first at {different:?}: set {WRITE}=1 and run this test again, which writes it"
    );
}
