//! What was asked: command line, environment and file, checked once, as one immutable `Config`.
//!
//! Reads no environment, opens no file, resolves no name and prints nothing: all of that is handed in or handed back.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::limits;

mod address;
mod application;
mod elsewhere;
mod environment;
mod error;
mod file;
pub mod flags;
mod layer;
mod network;
mod parse;
mod reference;
mod statics;
mod values;

pub use address::Address;
pub use error::{EXIT_USAGE, Error, Origin};
pub use network::Network;
pub use reference::{help, markdown_reference, readme_table, version};

/// `--reactor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReactorChoice {
    /// `ring`, or `epoll` where io_uring can't be used.
    Auto,
    /// Our io_uring driver.
    Ring,
    /// The epoll driver.
    Epoll,
    /// The io_uring driver on the tokio-uring crate.
    TokioUring,
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Nowhere.
    Off,
    /// Standard output (access log) or standard error (error log): `-`.
    Standard,
    /// Appended to this file.
    File(PathBuf),
}

/// `--log-level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Only what stops something.
    Error,
    /// And what an operator should look at.
    Warning,
    /// And start and stop.
    Info,
    /// And peers' faults and disconnects.
    Debug,
}

/// Everything that was asked for. Never changes after start.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `module`, `module:callable` or `module:factory("args")`; plain `module` means its `application`.
    pub application: String,
    /// `--http-socket`, in order; at least one, none twice but for port 0.
    pub http_socket: Vec<Address>,
    /// `--workers`: Python threads.
    pub workers: usize,
    /// `--max-workers`, at least `workers`; `None`: the pool doesn't grow.
    pub max_workers: Option<usize>,
    /// `--processes`.
    pub processes: usize,
    /// Whether a supervisor starts the processes; not with `--no-supervisor`, nor with `--process`.
    pub supervisor: bool,
    /// `--process`: the number of the one process there is then; 0: not given.
    pub process: usize,
    /// `--preload`: import the application before the processes are forked.
    pub preload: bool,
    /// `--max-requests` of a process; 0: no limit.
    pub max_requests: u64,
    /// `--max-requests-jitter`: as many more at most, by chance.
    pub max_requests_jitter: u64,
    /// `--max-worker-lifetime` of a process; zero: no limit.
    pub max_worker_lifetime: Duration,
    /// `--max-rss` of a process, bytes; 0: no limit.
    pub max_rss: u64,
    /// `--reactor`.
    pub reactor: ReactorChoice,
    /// `--reactors`; `None`: as many as there are processors to use.
    pub reactors: Option<usize>,
    /// `--queue`; `None`: [`Config::queue_requests`] says how many.
    pub queue: Option<usize>,
    /// `--priority`.
    pub priority: bool,
    /// `--priority-prefix`: what paths begin with, and the points for that.
    pub priority_prefixes: Vec<(String, i32)>,
    /// `--priority-by-cost`.
    pub priority_by_cost: bool,
    /// `--shed`.
    pub shed: bool,
    /// `--request-timeout`: to wait for a worker, and again to run. [`Config::NO_LIMIT`], when 0 was given: for ever.
    pub request_timeout: Duration,
    /// `--header-timeout`; never zero.
    pub header_timeout: Duration,
    /// `--body-timeout`; never zero.
    pub body_timeout: Duration,
    /// `--send-timeout`; never zero.
    pub send_timeout: Duration,
    /// `--keep-alive`. Zero: every response closes its connection.
    pub keep_alive: Duration,
    /// `--start-timeout`: to load the application and accept connections. [`Config::NO_LIMIT`], when 0 was given.
    pub start_timeout: Duration,
    /// `--graceful-timeout`. Zero: nothing is waited for.
    pub graceful_timeout: Duration,
    /// `--background-timeout`, of each run of a job. [`Config::NO_LIMIT`], when 0 was given.
    pub background_timeout: Duration,
    /// `--max-request-line`, bytes; never more than `max_header_bytes`.
    pub max_request_line: usize,
    /// `--max-header-bytes`.
    pub max_header_bytes: usize,
    /// `--max-headers`.
    pub max_headers: usize,
    /// `--max-request-body`, bytes.
    pub max_request_body: u64,
    /// `--header-underscores`: let fields with underscores in their names through.
    pub header_underscores: bool,
    /// `--trusted-proxies`; empty: nobody's word is taken.
    pub trusted_proxies: Vec<Network>,
    /// `--max-age`: how long a response may be served from the cache. Zero: there is no cache.
    pub max_age: Duration,
    /// `--cache-size`, bytes. Zero: there is no cache.
    pub cache_size: usize,
    /// `--cache-response-size`, bytes.
    pub cache_response_size: usize,
    /// `--cache-status`: responses say how they came about.
    pub cache_status: bool,
    /// `--access-log`.
    pub access_log: LogTarget,
    /// `--error-log`.
    pub error_log: LogTarget,
    /// `--log-level`.
    pub log_level: LogLevel,
    /// `--chdir`.
    pub chdir: Option<PathBuf>,
    /// `--pythonpath`, in order, before everything else in `sys.path`.
    pub pythonpath: Vec<PathBuf>,
    /// `--pid`.
    pub pid: Option<PathBuf>,
    /// `--user`: a name or a number, not looked up.
    pub user: Option<String>,
    /// `--group`: a name or a number, not looked up.
    pub group: Option<String>,
    /// `--umask`; `None`: the one the server is started with.
    pub umask: Option<u32>,
    /// `--env`, in order: names without `=`, and their values.
    pub env: Vec<(OsString, OsString)>,
    /// `--daemon`.
    pub daemon: bool,
    /// `--reload`.
    pub reload: bool,
    /// `--reload-extra`, in order.
    pub reload_extra: Vec<PathBuf>,
    /// `--static-map`: prefix, which begins with a slash, and path, in order.
    pub static_map: Vec<(String, PathBuf)>,
    /// `--static-max-age`, seconds.
    pub static_max_age: u64,
    /// `--static-index`: a file's name.
    pub static_index: Option<String>,
    /// `--static-header`: name and value, in order.
    pub static_header: Vec<(String, String)>,
    /// `--static-dotfiles`.
    pub static_dotfiles: bool,
    /// `--sendfile-root`, in order.
    pub sendfile_root: Vec<PathBuf>,
    /// `--check`: load the application, print the configuration, exit.
    pub check: bool,
    /// `--config`.
    pub config_file: Option<PathBuf>,
    /// Where values came from, by the flag's name; what isn't in here is a default.
    pub origins: BTreeMap<&'static str, Origin>,
}

/// What is to be done.
#[derive(Debug)]
pub enum Outcome {
    /// Serve (or check) this, after these warnings, a sentence each.
    Run(Box<Config>, Vec<String>),
    /// Print this on standard output and exit with 0: help, version.
    Print(String),
}

/// Reads a whole file; [`limits::CONFIG_FILE_BYTES_MAX`] is checked on what it returns.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// What the command line, over the environment, over the file that one of them names, asks for. `arguments` are without the
/// program's name.
///
/// # Errors
/// Whatever can't be understood, the command line's faults first. The process is to print the error on standard error and
/// exit with [`EXIT_USAGE`].
pub fn from(
    arguments: &[OsString],
    environment: &[(OsString, OsString)],
    read_file: ReadFile<'_>,
) -> Result<Outcome, Error> {
    let command_line = match parse::command_line(arguments)? {
        parse::CommandLine::Help => return Ok(Outcome::Print(help())),
        parse::CommandLine::Version => return Ok(Outcome::Print(version())),
        parse::CommandLine::Layer(layer) => layer,
    };
    let (environment, warnings) = environment::environment(environment)?;
    let mut layers = vec![command_line, environment];
    // What names the file must be right before the file can be read; its other values are looked at with all the rest.
    if let Some((path, origin)) = file_named_by(&layers)? {
        let contents = read_file(&path).map_err(|error| {
            let named = values::shown(path.as_os_str());
            Error::value(
                "--config",
                &origin,
                &format!("{named} can't be read: {error}; check its path and permissions"),
            )
        })?;
        layers.push(file::file(&path, &contents)?);
    }
    let mut config = layer::merged(&layers)?;
    config.relate()?;
    Ok(Outcome::Run(Box::new(config), warnings))
}

fn file_named_by(layers: &[layer::Layer]) -> Result<Option<(PathBuf, Origin)>, Error> {
    let Some(given) = flags::find("config").and_then(|flag| layers.iter().find_map(|layer| layer.get(flag))) else {
        return Ok(None);
    };
    let path = values::Values::new(&given.texts).path();
    let path = path.map_err(|clause| Error::value(&given.spelling, &given.origin, &clause))?;
    Ok(Some((path, given.origin.clone())))
}

impl Config {
    /// What `request_timeout` is when there is none. Added to any point of the reactors' clock it is the end of time.
    pub const NO_LIMIT: Duration = Duration::MAX;

    /// Where the value of a flag came from.
    pub fn origin(&self, flag: &str) -> &Origin {
        self.origins.get(flag).unwrap_or(&Origin::Default)
    }

    /// Requests that may wait for a worker: `--queue`, or enough for every worker to find one.
    pub fn queue_requests(&self) -> usize {
        self.queue.unwrap_or(limits::QUEUE_REQUESTS.max(self.max_workers.unwrap_or(self.workers)))
    }

    /// Every value and where it came from, a line each, for `--check`.
    pub fn describe(&self) -> String {
        let rows: Vec<(&str, String, &Origin)> = flags::FLAGS
            .iter()
            .filter(|flag| flag.settable())
            .map(|flag| (flag.name, flag.value_text(self), self.origin(flag.name)))
            .collect();
        let name_width = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
        // A long list, such as that of the proxies, mustn't push every other origin off the screen.
        const VALUE_WIDTH_MAX: usize = 40;
        let widths = rows.iter().map(|(_, value, _)| value.chars().count());
        let value_width = widths.filter(|width| *width <= VALUE_WIDTH_MAX).max().unwrap_or(0);
        let line = |(name, value, origin): &(&str, String, &Origin)| {
            format!("{name:name_width$} = {value:value_width$}   ({origin})\n")
        };
        rows.iter().map(line).collect()
    }

    /// What several values must be to each other.
    fn relate(&mut self) -> Result<(), Error> {
        self.relate_processes()?;
        self.relate_reload()?;
        if let Some(most) = self.max_workers.filter(|most| *most < self.workers) {
            let clause = format!(
                "'{most}' is less than --workers, which is {} ({}): raise the one or lower the other",
                self.workers,
                self.origin("workers")
            );
            return Err(Error::value("--max-workers", self.origin("max-workers"), &clause));
        }
        if self.max_request_line <= self.max_header_bytes {
            return Ok(());
        }
        let origin = self.origin("max-request-line");
        if *origin == Origin::Default {
            self.max_request_line = self.max_header_bytes;
            return Ok(());
        }
        let (line, head) =
            (values::bytes_text(self.max_request_line as u64), values::bytes_text(self.max_header_bytes as u64));
        let head_origin = self.origin("max-header-bytes");
        let clause = format!(
            "'{line}' is more than --max-header-bytes, which is {head} ({head_origin}) and holds the request line too: raise \
             that one as well"
        );
        Err(Error::value("--max-request-line", origin, &clause))
    }
}

impl Config {
    /// Without a supervisor there is one process, and nobody who would replace it.
    fn relate_reload(&mut self) -> Result<(), Error> {
        // Paths to watch ask for watching, unless that was switched off by name.
        if !self.reload_extra.is_empty() && *self.origin("reload") == Origin::Default {
            self.reload = true;
        }
        let clause = match (self.reload, self.preload, self.supervisor) {
            (true, true, _) => {
                "'true' can't be with --preload, whose processes all share the code of the first: leave one of them out"
            }
            (true, _, false) => {
                "'true' needs the supervisor, and --no-supervisor or --process switches it off: leave one of them out"
            }
            _ => return Ok(()),
        };
        Err(Error::value("--reload", self.origin("reload"), clause))
    }

    fn relate_processes(&mut self) -> Result<(), Error> {
        if self.process > 0 {
            // wsgo's own supervisor starts its processes with the flags it was given itself.
            self.supervisor = false;
            return Ok(());
        }
        let needed: [(&str, bool); 6] = [
            ("processes", self.processes > 1),
            ("preload", self.preload),
            ("max-requests", self.max_requests > 0),
            ("max-requests-jitter", self.max_requests_jitter > 0),
            ("max-worker-lifetime", !self.max_worker_lifetime.is_zero()),
            ("max-rss", self.max_rss > 0),
        ];
        let Some((name, _)) = needed.into_iter().find(|(_, asked)| *asked && !self.supervisor) else { return Ok(()) };
        let value = flags::find(name).map(|flag| (flag.show)(self)).unwrap_or_default();
        let clause =
            format!("'{value}' needs the supervisor, and --no-supervisor switches it off: leave one of them out");
        Err(Error::value(&format!("--{name}"), self.origin(name), &clause))
    }
}

impl Default for Config {
    /// What holds when nothing is said.
    fn default() -> Self {
        Self {
            application: "wsgi_app".to_owned(),
            http_socket: vec![Address::Tcp { host: String::new(), port: 8000 }],
            workers: 16,
            max_workers: None,
            processes: 1,
            supervisor: true,
            process: 0,
            preload: false,
            max_requests: 0,
            max_requests_jitter: 0,
            max_worker_lifetime: Duration::ZERO,
            max_rss: 0,
            reactor: ReactorChoice::Auto,
            reactors: None,
            queue: None,
            priority: true,
            priority_prefixes: Vec::new(),
            priority_by_cost: false,
            shed: false,
            request_timeout: Duration::from_secs(limits::REQUEST_TIMEOUT_S),
            header_timeout: Duration::from_secs(limits::HEADER_TIMEOUT_S),
            body_timeout: Duration::from_secs(limits::BODY_TIMEOUT_S),
            send_timeout: Duration::from_secs(limits::SEND_TIMEOUT_S),
            keep_alive: Duration::from_secs(limits::KEEP_ALIVE_S),
            start_timeout: Duration::from_secs(limits::START_TIMEOUT_S),
            graceful_timeout: Duration::from_secs(limits::GRACEFUL_TIMEOUT_S),
            background_timeout: Duration::from_secs(limits::BACKGROUND_TIMEOUT_S),
            max_request_line: limits::REQUEST_LINE_BYTES_MAX,
            max_header_bytes: limits::HEAD_BYTES_MAX,
            max_headers: limits::FIELDS_MAX,
            max_request_body: limits::REQUEST_BODY_BYTES_MAX,
            header_underscores: false,
            trusted_proxies: Network::PRIVATE.to_vec(),
            max_age: Duration::ZERO,
            cache_size: limits::CACHE_BYTES_MAX,
            cache_response_size: limits::CACHE_RESPONSE_BYTES_MAX,
            cache_status: false,
            access_log: LogTarget::Standard,
            error_log: LogTarget::Standard,
            log_level: LogLevel::Info,
            chdir: None,
            pythonpath: Vec::new(),
            pid: None,
            user: None,
            group: None,
            umask: None,
            env: Vec::new(),
            daemon: false,
            reload: false,
            reload_extra: Vec::new(),
            static_map: Vec::new(),
            static_max_age: limits::STATIC_MAX_AGE_S,
            static_index: None,
            static_header: Vec::new(),
            static_dotfiles: false,
            sendfile_root: Vec::new(),
            check: false,
            config_file: None,
            origins: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests;
