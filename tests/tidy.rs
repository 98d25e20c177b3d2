//! The style, as a test: what the map in `src/lib.rs` promises is checked against the sources.
//!
//! It reads text; it doesn't parse Rust. A rule that needs more than that belongs to clippy.

#![allow(clippy::unwrap_used, reason = "a test that can not read the sources has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which rooms a room may know. The order of the lines is the order from the floor upwards.
const EDGES: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("reactor", &["limits", "config"]),
    ("config", &["limits"]),
    ("observe", &["limits", "config", "reactor", "serve::http1"]),
    ("background", &["limits", "reactor"]),
    ("serve::http1", &["limits"]),
    ("serve::queue", &["limits", "reactor"]),
    ("serve::park", &["limits", "reactor"]),
    ("serve::local", &["limits", "config", "reactor", "serve::http1"]),
    (
        "serve::exchange",
        &["limits", "reactor", "observe", "serve::http1", "serve::local", "serve::queue", "serve::park"],
    ),
    ("serve::bus", &["limits", "reactor"]),
    ("serve::notify", &["limits", "serve::bus", "serve::exchange", "serve::park"]),
    ("serve::conn", &["limits", "config", "reactor", "serve::http1", "serve::exchange", "serve::park"]),
    ("serve::disk", &["reactor", "serve::conn", "serve::exchange"]),
    (
        "serve::wsgi",
        &["limits", "config", "reactor", "serve::http1", "serve::queue", "serve::exchange", "serve::notify", "observe"],
    ),
    // The corridor knows every room.
    (
        "serve",
        &[
            "limits",
            "config",
            "reactor",
            "observe",
            "serve::http1",
            "serve::queue",
            "serve::park",
            "serve::exchange",
            "serve::notify",
            "serve::conn",
            "serve::disk",
            "serve::local",
            "serve::wsgi",
        ],
    ),
    ("process", &["limits", "config", "reactor", "observe", "serve", "serve::exchange"]),
    (
        "pymodule",
        &[
            "limits",
            "background",
            "config",
            "observe",
            "process",
            "reactor",
            "limits",
            "serve",
            "serve::bus",
            "serve::conn",
            "serve::disk",
            "serve::exchange",
            "serve::local",
            "serve::notify",
            "serve::park",
            "serve::queue",
            "serve::wsgi",
        ],
    ),
];

fn sources() -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.insert(path.strip_prefix(&root).unwrap().to_path_buf(), text);
            }
        }
    }
    assert!(files.len() > 20, "the sources were found");
    files
}

/// The room a file belongs to.
fn room(path: &Path) -> String {
    let mut parts: Vec<String> =
        path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    if parts[0] != "serve" {
        return parts[0].clone();
    }
    let deep = EDGES.iter().any(|(room, _)| parts.len() > 1 && *room == format!("serve::{}", parts[1]));
    if deep { format!("serve::{}", parts[1]) } else { "serve".into() }
}

/// The rooms named by a line of code.
fn named(line: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for piece in line.split("crate::").skip(1) {
        let names: Vec<String> = piece
            .split("::")
            .map(|part| part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
            .collect();
        let deep = names.get(1).map(|second| format!("{}::{second}", names[0]));
        let known = |name: &String| EDGES.iter().any(|(room, _)| room == name);
        if let Some(deep) = deep.filter(known) {
            rooms.insert(deep);
        } else if known(&names[0]) {
            rooms.insert(names[0].clone());
        }
    }
    rooms
}

/// Code without comments and without the tests at the end of a file.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn rooms_know_only_the_rooms_they_may() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let from = room(&path);
        let Some((_, allowed)) = EDGES.iter().find(|(room, _)| *room == from) else {
            assert!(from == "lib", "{}: a room that isn't on the map in tests/tidy.rs", path.display());
            continue;
        };
        for (number, line) in code(&text) {
            for to in named(line) {
                if to != from && !allowed.contains(&to.as_str()) {
                    wrong.push(format!("{}:{}: {from} must not know {to}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_map_has_no_cycle() {
    // `reactor` and `config` both stand on the ground: a reactor is chosen by configuration, never the reverse.
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let mut left: Vec<_> = EDGES.to_vec();
    while !left.is_empty() {
        let before = left.len();
        left.retain(|(room, edges)| {
            let free = edges.iter().all(|edge| done.contains(edge));
            if free {
                done.insert(room);
            }
            !free
        });
        assert!(left.len() < before, "a cycle among {:?}", left.iter().map(|(room, _)| room).collect::<Vec<_>>());
    }
}

#[test]
fn unsafe_and_python_stay_where_the_map_says() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let (from, name) = (room(&path), path.display().to_string());
        for (number, line) in code(&text) {
            let words = |word: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == word);
            if words("unsafe") && from != "reactor" && name != "serve/wsgi/ffi.rs" {
                wrong.push(format!("{name}:{}: unsafe outside reactor/ and serve/wsgi/ffi.rs", number + 1));
            }
            if words("pyo3") && !["serve::wsgi", "pymodule"].contains(&from.as_str()) {
                wrong.push(format!("{name}:{}: pyo3 outside serve/wsgi/ and pymodule.rs", number + 1));
            }
            if (line.contains("Instant::now()") || line.contains("SystemTime::now()"))
                && !["reactor", "pymodule", "process", "observe"].contains(&from.as_str())
            {
                wrong.push(format!("{name}:{}: a clock is read outside the floor", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{}: begins with `//!`: what the room does and doesn't", path.display());
    }
}

#[test]
fn lines_fit_and_nothing_is_left_undone() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let mut binds = false;
        for (number, line) in text.lines().enumerate() {
            if line.chars().count() > 140 {
                wrong.push(format!("{}:{}: longer than 140 characters", path.display(), number + 1));
            }
            // Chains of `let` came with Rust 1.88; Cargo.toml promises an older one, and the compiler here may be newer.
            binds |= ["if let ", "while let "]
                .iter()
                .any(|start| line.trim_start().trim_start_matches("} else ").starts_with(start));
            if line.contains("&& let ") || (binds && line.trim_start().starts_with("&& ")) {
                wrong.push(format!("{}:{}: a chain of `let`", path.display(), number + 1));
            }
            binds &= !line.ends_with('{') && !line.ends_with(';');
            for mark in ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!(", "dbg!("] {
                if line.contains(mark) {
                    wrong.push(format!("{}:{}: {mark}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
