//! The source as a structure: no module depends on one that depends on it, a long file says why it is long, and no file
//! is left out of what is compiled. A parent and its own submodules are one thing.
//!
//! Paths are read from the source with [`syn`], code of tests left out. What `use` brings into a module counts as a
//! dependency of that module, so a re-export does not hide one.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers as well")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// The longest file without a reason, in lines.
const LONG: usize = 400;

/// A module of a crate by its names, the crate itself without any.
type Module = Vec<String>;

/// Which of two siblings names the other one, with the modules that show it.
type Edges = BTreeMap<(String, String), (Module, Module)>;

/// Every module of a crate and the modules that its source names.
#[derive(Default)]
struct Crate {
    modules: BTreeSet<Module>,
    /// As written, resolved against the module: the ends may be items.
    named: BTreeMap<Module, BTreeSet<Vec<String>>>,
}

impl Crate {
    fn read(src: &Path) -> Self {
        let mut this = Self::default();
        for file in rust_files(src) {
            let relative = file.strip_prefix(src).unwrap().with_extension("");
            let mut module: Module =
                relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            if ["mod", "lib", "main"].contains(&module.last().unwrap().as_str()) {
                module.pop();
            }
            if module.iter().any(|name| name.contains("tests")) {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap();
            let parsed =
                syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            Reader { found: &mut this, module }.visit_file(&parsed);
        }
        this
    }

    /// The deepest module on a path.
    fn module_of(&self, path: &[String]) -> Module {
        let mut module = path.to_vec();
        while !self.modules.contains(&module) && !module.is_empty() {
            module.pop();
        }
        module
    }

    /// Which sibling depends on which, by their parent; with the modules that show it.
    fn siblings(&self) -> BTreeMap<Module, Edges> {
        let mut siblings: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for (from, named) in &self.named {
            for to in named.iter().map(|path| self.module_of(path)) {
                let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                if let (Some(a), Some(b)) = (from.get(common), to.get(common)) {
                    let edge = (a.clone(), b.clone());
                    let shown = (from.clone(), to.clone());
                    siblings.entry(from[..common].to_vec()).or_default().insert(edge, shown);
                }
            }
        }
        siblings
    }

    fn circles(&self) -> Vec<String> {
        let mut circles = Vec::new();
        for edges in self.siblings().into_values() {
            let names: BTreeSet<_> = edges.keys().map(|(from, _)| from.clone()).collect();
            let mut told = BTreeSet::new();
            for start in names {
                let Some(circle) = circle(&edges, &start) else { continue };
                let all: BTreeSet<_> = circle.iter().cloned().collect();
                if !told.insert(all) {
                    continue;
                }
                let steps = circle.iter().zip(circle.iter().cycle().skip(1)).map(|(from, to)| {
                    let (from, to) = &edges[&(from.clone(), to.clone())];
                    format!("{} names {}", from.join("::"), to.join("::"))
                });
                circles.push(steps.collect::<Vec<_>>().join(", "));
            }
        }
        circles
    }
}

/// The shortest way from a name back to itself.
fn circle<T>(edges: &BTreeMap<(String, String), T>, start: &str) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.to_owned()]];
    let mut seen = BTreeSet::new();
    while let Some(way) = (!ways.is_empty()).then(|| ways.remove(0)) {
        let last = way.last().unwrap();
        for (_, to) in edges.keys().filter(|(from, _)| from == last) {
            if to == start {
                return Some(way);
            }
            if seen.insert(to.clone()) {
                ways.push([way.as_slice(), std::slice::from_ref(to)].concat());
            }
        }
    }
    None
}

/// Collects what one file names.
struct Reader<'a> {
    found: &'a mut Crate,
    module: Module,
}

impl Reader<'_> {
    fn name(&mut self, path: &[String]) {
        let mut at = self.module.clone();
        let mut rest = path;
        while let [first, more @ ..] = rest {
            match first.as_str() {
                "crate" => at.clear(),
                "self" => {}
                "super" => drop(at.pop()),
                _ => break,
            }
            rest = more;
        }
        let absolute = rest.len() < path.len();
        at.extend(rest.iter().cloned());
        // A path without such a beginning may be one of a submodule, which is no dependency of interest.
        if absolute {
            self.found.named.entry(self.module.clone()).or_default().insert(at);
        }
    }

    fn name_tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.name_tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.name(&with(&name.ident)),
            syn::UseTree::Rename(name) => self.name(&with(&name.ident)),
            syn::UseTree::Glob(_) => self.name(before),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.name_tree(before, tree));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_file(&mut self, file: &'ast syn::File) {
        self.found.modules.insert(self.module.clone());
        visit::visit_file(self, file);
    }

    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !attributes.iter().any(is_for_tests) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.content.is_some() {
            self.module.push(item.ident.to_string());
            self.found.modules.insert(self.module.clone());
            visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.name_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        self.name(&names);
        visit::visit_path(self, path);
    }
}

/// `#[cfg(test)]`.
fn is_for_tests(attribute: &syn::Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.parse_args::<syn::Path>().is_ok_and(|word| word.is_ident("test"))
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The folder of every package of the workspace.
fn packages() -> Vec<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folders = [top.to_owned(), top.join("crates"), top.join("xtask")];
    let mut packages: Vec<_> = folders
        .iter()
        .flat_map(|dir| fs::read_dir(dir).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|dir| dir.join("Cargo.toml").exists())
        .collect();
    packages.sort();
    packages
}

#[test]
fn no_module_depends_on_one_that_depends_on_it() {
    let packages = packages();
    assert!(packages.len() > 15, "{packages:?}");
    let mut circles = Vec::new();
    for src in packages.iter().map(|dir| dir.join("src")).filter(|src| src.is_dir()) {
        let found = Crate::read(&src).circles();
        circles.extend(found.into_iter().map(|circle| format!("{}: {circle}", src.display())));
    }
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

#[test]
fn a_long_file_says_why_it_is_long() {
    let is_long = |text: &str| text.lines().count() > LONG;
    let says_why = |text: &str| {
        let first: Vec<_> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        first.join(" ").replace("//! ", "").contains("The file is long because")
    };
    let silent: Vec<_> = packages()
        .iter()
        .flat_map(|dir| rust_files(dir))
        .filter(|file| {
            fs::read_to_string(file).is_ok_and(|text| is_long(&text) && !says_why(&text))
        })
        .collect();
    assert!(silent.is_empty(), "more than {LONG} lines, and no reason: {silent:?}");
}

/// Adds a file and those of its modules to the files that are compiled.
fn follow(file: &Path, is_root: bool, compiled: &mut BTreeSet<PathBuf>) {
    let Ok(file) = file.canonicalize() else { return };
    if !compiled.insert(file.clone()) {
        return;
    }
    let (dir, stem) = (file.parent().unwrap(), file.file_stem().unwrap());
    let modules = if is_root || stem == "mod" { dir.to_owned() } else { dir.join(stem) };
    let text = fs::read_to_string(&file).unwrap();
    let parsed = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    follow_items(&parsed.items, dir, &modules, compiled);
}

/// The same of the modules among `items`: their files are in `modules`, or where an attribute in a file of `dir` says.
fn follow_items(items: &[syn::Item], dir: &Path, modules: &Path, compiled: &mut BTreeSet<PathBuf>) {
    let declared = items.iter().filter_map(|item| match item {
        syn::Item::Mod(item) => Some(item),
        _ => None,
    });
    for item in declared {
        let (name, inner) = (item.ident.to_string(), modules.join(item.ident.to_string()));
        let path = item.attrs.iter().find_map(|attribute| match &attribute.meta {
            syn::Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
                syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(path), .. }) => Some(path.value()),
                _ => None,
            },
            _ => None,
        });
        match (&item.content, path) {
            (Some((_, items)), _) => follow_items(items, dir, &inner, compiled),
            (None, Some(path)) => follow(&dir.join(path), false, compiled),
            (None, None) => {
                follow(&modules.join(format!("{name}.rs")), false, compiled);
                follow(&inner.join("mod.rs"), false, compiled);
            }
        }
    }
}

/// The files that Cargo compiles on its own: of the library, programs, tests, benchmarks and examples of a package.
fn roots(package: &Path) -> Vec<PathBuf> {
    let manifest = fs::read_to_string(package.join("Cargo.toml")).unwrap();
    let named = manifest.lines().filter_map(|line| {
        let path = line.strip_prefix("path = \"")?.strip_suffix('"')?;
        path.ends_with(".rs").then(|| package.join(path))
    });
    let mut roots: Vec<PathBuf> = named.collect();
    roots.extend(["build.rs", "src/lib.rs", "src/main.rs"].map(|file| package.join(file)));
    for dir in ["src/bin", "tests", "benches", "examples"] {
        for entry in fs::read_dir(package.join(dir)).into_iter().flatten() {
            let path = entry.unwrap().path();
            roots.push(if path.is_dir() { path.join("main.rs") } else { path });
        }
    }
    roots.retain(|path| path.extension().is_some_and(|end| end == "rs"));
    roots
}

/// Files of a package that nothing declares as a module, so that nobody compiles them.
fn forgotten(package: &Path) -> Vec<PathBuf> {
    let mut compiled = BTreeSet::new();
    roots(package).iter().for_each(|root| follow(root, true, &mut compiled));
    let folders = ["src", "tests", "benches", "examples"].map(|dir| package.join(dir));
    let files = folders.iter().filter(|dir| dir.is_dir()).flat_map(|dir| rust_files(dir));
    files.filter(|file| !compiled.contains(&file.canonicalize().unwrap())).collect()
}

fn write_in(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn every_file_is_a_module_of_something_that_is_compiled() {
    let forgotten: Vec<_> = packages().iter().flat_map(|package| forgotten(package)).collect();
    assert!(forgotten.is_empty(), "declared by no `mod`: {forgotten:?}");
}

#[test]
fn a_file_that_no_module_declares_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name, text| write_in(dir.path(), name, text);
    write("Cargo.toml", "[package]\nname = \"example\"\n");
    write("src/lib.rs", "mod a; mod inline { mod b; }");
    write("src/a.rs", "#[cfg(test)]\n#[path = \"a_tests.rs\"]\nmod tests;\nmod c;");
    write("src/a_tests.rs", "");
    write("src/a/c.rs", "");
    write("src/inline/b/mod.rs", "");
    write("tests/whole/main.rs", "mod part;");
    write("tests/whole/part.rs", "");
    assert!(forgotten(dir.path()).is_empty(), "{:?}", forgotten(dir.path()));
    write("tests/whole/other.rs", "");
    assert_eq!(forgotten(dir.path()), [dir.path().join("tests/whole/other.rs")]);
}

#[test]
fn a_circle_is_found_and_a_parent_with_its_submodule_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name, text| write_in(dir.path(), name, text);
    write("lib.rs", "mod a; mod b; mod c;");
    write(
        "a.rs",
        "use crate::b::{self, inner::{X, Y as Z}};\n#[cfg(test)] mod tests { use crate::c; }",
    );
    write("b/mod.rs", "mod inner; fn f() { inner::g(); }");
    write("b/inner.rs", "use super::f; fn g() { crate::c::h(); }");
    write("c.rs", "fn h() {}");
    assert!(Crate::read(dir.path()).circles().is_empty());
    write("c.rs", "fn h(a: super::a::A) {}");
    let circles = Crate::read(dir.path()).circles();
    assert_eq!(circles, ["a names b, b::inner names c, c names a"]);
}
