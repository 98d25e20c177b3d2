//! The real server as a child process: started on a free port, watched, stopped by SIGTERM.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::lines::Lines;
use super::{Client, PATIENCE, eventually};

/// What a server must never write.
const BUGS: [&str; 2] = ["panicked", "a bug in hoopsnake"];

/// `--reactor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Driver {
    /// The io_uring driver.
    Ring,
    /// The epoll driver.
    Epoll,
    /// The driver on the tokio-uring crate.
    TokioUring,
}

impl Driver {
    /// As the flag has it.
    pub fn name(self) -> &'static str {
        match self {
            Driver::Ring => "ring",
            Driver::Epoll => "epoll",
            Driver::TokioUring => "tokio-uring",
        }
    }

    /// A server with this driver, to be configured.
    pub fn server(self) -> Start {
        Start::bare(&["--http-socket", "127.0.0.1:0", "--reactor", self.name()]).flags(&["--access-log", "off"])
    }
}

/// What a test is given.
pub trait Subject {
    /// For this driver.
    fn on(driver: Driver) -> Self;
}

impl Subject for Driver {
    fn on(driver: Driver) -> Self {
        driver
    }
}

impl Subject for Shared {
    fn on(driver: Driver) -> Self {
        Shared::of(driver, &GENEROUS)
    }
}

/// Flags of a server that several tests share.
pub struct Profile {
    /// Its name, by which it is shared.
    pub name: &'static str,
    /// Its flags.
    pub flags: &'static [&'static str],
}

/// What most tests want: time-outs no honest test runs into, everything else as it comes.
pub static GENEROUS: Profile = Profile { name: "generous", flags: &["--header-timeout", "20"] };

/// A server to be started.
pub struct Start {
    command: Command,
    module: Option<OsString>,
}

impl Start {
    /// One with just these flags, and the tests' applications on its path.
    pub fn bare(flags: &[&str]) -> Self {
        Self::through(&[], flags)
    }

    /// One that a launcher in Python (`launch.py` and what it is to do) puts itself in the place of.
    pub fn through(launcher: &[&str], flags: &[&str]) -> Self {
        Self::from(Command::new(python()), launcher, flags)
    }

    /// One that another program starts, which is given the command after its own arguments.
    pub fn under(program: &[&str], flags: &[&str]) -> Self {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(python());
        Self::from(command, &[], flags)
    }

    fn from(mut command: Command, launcher: &[&str], flags: &[&str]) -> Self {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
        if !launcher.is_empty() {
            command.arg(tests.join("launch.py")).args(launcher);
        }
        command.args(["-m", "hoopsnake"]).args(flags).arg("--pythonpath").arg(tests.join("apps"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("HOOPSNAKE_") || name.starts_with("LISTEN_") {
                command.env_remove(name);
            }
        }
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONUNBUFFERED", "1");
        Self { command, module: Some("wire".into()) }
    }

    /// Adds flags.
    pub fn flags<S: AsRef<OsStr>>(mut self, flags: &[S]) -> Self {
        self.command.args(flags);
        self
    }

    /// Names the application; without this it is `wire`. Empty: none is named.
    pub fn application(mut self, name: &str) -> Self {
        self.module = (!name.is_empty()).then(|| name.into());
        self
    }

    /// Sets an environment variable.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    fn spawn(mut self) -> (Child, Arc<Lines>, Arc<Lines>) {
        self.command.args(self.module);
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("can't start {:?}: {error}", self.command));
        let stdout = Lines::follow(child.stdout.take().expect("it is piped"));
        let stderr = Lines::follow(child.stderr.take().expect("it is piped"));
        (child, stdout, stderr)
    }

    /// Starts it, without waiting for anything and without learning its addresses.
    pub fn start_unannounced(self) -> Server {
        let (child, stdout, stderr) = self.spawn();
        let watchdog = Watchdog::new(child.id());
        Server { child, stdout, stderr, _watchdog: watchdog, addresses: Vec::new(), ended: false }
    }

    /// Starts it and waits until it is ready.
    pub fn start(self) -> Server {
        let mut server = self.start_unannounced();
        if server.stderr.wait_for("ready", PATIENCE).is_none() {
            panic!("the server doesn't become ready");
        }
        server.addresses = server.stderr.all().iter().flat_map(|line| addresses_in(line)).collect();
        server
    }

    /// Runs it to its end, which must come by itself.
    pub fn run(self) -> Outcome {
        let mut server = self.start_unannounced();
        let code = server.wait();
        Outcome { code, stdout: server.stdout.text(), stderr: server.stderr.text() }
    }
}

/// What a server that ended left.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The Python to test with.
fn python() -> PathBuf {
    let given = std::env::var_os("HOOPSNAKE_TEST_PYTHON").map(PathBuf::from);
    let python = given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python"));
    static CHECKED: OnceLock<bool> = OnceLock::new();
    let checked = CHECKED.get_or_init(|| {
        let import = Command::new(&python).args(["-c", "import hoopsnake._core"]).stderr(Stdio::null()).status();
        import.is_ok_and(|status| status.success())
    });
    assert!(
        checked,
        "{} has no hoopsnake._core: run `make test`, which puts it there, or name a Python that has it in HOOPSNAKE_TEST_PYTHON",
        python.display()
    );
    python
}

/// The addresses in a line of the start-up block.
fn addresses_in(line: &str) -> Vec<SocketAddr> {
    let after = line.split("http://").skip(1);
    after.filter_map(|rest| rest.split([' ', ',', '/', ';']).next()?.trim_end_matches('.').parse().ok()).collect()
}

/// Sends SIGTERM when this process is gone, however it went: it holds the other end of the pipe the shell reads.
struct Watchdog(Child);

impl Watchdog {
    fn new(pid: u32) -> Self {
        let script = format!("read -r line; kill -TERM {pid} 2>/dev/null");
        let child = Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn();
        Self(child.expect("there is a shell"))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Killed before its pipe closes, so that it never signals a process that isn't the server any more.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal, such as `TERM`, to a process.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status();
    assert!(status.is_ok_and(|status| status.success()), "can't send SIG{name}");
}

/// The children of a process that haven't ended.
fn children_of(pid: u32) -> Vec<u32> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("Linux has /proc").flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // `pid (name) state ppid …`; the name may hold anything.
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let (state, parent) = (fields.next().unwrap_or("Z"), fields.next().unwrap_or_default());
        if parent == pid.to_string() && state != "Z" {
            children.push(child);
        }
    }
    children.sort_unstable();
    children
}

/// A running server. Dropping it stops it, and fails the test if it doesn't stop as it should or has met a bug.
pub struct Server {
    child: Child,
    /// Its standard output.
    pub stdout: Arc<Lines>,
    /// Its standard error.
    pub stderr: Arc<Lines>,
    _watchdog: Watchdog,
    addresses: Vec<SocketAddr>,
    ended: bool,
}

impl Server {
    /// Its first TCP address.
    pub fn address(&self) -> SocketAddr {
        *self.addresses.first().expect("the start-up block names an address")
    }

    /// All its TCP addresses.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A new connection to it.
    pub fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// The body of the answer to a GET request on a connection of its own.
    pub fn get(&self, target: &str) -> String {
        let response = self.connect().get(target);
        assert_eq!(response.status(), 200, "{target}: {}", response.text());
        response.text()
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The processes that serve: its children, or, without a supervisor, itself.
    pub fn serving(&self) -> Vec<u32> {
        let children = children_of(self.pid());
        if children.is_empty() { vec![self.pid()] } else { children }
    }

    /// The one process that serves.
    pub fn worker(&self) -> u32 {
        let serving = self.serving();
        assert_eq!(serving.len(), 1, "one process serves: {serving:?}");
        serving[0]
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Descriptors that the process that serves has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.worker())).expect("the server runs").count()
    }

    /// Bytes of memory that the process that serves has to itself: no file pages, nothing shared.
    pub fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.worker())).expect("the server runs");
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("Linux ≥ 4.5 has it");
        let kilobytes: usize = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
        kilobytes * 1024
    }

    /// Waits until it has as many descriptors open as it had.
    pub fn expect_descriptors(&self, before: usize, what: &str) {
        eventually(&format!("{what}: {before} descriptors again"), || (self.descriptors() <= before).then_some(()));
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Waits until it has ended by itself; its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let status = eventually("the server ends", || self.child.try_wait().expect("it is our child"));
        self.ended = true;
        assert!(self.stdout.wait_for_end(PATIENCE) && self.stderr.wait_for_end(PATIENCE), "its output has no end");
        self.expect_sound();
        status.code()
    }

    /// Stops it by SIGTERM, which must end it with exit code 0.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.signal("TERM");
        assert_eq!(self.wait(), Some(0), "exit code after SIGTERM");
    }

    /// Nothing on its standard error tells of a bug of the server.
    pub fn expect_sound(&self) {
        for line in self.stderr.all() {
            assert!(!BUGS.iter().any(|bug| line.contains(bug)), "the server has met a bug: {line}");
        }
    }

    fn print_stderr(&self) {
        eprintln!("--- standard error of the server, pid {} ---\n{}\n---", self.pid(), self.stderr.text());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_stderr();
            let _ = self.child.kill();
            let _ = self.child.wait();
        } else if !self.ended {
            self.end();
        }
    }
}

/// A server that several tests use at the same time. It is told to stop when the last test is over, by its watchdog;
/// how it stops is looked at where a test has a server of its own.
pub struct Shared(&'static Server);

impl Shared {
    /// The one server with this driver and these flags.
    pub fn of(driver: Driver, profile: &Profile) -> Self {
        type Slot = &'static OnceLock<&'static Server>;
        static SERVERS: Mutex<Option<HashMap<(Driver, &'static str), Slot>>> = Mutex::new(None);
        let slot = {
            let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
            let servers = servers.get_or_insert_default();
            *servers.entry((driver, profile.name)).or_insert_with(|| Box::leak(Box::default()))
        };
        Self(slot.get_or_init(|| Box::leak(Box::new(driver.server().flags(profile.flags).start()))))
    }
}

impl Deref for Shared {
    type Target = Server;

    fn deref(&self) -> &Server {
        self.0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.print_stderr();
        } else {
            self.0.expect_sound();
            let status = format!("/proc/{}/stat", self.0.pid());
            let running = std::fs::read_to_string(status).is_ok_and(|stat| !stat.contains(") Z "));
            assert!(running, "the server has ended");
        }
    }
}
