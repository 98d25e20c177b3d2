//! From a name to open files: the one part that asks the file system. A reactor lets it do what can be done without waiting, and has
//! the rest done by the disk thread, with the same code.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::encoding::Coding;
use super::map;
use super::record::{Body, Content, Record};
use super::settings::Settings;
use super::types;
use crate::limits;
use crate::reactor::file;
use crate::reactor::open::{Opened, Stat, Wait};

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A cleaned path, in the static maps.
    Static(Vec<u8>),
    /// What an application said in X-Sendfile, beneath the roots.
    Sendfile(Vec<u8>),
}

impl Target {
    /// Its name in a [`super::Store`]: a path of a request begins with a slash.
    pub fn key(&self) -> Vec<u8> {
        match self {
            Target::Static(path) => path.clone(),
            Target::Sendfile(path) => [b"\0", path.as_slice()].concat(),
        }
    }
}

/// What was found.
#[derive(Debug)]
pub enum Found {
    /// A file that is sent.
    File(Arc<Record>),
    /// A folder that has a page of its own, named without the slash at its end.
    Folder,
    /// Nothing.
    Nothing,
    /// It can't be said: the process or the machine has run out of something.
    Failed(io::Error),
}

/// One search.
#[derive(Debug)]
pub struct Search {
    /// Where to look.
    pub settings: Arc<Settings>,
    /// What for.
    pub target: Target,
    /// What was found last time: what hasn't changed isn't read again.
    pub known: Option<Arc<Record>>,
    /// Unix time in seconds.
    pub now: u64,
}

/// A search that can't be done without waiting.
#[derive(Debug, PartialEq, Eq)]
pub struct MustWait;

/// Whether `path`, a cleaned one, can lie in the maps at all.
pub fn concerns(settings: &Settings, path: &[u8]) -> bool {
    settings
        .maps
        .iter()
        .any(|map| map::rest(&map.prefix, path).is_some_and(|rest| settings.dotfiles || !rest.is_hidden()))
}

impl Search {
    /// Looks.
    ///
    /// # Errors
    /// Only with [`Wait::Never`].
    pub fn run(&self, wait: Wait) -> Result<Found, MustWait> {
        let found = match &self.target {
            Target::Static(path) => self.in_maps(path, wait),
            Target::Sendfile(path) => self.beneath_roots(path, wait),
        };
        match found {
            Ok(found) => Ok(found),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(MustWait),
            Err(error) => Ok(Found::Failed(error)),
        }
    }

    /// The first map that has a file for it, in the order of the command line.
    fn in_maps(&self, path: &[u8], wait: Wait) -> io::Result<Found> {
        for found in &self.settings.maps {
            let Some(rest) = map::rest(&found.prefix, path) else { continue };
            if rest.is_hidden() && !self.settings.dotfiles {
                continue;
            }
            match self.in_map(&found.path, rest, wait)? {
                Found::Nothing => {}
                found => return Ok(found),
            }
        }
        Ok(Found::Nothing)
    }

    fn in_map(&self, root: &Path, rest: map::Rest<'_>, wait: Wait) -> io::Result<Found> {
        let opener = self.settings.opener;
        if rest.name.is_empty() && !rest.folder {
            match absent(opener.plain(root, wait))? {
                Some(Opened::File(file, stat)) => {
                    let named = |suffix: &str| {
                        let mut name = root.as_os_str().to_owned().into_vec();
                        name.extend_from_slice(suffix.as_bytes());
                        opener.plain(Path::new(std::ffi::OsStr::from_bytes(&name)), wait)
                    };
                    return self.record(file, stat, root.as_os_str().as_bytes(), named, wait);
                }
                Some(Opened::Folder) if self.settings.index.is_some() => {}
                _ => return Ok(Found::Nothing),
            }
        }
        let Some(folder) = absent(opener.folder(root, wait))? else { return Ok(Found::Nothing) };
        let beneath = |name: &[u8]| opener.beneath(folder.as_fd(), name, wait);
        let index = || {
            let index = self.settings.index.as_deref()?;
            Some(if rest.name.is_empty() { index.to_vec() } else { [rest.name, b"/", index].concat() })
        };
        let (name, opened) = if rest.folder {
            let Some(name) = index() else { return Ok(Found::Nothing) };
            let opened = absent(beneath(&name))?;
            (name, opened)
        } else if rest.name.is_empty() {
            (Vec::new(), Some(Opened::Folder))
        } else {
            (rest.name.to_vec(), absent(beneath(rest.name))?)
        };
        match opened {
            Some(Opened::File(file, stat)) => {
                let named = |suffix: &str| beneath(&[&name, suffix.as_bytes()].concat());
                self.record(file, stat, &name, named, wait)
            }
            Some(Opened::Folder) if !rest.folder => {
                let Some(name) = index() else { return Ok(Found::Nothing) };
                Ok(match absent(beneath(&name))? {
                    Some(Opened::File(..)) => Found::Folder,
                    _ => Found::Nothing,
                })
            }
            _ => Ok(Found::Nothing),
        }
    }

    fn beneath_roots(&self, path: &[u8], wait: Wait) -> io::Result<Found> {
        let opener = self.settings.opener;
        for (root, name) in self.settings.beneath_roots(path) {
            let Some(folder) = absent(opener.folder(root, wait))? else { continue };
            if let Some(Opened::File(file, stat)) = absent(opener.beneath(folder.as_fd(), name, wait))? {
                // What an application gives out is given out as it is: it has said what it is.
                let none = |_: &str| Err(io::ErrorKind::NotFound.into());
                return self.record(file, stat, name, none, wait);
            }
        }
        Ok(Found::Nothing)
    }

    fn record(
        &self,
        file: File,
        stat: Stat,
        name: &[u8],
        sibling: impl Fn(&str) -> io::Result<Opened>,
        wait: Wait,
    ) -> io::Result<Found> {
        let mut contents = [None, None, None, None];
        contents[Coding::Identity as usize] = Some(self.content(file, stat, Coding::Identity, wait)?);
        if !types::is_compressed(name) {
            for coding in Coding::SIBLINGS {
                if let Some(Opened::File(file, stat)) = absent(sibling(coding.suffix()))? {
                    contents[coding as usize] = Some(self.content(file, stat, coding, wait)?);
                }
            }
        }
        let stats = contents.each_ref().map(|content| content.as_ref().map(|content| content.stat));
        let known = self.known.as_ref().filter(|known| known.stats() == stats);
        Ok(Found::File(match known {
            Some(known) => Arc::clone(known),
            None => Arc::new(Record::new(contents, name, &self.settings, self.now)),
        }))
    }

    /// The bytes of a small file, or the descriptor of a large one.
    fn content(&self, file: File, stat: Stat, coding: Coding, wait: Wait) -> io::Result<Content> {
        let known = self.known.as_ref().and_then(|known| known.variants[coding as usize].as_ref());
        if let Some(known) = known.filter(|known| known.content.stat == stat) {
            return Ok(known.content.clone());
        }
        if stat.size > limits::STATIC_MEMORY_FILE_BYTES_MAX as u64 {
            return Ok(Content { stat, size: stat.size, body: Body::File(Arc::new(file)) });
        }
        let mut bytes = vec![0; stat.size as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            let rest = &mut bytes[filled..];
            let read = match wait {
                Wait::Never => file::read_resident(&file, rest, filled as u64),
                Wait::Allowed => file.read_at(rest, filled as u64),
            };
            match read {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // It was truncated since it was opened.
        bytes.truncate(filled);
        Ok(Content { stat, size: filled as u64, body: Body::Memory(bytes.into()) })
    }
}

/// What can't be opened isn't there, as far as a client is concerned; what says nothing about the file is an error.
fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EIO)) => {
            Err(error)
        }
        Err(error) => {
            tracing::debug!("a file can't be opened: {error}");
            Ok(None)
        }
    }
}
