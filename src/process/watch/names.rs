//! Which names count: sources do, what editors and Python leave beside them doesn't. Pure.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::limits::WATCHED_NAMES_MAX;

/// What counts in one directory.
#[derive(Debug, Default, PartialEq)]
pub struct Names {
    /// Modules come from here: every source does, a new one too.
    pub sources: bool,
    /// It lies in a tree that is watched whole.
    pub everything: bool,
    /// These files.
    pub single: BTreeSet<OsString>,
}

impl Names {
    /// A file whose changes count, whatever its name; sources need no entry of their own.
    pub fn add(&mut self, name: &OsStr) {
        let covered = self.sources && is_source(name) || self.everything && !is_litter(name);
        if !covered && self.single.len() < WATCHED_NAMES_MAX {
            self.single.insert(name.to_owned());
        }
    }

    /// Whether a change of this file counts.
    pub fn count(&self, name: &OsStr) -> bool {
        self.single.contains(name) || !is_litter(name) && (self.everything || self.sources && is_source(name))
    }
}

/// Python's sources. Extension modules count when they are imported: a compiler writes one in many steps.
fn is_source(name: &OsStr) -> bool {
    name.as_bytes().ends_with(b".py") && !is_litter(name)
}

/// Hidden files and locks, editors' backups and swap files, compiled Python, and vim's probe for a writable directory.
pub fn is_litter(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let ends = [&b"~"[..], b"#", b".pyc", b".pyo", b".swp", b".swx", b".tmp", b".bak", b".orig"];
    name.is_empty()
        || name.starts_with(b".")
        || name.starts_with(b"#")
        || name == b"4913"
        || name == b"__pycache__"
        || ends.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(sources: bool, everything: bool, single: &[&str]) -> Names {
        let mut names = Names { sources, everything, single: BTreeSet::new() };
        single.iter().for_each(|name| names.add(OsStr::new(name)));
        names
    }

    #[test]
    fn sources_count_and_litter_does_not() {
        let names = names(true, false, &["fast.so", "views.py"]);
        for name in ["views.py", "new.py", "fast.so"] {
            assert!(names.count(OsStr::new(name)), "{name}");
        }
        for name in [
            "",
            ".py",
            ".views.py.swp",
            ".#views.py",
            "#views.py#",
            "views.py~",
            "views.pyc",
            "views.py.tmp",
            "4913",
            "x.html",
            "other.so",
            "__pycache__",
            "views.py.orig",
            ".views.py.kate-swp",
        ] {
            assert!(!names.count(OsStr::new(name)), "{name}");
        }
        assert_eq!(names.single.len(), 1, "sources need no entry of their own");
    }

    #[test]
    fn in_a_tree_everything_counts_but_litter() {
        let names = names(false, true, &[]);
        for name in ["base.html", "x.py", "Makefile", "\u{e4}"] {
            assert!(names.count(OsStr::new(name)), "{name}");
        }
        for name in [".git", "base.html~", "x.pyc", "__pycache__"] {
            assert!(!names.count(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn a_file_that_was_named_counts_whatever_it_is_called() {
        let mut names = names(false, false, &[".env", "settings.toml"]);
        assert!(names.count(OsStr::new(".env")) && names.count(OsStr::new("settings.toml")));
        assert!(!names.count(OsStr::new("other.toml")) && !names.count(OsStr::new("x.py")));
        for number in 0..WATCHED_NAMES_MAX * 2 {
            names.add(OsStr::new(&number.to_string()));
        }
        assert_eq!(names.single.len(), WATCHED_NAMES_MAX);
    }
}
