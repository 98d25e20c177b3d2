//! A temporary folder through which a test and a running request speak to each other without needing a worker for it.

use std::path::{Path, PathBuf};

use super::{eventually, pattern};

/// A temporary folder; removed with everything in it when dropped.
pub struct Folder(tempfile::TempDir);

/// A file that a request waits for.
pub struct Gate(PathBuf);

/// A file that requests append lines to.
pub struct Log(PathBuf);

impl Folder {
    /// An empty one.
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("hoopsnake-it-").tempdir().expect("a writable temporary folder"))
    }

    /// The path of `name` in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A closed gate.
    pub fn gate(&self, name: &str) -> Gate {
        Gate(self.path(name))
    }

    /// An empty log.
    pub fn log(&self, name: &str) -> Log {
        Log(self.path(name))
    }

    /// A file with this content.
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).expect("the folder is writable");
        path
    }

    /// A file of `length` bytes, and the bytes.
    pub fn large_file(&self, name: &str, length: usize) -> (PathBuf, Vec<u8>) {
        let content = pattern(length);
        (self.file(name, &content), content)
    }
}

impl Gate {
    /// For the query string.
    pub fn path(&self) -> std::path::Display<'_> {
        self.0.display()
    }

    fn with(&self, suffix: &str) -> PathBuf {
        let mut name = self.0.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    /// Waits until a request stands before it.
    pub fn wait_for_arrival(&self) {
        eventually("a request arrives at the gate", || self.has_arrival().then_some(()));
    }

    /// Whether a request stands, or has stood, before it.
    pub fn has_arrival(&self) -> bool {
        self.with(".arrived").exists()
    }

    /// Waits until a stubborn request has passed.
    pub fn wait_for_passage(&self) {
        eventually("the request passes the gate", || self.with(".passed").exists().then_some(()));
    }

    /// Lets requests through.
    pub fn open(&self) {
        std::fs::write(&self.0, "").expect("the folder is writable");
    }
}

impl Log {
    /// For the query string.
    pub fn path(&self) -> std::path::Display<'_> {
        self.0.display()
    }

    /// The lines so far.
    pub fn lines(&self) -> Vec<String> {
        lines_of(&self.0)
    }

    /// Waits until there are `count` lines or more.
    pub fn wait_for(&self, count: usize) -> Vec<String> {
        eventually(&format!("{count} lines in the log"), || Some(self.lines()).filter(|lines| lines.len() >= count))
    }

    /// Waits until a line is `expected`.
    pub fn wait_for_line(&self, expected: &str) {
        eventually(&format!("{expected:?} in the log"), || {
            self.lines().iter().any(|line| line == expected).then_some(())
        });
    }
}

/// The complete lines of a file; none if it doesn't exist.
pub fn lines_of(path: &Path) -> Vec<String> {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    if whole.is_empty() { Vec::new() } else { whole.split('\n').map(str::to_owned).collect() }
}
