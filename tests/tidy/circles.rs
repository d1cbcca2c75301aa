//! Files do not import each other in circles. A file and those in its own folder below it are one for this, and what a file only passes on
//! (`pub use`) does not count.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use super::{Source, root, sources};

/// The path of a module in its crate: `["v1", "jobs"]`.
type Module = Vec<String>;

/// A crate's files as modules.
struct Crate {
    texts: BTreeMap<Module, String>,
    /// Names that a module passes on, with the module that they are from.
    passed_on: BTreeMap<(Module, String), Module>,
}

/// Patterns of imports.
struct Patterns {
    comment: Regex,
    passed_on: Regex,
    path: Regex,
    list: Regex,
}

impl Patterns {
    fn new() -> Self {
        let regex = |text| Regex::new(text).unwrap();
        Self {
            comment: regex(r"//[^\n]*"),
            passed_on: regex(r"(?m)^pub(?:\([^)]*\))? use ([^;]*);"),
            path: regex(r"\b(crate|self|super(?:::super)*)((?:::\w+)+)"),
            list: regex(r"\b(crate|self|super(?:::super)*)((?:::\w+)*)::\{([^{}]*)\}"),
        }
    }
}

fn module_of(path: &str) -> Module {
    let mut module: Module = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| last == "mod" || last == "lib") {
        module.pop();
    }
    module
}

fn parts(path: &str) -> Vec<String> {
    path.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Where a path begins that is written in `module`.
fn base(module: &Module, start: &str) -> Module {
    match start {
        "crate" => Module::new(),
        "self" => module.clone(),
        _ => module[..module.len().saturating_sub(start.matches("super").count())].to_vec(),
    }
}

impl Crate {
    fn new(folder: &str, patterns: &Patterns) -> Self {
        let prefix = format!("{folder}/");
        let is_product = |source: &Source| !source.is_test() && !source.path.ends_with("/main.rs");
        let files = sources(folder, &[".rs"]).into_iter().filter(is_product);
        let texts: BTreeMap<_, _> = files
            .map(|source| {
                let text = patterns.comment.replace_all(source.product(), "").into_owned();
                (module_of(source.path.trim_start_matches(&prefix)), text)
            })
            .collect();
        let mut passed_on = BTreeMap::new();
        for (module, text) in &texts {
            for found in patterns.passed_on.captures_iter(text) {
                let whole: String = found[1].split_whitespace().collect();
                let (path, names) = match whole.split_once("::{") {
                    Some((path, names)) => (path.to_owned(), names.trim_end_matches('}').to_owned()),
                    None => whole
                        .rsplit_once("::")
                        .map_or_else(Default::default, |(path, name)| (path.to_owned(), name.to_owned())),
                };
                let from = path.trim_start_matches("self::");
                let target = match from.strip_prefix("crate::") {
                    Some(rest) => parts(rest),
                    None => module.iter().cloned().chain(parts(from)).collect(),
                };
                for name in names.split(',') {
                    passed_on.insert((module.clone(), name.to_owned()), target.clone());
                }
            }
        }
        Self { texts, passed_on }
    }

    /// The file that a path leads to.
    fn file(&self, path: &[String]) -> Option<Module> {
        let len = (0..=path.len()).rev().find(|len| self.texts.contains_key(&path[..*len]))?;
        let module = path[..len].to_vec();
        let passed_on = path.get(len).and_then(|name| self.passed_on.get(&(module.clone(), name.clone())));
        Some(passed_on.filter(|target| self.texts.contains_key(*target)).cloned().unwrap_or(module))
    }

    /// The files that a file imports, but for those above and below it.
    fn imports(&self, module: &Module, patterns: &Patterns) -> BTreeSet<Module> {
        let text = patterns.passed_on.replace_all(&self.texts[module], "");
        let mut paths: Vec<Module> = Vec::new();
        for found in patterns.path.captures_iter(&text) {
            let end = found.get(0).map_or(0, |whole| whole.end());
            if text[end..].starts_with("::{") {
                continue;
            }
            paths.push(base(module, &found[1]).into_iter().chain(parts(&found[2])).collect());
        }
        for found in patterns.list.captures_iter(&text) {
            let start: Module = base(module, &found[1]).into_iter().chain(parts(&found[2])).collect();
            let names = found[3].split(',').map(|name| name.trim().split(' ').next().unwrap_or_default());
            paths.extend(
                names.filter(|name| *name != "self").map(|name| start.iter().cloned().chain(parts(name)).collect()),
            );
        }
        let files = paths.iter().filter_map(|path| self.file(path));
        files.filter(|file| !file.starts_with(module) && !module.starts_with(file)).collect()
    }
}

/// A way from a file back to itself, if there is one.
fn circle(imports: &BTreeMap<Module, BTreeSet<Module>>) -> Option<Vec<String>> {
    for start in imports.keys() {
        let (mut left, mut before) = (vec![start], BTreeMap::<&Module, &Module>::new());
        while let Some(module) = left.pop() {
            for next in &imports[module] {
                if next == start {
                    let mut way = vec![start, module];
                    while let Some(earlier) = before.get(way[way.len() - 1]).filter(|_| way[way.len() - 1] != start) {
                        way.push(earlier);
                    }
                    return Some(way.iter().rev().map(|module| module.join("::")).collect());
                }
                if !before.contains_key(next) {
                    before.insert(next, module);
                    left.push(next);
                }
            }
        }
    }
    None
}

#[test]
fn files_import_each_other_in_no_circle() {
    let patterns = Patterns::new();
    let (mut crates, mut arrows, mut circles) = (0, 0, Vec::new());
    for entry in std::fs::read_dir(root().join("host")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let folder = format!("host/{name}/src");
        if !root().join(&folder).is_dir() {
            continue;
        }
        let files = Crate::new(&folder, &patterns);
        let imports: BTreeMap<_, _> =
            files.texts.keys().map(|module| (module.clone(), files.imports(module, &patterns))).collect();
        crates += 1;
        arrows += imports.values().map(BTreeSet::len).sum::<usize>();
        circles.extend(circle(&imports).map(|way| format!("{name}: {}", way.join(" -> "))));
    }
    assert!(circles.is_empty(), "circles: {circles:#?}");
    assert!(crates >= 15 && arrows > 500, "{arrows} imports in {crates} crates were seen");
}

#[test]
fn a_circle_is_found() {
    let module = |name: &str| vec![name.to_owned()];
    let imports = [("a", "b"), ("b", "c"), ("c", "b")];
    let mut graph: BTreeMap<Module, BTreeSet<Module>> =
        ["a", "b", "c"].map(|name| (module(name), BTreeSet::new())).into();
    for (from, to) in imports {
        graph.get_mut(&module(from)).unwrap().insert(module(to));
    }
    assert_eq!(circle(&graph).unwrap(), ["b", "c", "b"]);
    graph.get_mut(&module("c")).unwrap().clear();
    assert_eq!(circle(&graph), None);
}
