//! As whom the server runs: `--user` and `--group` looked up, what must belong to them given to them, and the change itself,
//! which is for good and is tried to be taken back, in vain, before anything of the application is loaded.
//!
//! The supervisor changes as well, before it forks: no process of the server keeps root's rights, and the signal that workers
//! get when their supervisor dies isn't lost, as it is by a change of the user afterwards (prctl(2), PR_SET_PDEATHSIG).

use std::ffi::{CString, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{self, Gid, Uid};

/// Mode of a log file that is made, before the umask; as in `observe`.
const LOG_FILE_MODE: u32 = 0o640;

/// An account of this machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Its own group.
    pub gid: u32,
    /// Its home directory.
    pub home: PathBuf,
}

/// Who is who on this machine (getpwnam(3), getgrnam(3)).
pub trait Directory {
    /// The account of this name.
    fn account(&self, name: &str) -> Result<Option<Account>, String>;
    /// The account of this number.
    fn account_of(&self, uid: u32) -> Result<Option<Account>, String>;
    /// The number of the group of this name.
    fn group(&self, name: &str) -> Result<Option<u32>, String>;
}

/// This machine's.
pub struct Machine;

impl Directory for Machine {
    fn account(&self, name: &str) -> Result<Option<Account>, String> {
        unistd::User::from_name(name).map(|user| user.map(account)).map_err(|error| error.desc().to_owned())
    }

    fn account_of(&self, uid: u32) -> Result<Option<Account>, String> {
        unistd::User::from_uid(Uid::from_raw(uid))
            .map(|user| user.map(account))
            .map_err(|error| error.desc().to_owned())
    }

    fn group(&self, name: &str) -> Result<Option<u32>, String> {
        let group = unistd::Group::from_name(name).map_err(|error| error.desc().to_owned())?;
        Ok(group.map(|group| group.gid.as_raw()))
    }
}

fn account(user: unistd::User) -> Account {
    Account { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), home: user.dir }
}

/// Whom to become.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
    /// The user's account, if it was asked for and there is one: its supplementary groups and its home are taken.
    pub account: Option<Account>,
}

impl Identity {
    /// For people: `user www-data (33), group 33`.
    pub fn describe(&self) -> String {
        match &self.account {
            Some(account) => format!("user {} ({}), group {}", account.name, self.uid, self.gid),
            None => format!("user {}, group {}", self.uid, self.gid),
        }
    }

    /// What the environment says about the user, as systemd and login(1) set it.
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let Some(account) = &self.account else { return Vec::new() };
        let name = OsString::from(&account.name);
        vec![("HOME", account.home.clone().into()), ("USER", name.clone()), ("LOGNAME", name)]
    }
}

/// Whom `--user` and `--group` mean; `None` if neither is given. `current` is who runs now.
///
/// # Errors
/// One sentence that names the flag, the value and the remedy.
pub fn resolve(
    user: Option<&str>,
    group: Option<&str>,
    current: (u32, u32),
    directory: &impl Directory,
) -> Result<Option<Identity>, String> {
    if user.is_none() && group.is_none() {
        return Ok(None);
    }
    let account = match user {
        None => None,
        Some(text) => {
            let unreadable = |fault| format!("--user {text}: the accounts of this machine can't be read ({fault})");
            match number(text) {
                Some(uid) => Some((uid, directory.account_of(uid).map_err(unreadable)?)),
                None => {
                    let account = directory.account(text).map_err(unreadable)?;
                    let none =
                        || format!("--user {text}: there is no such user on this machine; create it, or name another");
                    let account = account.ok_or_else(none)?;
                    Some((account.uid, Some(account)))
                }
            }
        }
    };
    let gid = match (group, &account) {
        (Some(text), _) => match number(text) {
            Some(gid) => gid,
            None => directory
                .group(text)
                .map_err(|fault| format!("--group {text}: the groups of this machine can't be read ({fault})"))?
                .ok_or_else(|| {
                    format!("--group {text}: there is no such group on this machine; create it, or name another")
                })?,
        },
        (None, Some((_, Some(account)))) => account.gid,
        (None, Some((uid, None))) => {
            return Err(format!(
                "--user {uid}: no account has this number, so its group isn't known; give --group too"
            ));
        }
        (None, None) => current.1,
    };
    let (uid, account) = account.unwrap_or((current.0, None));
    Ok(Some(Identity { uid, gid, account }))
}

/// A number that the kernel takes for a user or group: its largest one means "as it is".
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|number| *number != u32::MAX)
}

/// User and group that the process has now, effectively.
pub fn current() -> (u32, u32) {
    (unistd::geteuid().as_raw(), unistd::getegid().as_raw())
}

/// Becomes `identity`, in every thread, for good. Whoever is it already stays as it is: that is how systemd starts a server
/// whose configuration names a user too.
///
/// # Errors
/// One sentence. The process may be half changed and must end.
pub fn become_for_good(identity: &Identity) -> Result<(), String> {
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    let is_it = || -> Result<bool, String> {
        let (users, groups) = (unistd::getresuid(), unistd::getresgid());
        let (users, groups) =
            (users.map_err(|error| refused(identity, error))?, groups.map_err(|error| refused(identity, error))?);
        let all_users = [users.real, users.effective, users.saved].iter().all(|each| *each == uid);
        Ok(all_users && [groups.real, groups.effective, groups.saved].iter().all(|each| *each == gid))
    };
    if is_it()? {
        return Ok(());
    }
    let name = identity.account.as_ref().map(|account| CString::new(account.name.as_bytes()));
    let groups = match &name {
        // Groups first: without the user's rights they can't be changed any more.
        Some(Ok(name)) => unistd::initgroups(name, gid),
        Some(Err(_)) => Err(Errno::EINVAL),
        None => unistd::setgroups(&[gid]),
    };
    groups
        .and_then(|()| unistd::setresgid(gid, gid, gid))
        .and_then(|()| unistd::setresuid(uid, uid, uid))
        .map_err(|error| refused(identity, error))?;
    let fault =
        |what: &str| Err(format!("{}: {what} after the change; don't run the server on this system", flag(identity)));
    if !is_it()? {
        return fault("the process isn't the user it should be");
    }
    // Root stays root: only --group was given, or --user root.
    let root = Uid::from_raw(0);
    if uid != root && (unistd::setresuid(root, root, root).is_ok() || unistd::seteuid(root).is_ok()) {
        return fault("root's rights can be regained");
    }
    let root = Gid::from_raw(0);
    if uid.as_raw() != 0
        && gid != root
        && (unistd::setresgid(root, root, root).is_ok() || unistd::setegid(root).is_ok())
    {
        return fault("root's group can be regained");
    }
    Ok(())
}

fn flag(identity: &Identity) -> String {
    match &identity.account {
        Some(account) => format!("--user {}", account.name),
        None => format!("--user {} --group {}", identity.uid, identity.gid),
    }
}

fn refused(identity: &Identity, error: Errno) -> String {
    let flag = flag(identity);
    match error {
        Errno::EPERM => format!(
            "{flag}: only root may change to {}, and this process runs as user {}, group {}; start it as root, let systemd do it \
             (User=), or leave the flag out",
            identity.describe(),
            unistd::geteuid(),
            unistd::getegid()
        ),
        _ => format!("{flag}: can't change to {} ({})", identity.describe(), error.desc()),
    }
}

/// Makes a log file that isn't there yet, as `identity`'s own, so that it can be opened anew after the change. One that is
/// there keeps its owner: giving it away could give away whatever somebody has put in its place.
///
/// # Errors
/// One sentence, when the file can't be made or given away.
pub fn own_log_file(flag: &str, path: &Path, identity: &Identity) -> Result<(), String> {
    let made = OpenOptions::new().append(true).create_new(true).mode(LOG_FILE_MODE).open(path);
    let given = match made {
        Ok(file) => give(&file, identity),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    };
    given.map_err(|error| format!("{flag} {}: can't be made for {} ({error})", path.display(), identity.describe()))
}

fn give(file: &File, identity: &Identity) -> io::Result<()> {
    if current() == (identity.uid, identity.gid) {
        return Ok(());
    }
    std::os::unix::fs::fchown(file, Some(identity.uid), Some(identity.gid))
}

/// Whether a log file can be opened by whoever the process is now, as every process that serves does, and again when the file was
/// moved away. To be asked after the change.
///
/// # Errors
/// One sentence.
pub fn check_log_file(flag: &str, path: &Path) -> Result<(), String> {
    OpenOptions::new().append(true).open(path).map(drop).map_err(|error| {
        let (user, shown) = (unistd::geteuid(), path.display());
        format!("{flag} {shown}: user {user} can't open the file for appending ({error}); let that user own it")
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    struct Known;

    impl Directory for Known {
        fn account(&self, name: &str) -> Result<Option<Account>, String> {
            match name {
                "www" => self.account_of(33),
                "broken" => Err("no database".to_owned()),
                _ => Ok(None),
            }
        }

        fn account_of(&self, uid: u32) -> Result<Option<Account>, String> {
            Ok((uid == 33).then(|| Account { name: "www".to_owned(), uid, gid: 34, home: "/srv".into() }))
        }

        fn group(&self, name: &str) -> Result<Option<u32>, String> {
            Ok((name == "staff").then_some(50))
        }
    }

    fn resolved(user: Option<&str>, group: Option<&str>) -> Result<Option<Identity>, String> {
        resolve(user, group, (7, 8), &Known)
    }

    #[test]
    fn names_and_numbers() {
        let check = |user: Option<&str>, group: Option<&str>, expected: Option<(u32, u32, bool)>| {
            let found = resolved(user, group).unwrap();
            let found = found.map(|identity| (identity.uid, identity.gid, identity.account.is_some()));
            assert_eq!(found, expected, "{user:?} {group:?}");
        };
        check(None, None, None);
        check(Some("www"), None, Some((33, 34, true)));
        check(Some("33"), None, Some((33, 34, true)));
        check(Some("www"), Some("staff"), Some((33, 50, true)));
        check(Some("www"), Some("51"), Some((33, 51, true)));
        check(Some("99"), Some("51"), Some((99, 51, false)));
        check(None, Some("staff"), Some((7, 50, false)));
        let variables = resolved(Some("www"), None).unwrap().unwrap().variables();
        assert_eq!(variables, [("HOME", "/srv".into()), ("USER", "www".into()), ("LOGNAME", "www".into())]);
        assert!(resolved(Some("99"), Some("51")).unwrap().unwrap().variables().is_empty());
    }

    #[test]
    fn faults_name_the_remedy() {
        let check = |user: Option<&str>, group: Option<&str>, expected: &str| {
            let error = resolved(user, group).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(Some("ww"), None, "--user ww: there is no such user on this machine");
        check(Some("4294967295"), Some("1"), "--user 4294967295: there is no such user");
        check(Some("-1"), None, "--user -1: there is no such user");
        check(Some("99"), None, "--user 99: no account has this number, so its group isn't known; give --group too");
        check(Some("broken"), None, "--user broken: the accounts of this machine can't be read (no database)");
        check(Some("www"), Some("nope"), "--group nope: there is no such group");
    }

    #[test]
    fn the_machine_knows_root() {
        let root = Machine.account("root").unwrap().unwrap();
        assert_eq!(Machine.account_of(root.uid).unwrap().unwrap(), root);
        assert_eq!((root.uid, Machine.account("no-such-user-here").unwrap()), (0, None));
        assert_eq!(Machine.group("root").unwrap(), Some(0));
    }

    #[test]
    fn whoever_it_is_already_stays() {
        let (uid, gid) = current();
        become_for_good(&Identity { uid, gid, account: None }).unwrap();
    }

    #[test]
    fn refusals_say_who_may() {
        let identity = Identity { uid: 33, gid: 34, account: None };
        let sentence = refused(&identity, Errno::EPERM);
        assert!(sentence.starts_with("--user 33 --group 34: only root may change to user 33, group 34"), "{sentence}");
        assert!(sentence.contains("start it as root, let systemd do it (User=)"), "{sentence}");
    }

    #[test]
    fn log_files_are_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("error.log");
        let (uid, gid) = current();
        // Root may give files away; everybody else has only their own.
        let identity =
            if uid == 0 { Identity { uid: 33, gid: 34, account: None } } else { Identity { uid, gid, account: None } };
        own_log_file("--error-log", &path, &identity).unwrap();
        let made = std::fs::metadata(&path).unwrap();
        assert_eq!((made.uid(), made.gid(), made.mode() & 0o137), (identity.uid, identity.gid, 0));
        std::fs::write(&path, "kept").unwrap();
        let other = Identity { uid: identity.uid + 1, ..identity.clone() };
        own_log_file("--error-log", &path, &other).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().uid(), identity.uid, "its owner is kept");
        assert_eq!(std::fs::read(&path).unwrap(), b"kept");
        let missing = directory.path().join("none/error.log");
        let error = own_log_file("--error-log", &missing, &identity).unwrap_err();
        assert!(error.starts_with(&format!("--error-log {}: can't be made for user ", missing.display())), "{error}");
        check_log_file("--error-log", &path).unwrap();
        assert!(check_log_file("--error-log", &missing).unwrap_err().contains("can't open the file for appending"));
    }
}
