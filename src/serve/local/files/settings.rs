//! What of the configuration concerns files, made ready once.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::reactor::open::Opener;

/// One `--static-map`.
#[derive(Clone, Debug)]
pub struct Map {
    /// Without a slash at its end; empty: everything.
    pub prefix: Vec<u8>,
    /// An absolute path, of a folder or a file.
    pub path: PathBuf,
}

/// What all reactors of a process share of it. Never changes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How files are opened.
    pub opener: Opener,
    /// In order.
    pub maps: Vec<Map>,
    /// The name of a folder's own page.
    pub index: Option<Vec<u8>>,
    /// Whether names that begin with a dot are served.
    pub dotfiles: bool,
    /// Seconds a client may keep a file.
    pub max_age: u64,
    /// Fields of every static response, rendered.
    pub fields: Vec<u8>,
    /// Whether Expires is sent: the operator hasn't said how long files may be kept.
    pub expires: bool,
    /// Absolute paths that X-Sendfile may lie beneath, each as it was given and as it is.
    pub roots: Vec<PathBuf>,
}

impl Settings {
    /// The part of `config` that concerns files; `None` if it asks for none. Relative paths are beneath the working directory of this
    /// moment.
    ///
    /// # Errors
    /// There is no working directory.
    pub fn new(config: &Config) -> io::Result<Option<Self>> {
        if config.static_map.is_empty() && config.sendfile_root.is_empty() {
            return Ok(None);
        }
        let maps = config.static_map.iter().map(|(prefix, path)| {
            let path = std::path::absolute(path)?;
            Ok(Map { prefix: prefix.trim_end_matches('/').as_bytes().to_vec(), path })
        });
        let mut roots = Vec::new();
        for root in &config.sendfile_root {
            let given = std::path::absolute(root)?;
            let real = given.canonicalize().unwrap_or_else(|_| given.clone());
            roots.push(given);
            if !roots.contains(&real) {
                roots.push(real);
            }
        }
        let given = |wanted: &str| config.static_header.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
        let mut fields = Vec::new();
        let expires = !given("cache-control") && !given("expires");
        if expires {
            fields
                .extend_from_slice(format!("Cache-Control: public, max-age={}\r\n", config.static_max_age).as_bytes());
        }
        for (name, value) in &config.static_header {
            fields.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        Ok(Some(Self {
            opener: Opener::probe(),
            maps: maps.collect::<io::Result<_>>()?,
            index: config.static_index.as_ref().map(|name| name.as_bytes().to_vec()),
            dotfiles: config.static_dotfiles,
            max_age: config.static_max_age,
            fields,
            expires,
            roots,
        }))
    }

    /// A sentence for each path that isn't there now. It may come later: the server starts all the same.
    pub fn missing(&self) -> Vec<String> {
        let sentence = |flag: &str, path: &Path| {
            let error = path.metadata().err()?;
            Some(format!(
                "{flag}: {} can't be opened: {error}; correct the path, or create it: until then nothing is served from there",
                path.display()
            ))
        };
        let maps = self.maps.iter().filter_map(|map| sentence("--static-map", &map.path));
        maps.chain(self.roots.iter().filter_map(|root| sentence("--sendfile-root", root))).collect()
    }

    /// Names that `path`, as an application gave it, has beneath the roots: which root, and the rest. A relative one lies beneath each.
    pub fn beneath_roots<'p>(&self, path: &'p [u8]) -> Vec<(&Path, &'p [u8])> {
        let hostile = path.contains(&0) || path.split(|&byte| byte == b'/').any(|part| part == b"..");
        if hostile {
            return Vec::new();
        }
        let found = self.roots.iter().filter_map(|root| {
            let name = match path {
                [b'/', ..] => {
                    let root = root.as_os_str().as_bytes();
                    let root = root.strip_suffix(b"/").unwrap_or(root);
                    path.strip_prefix(root)?.strip_prefix(b"/")?
                }
                relative => relative,
            };
            let start = name.iter().position(|&byte| byte != b'/')?;
            Some((root.as_path(), &name[start..]))
        });
        found.collect()
    }
}
