//! `--reload`: which directories are watched (inotify(7)), and when a change of them is complete. Directories and not files:
//! editors put a new file in the place of the old one, and new files have no watch yet.
//!
//! It says *that* the application is to be loaded anew; how that goes, and that the old code goes on serving if it fails, is
//! the supervisor's business.

mod debounce;
mod names;
mod report;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{CStr, OsStr};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use self::debounce::Debounce;
use self::names::Names;
use self::report::Reports;
use crate::limits::{RELOAD_PATHS_NAMED_MAX, WATCH_EVENTS_PER_TURN_MAX, WATCH_RETRY_MS, WATCHED_DIRECTORIES_MAX};

/// Directories above a path in which one that exists is looked for.
const CLIMB_MAX: usize = 64;

/// A directory, or one that was there.
#[derive(Debug, Default)]
struct Watched {
    /// The kernel's number for it; `None`: it isn't there, and is looked for now and then.
    watch: Option<i32>,
    names: Names,
}

/// What is watched, and what has changed.
#[derive(Debug)]
pub struct Watch {
    inotify: OwnedFd,
    reports: Reports,
    /// What workers write their reports to.
    writer: OwnedFd,
    directories: BTreeMap<PathBuf, Watched>,
    /// The same directory may be known by several paths.
    paths_of: HashMap<i32, Vec<PathBuf>>,
    debounce: Debounce,
    changed: BTreeSet<PathBuf>,
    /// Changed paths that aren't named.
    unnamed: usize,
    retry_at: Option<Instant>,
    /// When the newest generation of workers was begun: what changed since may have been missed by it.
    begun: SystemTime,
    /// Whether it has been told that something can't be watched.
    warned: bool,
}

impl Watch {
    /// Watches these files and folders; modules are added as workers report them.
    ///
    /// # Errors
    /// One sentence: one of the paths doesn't exist, or the kernel refuses.
    pub fn new(extra: &[PathBuf]) -> Result<Self, String> {
        let fault = |error: io::Error| {
            format!("--reload: can't watch files ({error}); raise fs.inotify.max_user_instances, or leave the flag out")
        };
        let inotify =
            inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(|error| fault(error.into()))?;
        let (reports, writer) = report::pipe().map_err(fault)?;
        let mut watch = Self {
            inotify,
            reports,
            writer,
            directories: BTreeMap::new(),
            paths_of: HashMap::new(),
            debounce: Debounce::default(),
            changed: BTreeSet::new(),
            unnamed: 0,
            retry_at: None,
            begun: SystemTime::now(),
            warned: false,
        };
        for path in extra {
            watch.add_extra(path).map_err(|error| {
                format!(
                    "--reload-extra {}: can't be watched ({error}); name an existing file or folder",
                    path.display()
                )
            })?;
        }
        Ok(watch)
    }

    /// Whether these paths can be watched.
    ///
    /// # Errors
    /// As [`Watch::new`].
    pub fn check(extra: &[PathBuf]) -> Result<(), String> {
        Self::new(extra).map(drop)
    }

    /// What is to be polled for reading; then [`Watch::turn`].
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.inotify.as_fd(), self.reports.descriptor()]
    }

    /// What workers write their reports to; it survives fork(2), not execve(2).
    pub fn reporter(&self) -> BorrowedFd<'_> {
        self.writer.as_fd()
    }

    /// When [`Watch::turn`] has something to do though nothing is readable.
    pub fn deadline(&self) -> Option<Instant> {
        [self.debounce.deadline(), self.retry_at].into_iter().flatten().min()
    }

    /// A generation of workers is about to be forked.
    pub fn generation(&mut self) {
        self.begun = SystemTime::now();
    }

    /// Takes in what has happened. When changes are complete: a sentence that names them; then the application is to be
    /// loaded anew.
    pub fn turn(&mut self, now: Instant) -> Option<String> {
        let mut reported = BTreeSet::new();
        self.reports.read(|path| {
            reported.insert(path.to_owned());
        });
        for path in reported {
            self.add_module(&path, now);
        }
        self.read_events(now);
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry(now);
        }
        self.debounce.over(now).then(|| self.told())
    }

    /// A file that a worker has loaded.
    fn add_module(&mut self, file: &Path, now: Instant) {
        let Some((directory, name)) = home_of(file) else { return };
        let known = self.directories.contains_key(&directory);
        let names = Names { sources: true, ..Names::default() };
        if let Err(error) = self.add(&directory, names, Some(&name)) {
            self.cant_watch(&directory, &error);
            return;
        }
        // It may have changed after it was loaded and before it was watched.
        let changed = || fs::metadata(file).and_then(|metadata| metadata.modified());
        if !known && changed().is_ok_and(|changed| changed >= self.begun) {
            self.changed(file.to_owned(), now);
        }
    }

    /// A path of `--reload-extra`.
    fn add_extra(&mut self, path: &Path) -> io::Result<()> {
        let path = std::path::absolute(path)?;
        if fs::metadata(&path)?.is_dir() {
            return self.add_tree(&path);
        }
        let (directory, name) = home_of(&path).ok_or(io::ErrorKind::NotFound)?;
        self.add(&directory, Names::default(), Some(&name))
    }

    /// A folder with everything in it.
    fn add_tree(&mut self, root: &Path) -> io::Result<()> {
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            let names = Names { everything: true, ..Names::default() };
            let added = self.add(&folder, names, None);
            if folder == root {
                added?;
            } else if let Err(error) = added {
                self.cant_watch(&folder, &error);
                continue;
            }
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            // Symbolic links aren't followed: they could lead round in a circle.
            let inner = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            let room = WATCHED_DIRECTORIES_MAX.saturating_sub(self.directories.len() + folders.len());
            folders.extend(
                inner.filter(|entry| !names::is_litter(&entry.file_name())).map(|entry| entry.path()).take(room + 1),
            );
        }
        Ok(())
    }

    fn add(&mut self, directory: &Path, more: Names, name: Option<&OsStr>) -> io::Result<()> {
        if !self.directories.contains_key(directory) && self.directories.len() >= WATCHED_DIRECTORIES_MAX {
            return Err(io::Error::other(format!("more than {WATCHED_DIRECTORIES_MAX} directories")));
        }
        let known = self.directories.get(directory).is_some_and(|watched| watched.watch.is_some());
        let watch = if known { None } else { Some(self.add_to_kernel(directory)?) };
        let watched = self.directories.entry(directory.to_owned()).or_default();
        watched.watch = watch.or(watched.watch);
        watched.names.sources |= more.sources;
        watched.names.everything |= more.everything;
        if let Some(name) = name {
            watched.names.add(name);
        }
        Ok(())
    }

    fn add_to_kernel(&mut self, directory: &Path) -> io::Result<i32> {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let watch = inotify::add_watch(&self.inotify, directory, flags)?;
        let paths = self.paths_of.entry(watch).or_default();
        if !paths.iter().any(|path| path == directory) {
            paths.push(directory.to_owned());
        }
        Ok(watch)
    }

    fn read_events(&mut self, now: Instant) {
        // Room for some events with the longest name there is.
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut happened = Vec::new();
        {
            let mut reader = Reader::new(&self.inotify, &mut buffer);
            while happened.len() < WATCH_EVENTS_PER_TURN_MAX {
                let Ok(event) = reader.next() else { break };
                let name = event.file_name().map(CStr::to_bytes).map(|name| OsStr::from_bytes(name).to_owned());
                happened.push((event.wd(), event.events(), name));
            }
        }
        for (watch, what, name) in happened {
            self.happened(watch, what, name.as_deref(), now);
        }
    }

    fn happened(&mut self, watch: i32, what: ReadFlags, name: Option<&OsStr>, now: Instant) {
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            // Nobody knows what was lost, so it counts as a change.
            self.debounce.touch(now);
            self.unnamed += 1;
            return;
        }
        if what.contains(ReadFlags::IGNORED) {
            self.lost(watch, now);
            return;
        }
        if what.contains(ReadFlags::MOVE_SELF) {
            // It would go on to be watched under its new name. IGNORED follows.
            let _ = inotify::remove_watch(&self.inotify, watch);
            return;
        }
        let Some(name) = name else { return };
        for directory in self.paths_of.get(&watch).cloned().unwrap_or_default() {
            let path = directory.join(name);
            let Some(watched) = self.directories.get(&directory) else { continue };
            let appeared = what.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
            if what.contains(ReadFlags::ISDIR) {
                if watched.names.everything && appeared && !names::is_litter(name) {
                    let _ = self.add_tree(&path).inspect_err(|error| self.cant_watch(&path, error));
                    self.changed(path, now);
                }
            } else if watched.names.count(name) && !(what.contains(ReadFlags::CREATE) && will_be_written(&path)) {
                self.changed(path, now);
            }
        }
    }

    /// The kernel has ended a watch: its directory was removed, moved, or unmounted.
    fn lost(&mut self, watch: i32, now: Instant) {
        for directory in self.paths_of.remove(&watch).unwrap_or_default() {
            let Some(watched) = self.directories.get_mut(&directory) else { continue };
            watched.watch = None;
            self.retry_at = Some(now + Duration::from_millis(WATCH_RETRY_MS));
            self.changed(directory, now);
        }
    }

    /// Looks for the directories that were lost.
    fn retry(&mut self, now: Instant) {
        let lost: Vec<PathBuf> = self
            .directories
            .iter()
            .filter(|(_, watched)| watched.watch.is_none())
            .map(|(path, _)| path.clone())
            .collect();
        let mut left = false;
        for directory in lost {
            match self.add_to_kernel(&directory) {
                Ok(watch) => {
                    let Some(watched) = self.directories.get_mut(&directory) else { continue };
                    watched.watch = Some(watch);
                    if watched.names.everything {
                        let _ = self.add_tree(&directory);
                    }
                    self.changed(directory, now);
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    left = true
                }
                Err(error) => {
                    self.cant_watch(&directory, &error);
                    self.directories.remove(&directory);
                }
            }
        }
        self.retry_at = left.then(|| now + Duration::from_millis(WATCH_RETRY_MS));
    }

    fn changed(&mut self, path: PathBuf, now: Instant) {
        self.debounce.touch(now);
        if self.changed.len() < RELOAD_PATHS_NAMED_MAX {
            self.changed.insert(path);
        } else if !self.changed.contains(&path) {
            self.unnamed += 1;
        }
    }

    fn told(&mut self) -> String {
        let paths = std::mem::take(&mut self.changed);
        let mut names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        match std::mem::take(&mut self.unnamed) {
            0 => {}
            _ if names.is_empty() => names.push("too much to tell".to_owned()),
            _ => names.push("more".to_owned()),
        }
        format!("changed: {}", names.join(", "))
    }

    fn cant_watch(&mut self, path: &Path, error: &io::Error) {
        if std::mem::replace(&mut self.warned, true) {
            return;
        }
        let remedy = match Errno::from_io_error(error) {
            Some(Errno::NOSPC) => "; raise fs.inotify.max_user_watches",
            _ => "",
        };
        tracing::warn!("--reload: {} and perhaps others can't be watched ({error}){remedy}", path.display());
    }
}

/// The directory to watch for a file, and what to look for in it. A module inside of an archive is the archive.
fn home_of(file: &Path) -> Option<(PathBuf, std::ffi::OsString)> {
    file.ancestors().take(CLIMB_MAX).find_map(|path| {
        let (directory, name) = (path.parent()?, path.file_name()?);
        directory.is_dir().then(|| (directory.to_owned(), name.to_owned()))
    })
}

/// Whether a file that was just created gets its content yet, and CLOSE_WRITE tells when it has it. Links have theirs.
fn will_be_written(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.nlink() == 1)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LATER: Duration = Duration::from_secs(60);

    /// A package that has been watched for long.
    struct Package {
        directory: tempfile::TempDir,
        watch: Watch,
        now: Instant,
    }

    impl Package {
        fn new(extra: &[&str]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            for path in
                ["site/views.py", "site/sub/deep.py", "templates/base.html", "templates/inner/x.html", "notes.txt"]
            {
                let path = directory.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, "old").unwrap();
            }
            let extra: Vec<PathBuf> = extra.iter().map(|path| directory.path().join(path)).collect();
            let mut watch = Watch::new(&extra).unwrap();
            watch.begun = SystemTime::now() + LATER;
            let mut package = Self { directory, watch, now: Instant::now() };
            package.report("site/views.py");
            assert_eq!(package.reload(), None, "nothing has changed yet");
            package
        }

        fn path(&self, path: &str) -> PathBuf {
            self.directory.path().join(path)
        }

        fn report(&mut self, path: &str) {
            let path = self.path(path);
            let mut writer = fs::File::from(self.watch.reporter().try_clone_to_owned().unwrap());
            writer.write_all(path.as_os_str().as_bytes()).and_then(|()| writer.write_all(b"\0")).unwrap();
        }

        /// What is told when all time that is waited for has passed.
        fn reload(&mut self) -> Option<String> {
            let early = self.watch.turn(self.now);
            assert_eq!(early, None, "too early");
            self.now += LATER;
            self.watch.turn(self.now)
        }

        fn expect(&mut self, what: &str, reload: bool) {
            let told = self.reload();
            assert_eq!(told.is_some(), reload, "{what}: {told:?}");
            assert_eq!(self.reload(), None, "{what}: told once");
        }
    }

    #[test]
    fn every_way_of_saving() {
        let mut package = Package::new(&[]);
        let (views, aside) = (package.path("site/views.py"), package.path("site/views.py~"));
        fs::write(&views, "new").unwrap();
        let told = package.reload().unwrap();
        assert_eq!(told, format!("changed: {}", views.display()));
        fs::write(package.path("site/.views.tmp"), "newer").unwrap();
        fs::rename(package.path("site/.views.tmp"), &views).unwrap();
        package.expect("renamed over the old one", true);
        fs::rename(&views, &aside).unwrap();
        fs::write(&views, "newest").unwrap();
        package.expect("the old one moved aside", true);
        fs::remove_file(&aside).unwrap();
        package.expect("the backup removed", false);
        fs::remove_file(&views).unwrap();
        package.expect("removed", true);
        fs::write(package.path("source"), "linked").unwrap();
        fs::hard_link(package.path("source"), &views).unwrap();
        package.expect("a link made", true);
        fs::File::options().append(true).open(&views).unwrap().write_all(b"more").unwrap();
        package.expect("appended", true);
    }

    #[test]
    fn new_files_in_packages_and_what_does_not_count() {
        let mut package = Package::new(&[]);
        fs::write(package.path("site/models.py"), "new").unwrap();
        package.expect("a new source", true);
        fs::create_dir(package.path("site/__pycache__")).unwrap();
        for name in ["views.pyc", ".views.py.swp", "data.json", "4913", "__pycache__/views.cpython-311.pyc"] {
            fs::write(package.path("site").join(name), "x").unwrap();
        }
        package.expect("litter", false);
        fs::write(package.path("site/sub/deep.py"), "new").unwrap();
        package.expect("not imported yet", false);
        package.report("site/sub/deep.py");
        package.expect("imported", false);
        fs::write(package.path("site/sub/deep.py"), "newer").unwrap();
        package.expect("imported later", true);
        fs::read(package.path("site/views.py")).unwrap();
        package.expect("reading", false);
    }

    #[test]
    fn other_files_that_are_loaded() {
        let mut package = Package::new(&[]);
        fs::write(package.path("site/fast.so"), "x").unwrap();
        package.expect("an extension nobody imports", false);
        package.report("site/fast.so");
        package.report("archive.zip/inside/module.py");
        fs::write(package.path("archive.zip"), "x").unwrap();
        package.report("archive.zip/inside/module.py");
        package.expect("nothing changed", false);
        fs::write(package.path("site/fast.so"), "y").unwrap();
        package.expect("an extension", true);
        fs::write(package.path("archive.zip"), "y").unwrap();
        package.expect("an archive", true);
    }

    #[test]
    fn extra_paths() {
        let mut package = Package::new(&["templates", "notes.txt"]);
        fs::write(package.path("templates/base.html"), "new").unwrap();
        package.expect("a template", true);
        fs::write(package.path("templates/inner/x.html"), "new").unwrap();
        package.expect("a template further down", true);
        fs::write(package.path("templates/.hidden"), "new").unwrap();
        fs::write(package.path("templates/base.html~"), "new").unwrap();
        package.expect("litter", false);
        fs::create_dir_all(package.path("templates/new/deeper")).unwrap();
        package.expect("a new folder", true);
        fs::write(package.path("templates/new/deeper/y.html"), "new").unwrap();
        package.expect("a template in a new folder", true);
        fs::write(package.path("notes.txt"), "new").unwrap();
        package.expect("a file", true);
        fs::write(package.path("other.txt"), "new").unwrap();
        package.expect("another file beside it", false);
        let error = Watch::check(&[package.path("none")]).unwrap_err();
        assert!(
            error.starts_with(&format!("--reload-extra {}: can't be watched", package.path("none").display())),
            "{error}"
        );
        Watch::check(&[package.path("templates"), package.path("notes.txt")]).unwrap();
    }

    #[test]
    fn a_directory_that_goes_and_comes_back() {
        let mut package = Package::new(&[]);
        let (site, aside) = (package.path("site"), package.path("aside"));
        fs::rename(&site, &aside).unwrap();
        package.watch.turn(package.now);
        package.expect("moved away", true);
        assert!(package.watch.deadline().is_some(), "it is looked for");
        fs::rename(&aside, &site).unwrap();
        package.now += LATER;
        package.watch.turn(package.now);
        package.expect("back again", true);
        assert!(package.watch.deadline().is_none());
        fs::write(site.join("views.py"), "new").unwrap();
        package.expect("watched again", true);
        fs::remove_dir_all(&site).unwrap();
        package.watch.turn(package.now);
        package.expect("removed", true);
    }

    #[test]
    fn what_changed_before_it_was_watched() {
        let mut package = Package::new(&[]);
        package.watch.begun = SystemTime::UNIX_EPOCH;
        package.report("site/sub/deep.py");
        package.expect("it changed since the workers were begun", true);
        package.report("site/sub/deep.py");
        package.expect("its directory is known", false);
    }

    #[test]
    fn many_changes_are_one_and_few_are_named() {
        let mut package = Package::new(&[]);
        for number in 0..20 {
            fs::write(package.path("site").join(format!("m{number:02}.py")), "x").unwrap();
        }
        let told = package.reload().unwrap();
        assert!(told.contains("m00.py") && told.ends_with(", more") && !told.contains("m10.py"), "{told}");
        assert_eq!(package.reload(), None);
    }

    #[test]
    fn one_directory_by_two_paths() {
        let mut package = Package::new(&[]);
        std::os::unix::fs::symlink(package.path("site"), package.path("link")).unwrap();
        package.report("link/views.py");
        package.expect("nothing changed", false);
        fs::write(package.path("link/views.py"), "new").unwrap();
        package.expect("changed", true);
        fs::remove_file(package.path("link")).unwrap();
        fs::write(package.path("site/views.py"), "new").unwrap();
        package.expect("changed by its other path", true);
    }
}
