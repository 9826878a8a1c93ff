//! The house rules that the compiler does not check: imports follow the arrows of the
//! architecture, no file outgrows its purpose, nothing is left for somebody else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Lines that a source file may have.
const MAX_LINES: usize = 800;

/// The layers in the order of the architecture, each with the layers that it may import.
const ARROWS: &[(&str, &[&str])] = &[
    ("time", &[]),
    ("addr", &[]),
    ("lvs", &["addr"]),
    ("wire", &["addr"]),
    ("stats", &[]),
    ("balance", &["wire", "addr", "lvs", "time", "stats"]),
    ("vrrp", &["wire", "addr", "time"]),
    ("check", &["addr", "lvs", "time"]),
    ("config", &["addr", "lvs", "time"]),
    ("sys", &["addr", "time"]),
    (
        "dataplane",
        &["balance", "wire", "addr", "stats", "time", "sys"],
    ),
    (
        "control",
        &[
            "time",
            "addr",
            "lvs",
            "wire",
            "stats",
            "balance",
            "vrrp",
            "check",
            "config",
            "sys",
            "dataplane",
        ],
    ),
    ("cli", &["config", "control", "stats"]),
];

/// Layers that see no clock, no file descriptor and no unsafe code.
const PURE: &[&str] = &[
    "time", "addr", "lvs", "wire", "stats", "balance", "vrrp", "check", "config",
];

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// Every Rust file of the package with its text, by path relative to the package.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("build.rs")];
    for folder in ["src", "benches", "netns-tests"] {
        rust_files(&root.join(folder), &mut files);
    }
    let name = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
    files
        .iter()
        .map(|path| (name(path), fs::read_to_string(path).unwrap()))
        .collect()
}

/// The layer that a file below `src/` belongs to: `src/wire/arp.rs` and `src/time.rs` alike.
fn layer_of(file: &str) -> Option<&str> {
    let rest = file.strip_prefix("src/")?;
    let layer = rest.split(['/', '.']).next()?;
    ARROWS
        .iter()
        .find(|(name, _)| *name == layer)
        .map(|(name, _)| *name)
}

/// The layers that a line names: after `crate::`, also inside `use crate::{…}` groups.
fn layers_named(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (offset, _) in text.match_indices("crate::") {
        let line = text[..offset].matches('\n').count() + 1;
        let rest = &text[offset + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0_u32;
            let mut word = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 && (c.is_alphanumeric() || c == '_') {
                    word.push(c);
                } else if !word.is_empty() {
                    if depth == 0 || c == '{' {
                        found.push((line, std::mem::take(&mut word)));
                    }
                    word.clear();
                }
            }
            if !word.is_empty() {
                found.push((line, word));
            }
        } else {
            let word: String = rest
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            found.push((line, word));
        }
    }
    found.retain(|(_, word)| ARROWS.iter().any(|(name, _)| name == word));
    found
}

#[test]
fn imports_follow_the_arrows() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let Some(layer) = layer_of(&file) else {
            continue;
        };
        let (_, allowed) = ARROWS.iter().find(|(name, _)| *name == layer).unwrap();
        for (line, named) in layers_named(&text) {
            if named != layer && !allowed.contains(&named.as_str()) {
                wrong.push(format!("{file}:{line}: {layer} may not import {named}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The modules of `config` that a file of it names, where `depth` is how many `super` lead to `config`.
fn config_modules_named(text: &str, depth: usize) -> Vec<String> {
    let mut found = Vec::new();
    for root in [
        format!("use {}", "super::".repeat(depth)),
        "crate::config::".to_owned(),
    ] {
        for (offset, _) in text.match_indices(&root) {
            let rest = &text[offset + root.len()..];
            let Some(group) = rest.strip_prefix('{') else {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
                found.push(rest[..end.unwrap_or(rest.len())].to_owned());
                continue;
            };
            // The first word of each entry; what its own braces hold is not of `config`.
            let mut nested = 0_u32;
            let mut word = String::new();
            let mut whole = false;
            for c in group.chars() {
                match c {
                    '}' if nested == 0 => break,
                    '{' => nested += 1,
                    '}' => nested -= 1,
                    _ if nested > 0 => {}
                    ',' => {
                        found.push(std::mem::take(&mut word));
                        whole = false;
                    }
                    ':' => whole = true,
                    c if !whole && !c.is_whitespace() => word.push(c),
                    _ => {}
                }
            }
            found.push(word);
        }
    }
    found.retain(|word| !word.is_empty());
    found
}

/// A way from a module back to itself.
fn cycle(edges: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        name: &str,
        edges: &BTreeMap<String, BTreeSet<String>>,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> bool {
        if let Some(at) = path.iter().position(|known| known == name) {
            path.drain(..at);
            path.push(name.to_owned());
            return true;
        }
        if done.contains(name) {
            return false;
        }
        path.push(name.to_owned());
        let next = edges.get(name).into_iter().flatten();
        for other in next {
            if visit(other, edges, path, done) {
                return true;
            }
        }
        path.pop();
        done.insert(name.to_owned());
        false
    }
    let (mut path, mut done) = (Vec::new(), BTreeSet::new());
    let mut names = edges.keys();
    names
        .any(|name| visit(name, edges, &mut path, &mut done))
        .then_some(path)
}

#[test]
fn no_module_of_config_comes_back_to_itself() {
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, text) in sources() {
        let Some(inside) = file.strip_prefix("src/config/") else {
            continue;
        };
        if inside == "mod.rs" || inside.starts_with("tests/") {
            continue;
        }
        let module = inside.split(['/', '.']).next().unwrap().to_owned();
        let folders = inside.matches('/').count();
        let depth = folders + usize::from(!inside.ends_with("/mod.rs"));
        let code = text.split("#[cfg(test)]").next().unwrap();
        let named = config_modules_named(code, depth);
        edges.entry(module).or_default().extend(named);
    }
    assert!(
        edges.len() > 20 && edges["file"].contains("vrrp"),
        "{edges:?}"
    );
    let found = cycle(&edges);
    assert!(found.is_none(), "{}", found.unwrap().join(" -> "));
}

#[test]
fn the_search_for_cycles_sees_every_form_and_every_length() {
    let text = "use super::{\n    a,\n    b::{self, c},\n    d::E,\n};\nuse super::f;\nuse crate::config::g::H;";
    let named = config_modules_named(text, 1);
    assert_eq!(named, ["a", "b", "d", "f", "g"]);
    let edges = |pairs: &[(&str, &str)]| {
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in pairs {
            edges
                .entry((*from).to_owned())
                .or_default()
                .insert((*to).to_owned());
        }
        edges
    };
    let tree = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")];
    assert_eq!(cycle(&edges(&tree)), None);
    let found = cycle(&edges(&[&tree[..], &[("d", "b")]].concat())).unwrap();
    assert_eq!(found, ["b", "d", "b"]);
}

#[test]
fn the_import_scan_sees_every_form() {
    let text =
        "use crate::{\n    addr::MacAddr,\n    sys::{clock, time},\n};\nlet x = crate::vrrp::X;";
    let named: Vec<String> = layers_named(text)
        .into_iter()
        .map(|(_, word)| word)
        .collect();
    assert!(named.contains(&"addr".to_owned()), "{named:?}");
    assert!(named.contains(&"sys".to_owned()), "{named:?}");
    assert!(named.contains(&"vrrp".to_owned()), "{named:?}");
}

#[test]
fn pure_layers_forbid_unsafe_code() {
    let files = sources();
    for layer in PURE {
        let roots = [format!("src/{layer}.rs"), format!("src/{layer}/mod.rs")];
        let (file, text) = files.iter().find(|(name, _)| roots.contains(name)).unwrap();
        assert!(
            text.contains("#![forbid(unsafe_code)]"),
            "{file} does not forbid unsafe code"
        );
    }
    for (file, text) in &files {
        if layer_of(file).is_some_and(|layer| PURE.contains(&layer)) {
            for banned in [
                "std::fs",
                "std::os::fd",
                "Instant::now",
                "SystemTime",
                "std::process",
            ] {
                assert!(!text.contains(banned), "{file} is pure, and names {banned}");
            }
        }
    }
}

#[test]
fn unsafe_code_stays_in_sys() {
    for (file, text) in sources() {
        // build.rs writes structures for src/sys.
        let spelled = file == "src/tidy.rs" || file == "build.rs";
        let outside = !file.starts_with("src/sys/") && !spelled;
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or(line);
            let unsafe_here = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
                .iter()
                .any(|form| code.contains(form));
            assert!(
                !(outside && unsafe_here),
                "{file}:{}: unsafe outside src/sys",
                number + 1
            );
        }
    }
}

#[test]
fn no_file_has_outgrown_its_purpose() {
    for (file, text) in sources() {
        let lines = text.lines().count();
        assert!(
            lines <= MAX_LINES,
            "{file} has {lines} lines; split it (at most {MAX_LINES})"
        );
    }
}

#[test]
fn nothing_is_left_for_somebody_else() {
    // Assembled, so that this file does not find itself.
    let leftovers = [
        "TO_DO",
        "FIX_ME",
        "X_XX",
        "todo_!(",
        "unimplemented_!(",
        "dbg_!(",
    ]
    .map(|word| word.replace('_', ""));
    let silenced = ["allow(dead", "allow(unused"].map(|word| format!("{word}_").replace("__", "_"));
    for (file, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            for word in leftovers.iter() {
                assert!(
                    !line.contains(word.as_str()),
                    "{file}:{}: {word}",
                    number + 1
                );
            }
            for word in silenced.iter().filter(|_| file != "src/tidy.rs") {
                assert!(
                    !line.contains(word.as_str()),
                    "{file}:{}: {word}…",
                    number + 1
                );
            }
        }
    }
}
