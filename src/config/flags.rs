//! The one table of flags. The parser, `--help`, the environment names, the keys of the file, the manual's page and the
//! README's table are made from it; a flag that isn't here doesn't exist. How a text is read stands in `values`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::address::Address;
use super::application;
use super::network::Network;
use super::statics;
use super::values::{self, Values, Zero};
use super::{Config, LogLevel, LogTarget, ReactorChoice};
use crate::limits;

/// The heading a flag stands under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// What is served.
    Application,
    /// Where.
    Listening,
    /// By how many.
    Threads,
    /// In which order.
    Queue,
    /// How long is waited.
    Timeouts,
    /// How much is let in.
    Limits,
    /// What is served without the application.
    Static,
    /// Whose word is taken.
    Proxies,
    /// What is answered without the application.
    Cache,
    /// What is written down.
    Logs,
    /// As whom, where and how the process lives.
    Housekeeping,
    /// About the configuration itself.
    Configuration,
}

impl Group {
    /// Every group, in the order of the help.
    pub const ALL: [Group; 12] = [
        Group::Application,
        Group::Listening,
        Group::Threads,
        Group::Queue,
        Group::Timeouts,
        Group::Limits,
        Group::Static,
        Group::Proxies,
        Group::Cache,
        Group::Logs,
        Group::Housekeeping,
        Group::Configuration,
    ];

    /// The heading.
    pub fn title(self) -> &'static str {
        match self {
            Group::Application => "Application",
            Group::Listening => "Listening",
            Group::Threads => "Threads and processes",
            Group::Queue => "Queue and priorities",
            Group::Timeouts => "Time-outs (seconds; fractions such as 0.5 are allowed)",
            Group::Limits => "Limits (bytes may be written 64k, 10m, 1g)",
            Group::Static => "Static files",
            Group::Proxies => "Proxies",
            Group::Cache => "Response cache",
            Group::Logs => "Logs",
            Group::Housekeeping => "Housekeeping and development",
            Group::Configuration => "Configuration",
        }
    }
}

/// What a flag takes: which types of TOML are accepted for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// A number, or a string that holds one.
    Number,
    /// Nothing, or `true` or `false`.
    Switch,
    /// Nothing: it prints something and ends.
    Action,
}

/// One flag: everything that is known about it.
pub struct Flag {
    /// As it is given, without dashes.
    pub name: &'static str,
    /// Where the help lists it.
    pub group: Group,
    /// What it takes.
    pub kind: Kind,
    /// What its value is called; empty for switches.
    pub metavar: &'static str,
    /// What its default is called where the value itself would be too long; empty: the value itself.
    pub default: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// What else the manual says.
    pub manual: &'static str,
    /// A value, for the manual.
    pub example: &'static str,
    /// Repeatable; several values may also stand in one text, with this between them.
    pub separator: Option<char>,
    /// The positional argument that says the same.
    pub positional: Option<&'static str>,
    /// Whether the file may hold it.
    pub in_file: bool,
    /// What other servers call the same, for suggestions only.
    pub elsewhere: &'static [&'static str],
    /// Reads its values into the configuration; an error is the clause that begins with the value.
    pub set: fn(&mut Config, Values<'_>) -> Result<(), String>,
    /// Its value, in the form it is given in.
    pub show: fn(&Config) -> String,
}

impl Flag {
    /// Its environment variable.
    pub fn variable(&self) -> String {
        variable(self.name)
    }

    /// Whether environment and file may give it.
    pub fn settable(&self) -> bool {
        self.kind != Kind::Action
    }

    /// Its default, as the help says it.
    pub fn default_text(&self) -> String {
        match self.default {
            "" => (self.show)(&Config::default()),
            text => text.to_owned(),
        }
    }

    /// Its value in a configuration, for people: of a path that wasn't given, what is said of the default.
    pub fn value_text(&self, config: &Config) -> String {
        let value = (self.show)(config);
        if value.is_empty() { self.default.to_owned() } else { value }
    }

    /// Whether `key` is a name for it in a file or, lower-cased and without prefix, in the environment.
    pub fn answers_to(&self, key: &str) -> bool {
        let same = |name: &str| key.len() == name.len() && key.bytes().map(dashed).eq(name.bytes().map(dashed));
        same(self.name) || self.positional.is_some_and(|name| same(&name.to_ascii_lowercase()))
    }
}

/// What every variable of ours begins with.
pub const PREFIX: &str = "HOOPSNAKE_";

/// The environment variable of a name.
pub fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.to_ascii_uppercase().replace('-', "_"))
}

/// The flag of this name, exactly.
pub fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

/// A name as flags are written: in lower case, with hyphens.
pub fn spelt(name: &str) -> String {
    name.chars().map(|char| if char == '_' { '-' } else { char.to_ascii_lowercase() }).collect()
}

/// The flag somebody may have meant by `name`.
pub fn meant(name: &str) -> Option<&'static Flag> {
    let name = spelt(name);
    let elsewhere = FLAGS.iter().find(|flag| flag.elsewhere.contains(&name.as_str()));
    elsewhere.or_else(|| find(nearest(&name, FLAGS.iter().map(|flag| flag.name))?))
}

/// The candidate nearest to `name`: with a third of its letters wrong at most, or else the one that contains it.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    // Nothing of ours is longer, and the distance costs the product of the lengths.
    const LETTERS_MAX: usize = 40;
    if name.is_empty() || name.len() > LETTERS_MAX {
        return None;
    }
    let near = candidates.clone().map(|candidate| (distance(name, candidate), candidate)).min_by_key(|(far, _)| *far);
    match near {
        Some((far, candidate)) if far <= name.len().div_ceil(3).min(candidate.len() / 2) => Some(candidate),
        _ if name.len() < 3 => None,
        _ => candidates.into_iter().find(|candidate| candidate.contains(name)),
    }
}

/// Letters to insert, delete, replace or swap with their neighbour to make one of the other (optimal string alignment).
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, letter) in one.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, against) in other.iter().enumerate() {
            let replaced = row[j] + usize::from(letter != against);
            let mut best = replaced.min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *letter == other[j - 1] && one[i - 1] == *against {
                best = best.min(before[j - 1] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[other.len()]
}

fn dashed(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte }
}

const REACTORS: &[(&str, ReactorChoice)] = &[
    ("auto", ReactorChoice::Auto),
    ("ring", ReactorChoice::Ring),
    ("epoll", ReactorChoice::Epoll),
    ("tokio-uring", ReactorChoice::TokioUring),
];

const LEVELS: &[(&str, LogLevel)] =
    &[("error", LogLevel::Error), ("warning", LogLevel::Warning), ("info", LogLevel::Info), ("debug", LogLevel::Debug)];

/// What an entry of the table leaves out.
const FLAG: Flag = Flag {
    name: "",
    group: Group::Configuration,
    kind: Kind::Text,
    metavar: "",
    default: "",
    help: "",
    manual: "",
    example: "",
    separator: None,
    positional: None,
    in_file: true,
    elsewhere: &[],
    set: |_, _| Ok(()),
    show: |_| String::new(),
};

/// Why a client's time-out can't be switched off.
const NO_ZERO: Zero = Zero::Refused(
    "would let a client hold a connection for ever: give a number of seconds, a large one if it must be, such as 86400",
);

/// Every flag, in the order of the help.
pub static FLAGS: &[Flag] = &[
    Flag {
        name: "module",
        metavar: "MODULE[:CALLABLE]",
        group: Group::Application,
        help: "The application, when it isn't given as APPLICATION.",
        manual: "`module` is a dotted Python name and means its attribute `application`; `module:callable` names another \
            attribute; `module:factory(\"args\")` calls it once, with literals, and serves what it returns. The positional \
            argument APPLICATION says the same; giving both is an error. In the environment it may also be called \
            `HOOPSNAKE_APPLICATION`, in the file `application`.",
        example: "mysite.wsgi:application",
        positional: Some("APPLICATION"),
        elsewhere: &["app", "wsgi", "wsgi-app", "callable", "m"],
        set: |config, values| {
            config.application = application::checked(values.text()?)?.to_owned();
            Ok(())
        },
        show: |config| config.application.clone(),
        ..FLAG
    },
    Flag {
        name: "chdir",
        metavar: "DIRECTORY",
        group: Group::Application,
        default: "the directory it is started in",
        help: "Directory to change to before the application is loaded.",
        manual: "Python looks for modules there first, after `--pythonpath`. Without it, that is the directory the server is \
            started in.",
        example: "/srv/mysite",
        elsewhere: &["working-dir", "cd", "directory"],
        set: |config, values| {
            config.chdir = Some(values.path()?);
            Ok(())
        },
        show: |config| config.chdir.as_ref().map_or(String::new(), |path| path.display().to_string()),
        ..FLAG
    },
    Flag {
        name: "pythonpath",
        metavar: "PATH",
        group: Group::Application,
        default: "none",
        help: "Directory to look for Python modules in before all others; repeatable.",
        manual: "The first one given is searched first. A path can't hold a colon.",
        example: "/srv/mysite/lib",
        separator: Some(':'),
        elsewhere: &["python-path", "path", "pp"],
        set: |config, values| {
            config.pythonpath = values.paths();
            Ok(())
        },
        show: |config| joined(config.pythonpath.iter().map(|path| path.display()), ":"),
        ..FLAG
    },
    Flag {
        name: "http-socket",
        metavar: "ADDRESS",
        group: Group::Listening,
        help: "Address to serve HTTP on: host:port, :port, [v6]:port, unix:/path, unix:@name or fd:N; repeatable.",
        manual: "`:8000`, or `8000` alone, is port 8000 of every interface, IPv4 and IPv6. Port 0 is any free port. \
            `unix:@name` is a socket in the abstract namespace of Linux. `fd:N` is a listening socket that the server \
            inherited as descriptor N. An address can't hold a comma.",
        example: "127.0.0.1:8080",
        separator: Some(','),
        elsewhere: &["bind", "b", "http", "listen", "host", "port", "address", "interface"],
        set: |config, values| {
            config.http_socket = addresses(values)?;
            Ok(())
        },
        show: |config| joined(config.http_socket.iter(), ","),
        ..FLAG
    },
    Flag {
        name: "workers",
        metavar: "N",
        group: Group::Threads,
        kind: Kind::Number,
        help: "Python threads that run the application, in each process.",
        manual: "As many requests run at the same time; others wait in a queue. No client holds a thread while it sends a \
            request or takes a response, so the number follows from how long the application itself waits, for its \
            database for instance. An application that isn't thread-safe needs `--workers 1`.",
        example: "32",
        elsewhere: &["threads", "blocking-threads", "no-threads"],
        set: |config, values| {
            config.workers = values.whole(1, limits::WORKERS_MAX)?;
            Ok(())
        },
        show: |config| config.workers.to_string(),
        ..FLAG
    },
    Flag {
        name: "max-workers",
        metavar: "N",
        group: Group::Threads,
        kind: Kind::Number,
        default: "the same as --workers",
        help: "Python threads that a process may grow to while requests wait and the GIL is idle.",
        manual: "The pool begins with `--workers` threads. It grows, by hundreds in a second if it must, as long as requests wait, \
            every thread is at one, and the GIL is measured to be idle: where the application waits for something, not where it \
            computes. Threads above `--workers` end after 10 s without a request. SIGUSR2 prints how many there are.",
        example: "512",
        elsewhere: &["max-threads", "maxthreads"],
        set: |config, values| {
            config.max_workers = Some(values.whole(1, limits::WORKERS_MAX)?);
            Ok(())
        },
        show: |config| config.max_workers.map_or(String::new(), |number| number.to_string()),
        ..FLAG
    },
    Flag {
        name: "processes",
        metavar: "N",
        group: Group::Threads,
        kind: Kind::Number,
        help: "Processes that serve, each with its own workers; a supervisor starts them and replaces one that dies.",
        manual: "Each process has an interpreter of its own, so that Python code runs on as many cores. All of them accept from the \
            same sockets. SIGTTIN adds one, SIGTTOU takes one away, SIGHUP replaces all of them without losing a request. There is a \
            supervisor with one process, too: it starts it again.",
        example: "4",
        elsewhere: &["num-processes", "nproc", "no-proc"],
        set: |config, values| {
            config.processes = values.whole(1, limits::PROCESSES_MAX)?;
            Ok(())
        },
        show: |config| config.processes.to_string(),
        ..FLAG
    },
    Flag {
        name: "no-supervisor",
        group: Group::Threads,
        kind: Kind::Switch,
        help: "Serve in the process that was started, without a supervisor.",
        manual: "For a debugger, a profiler, or where something else restarts what dies. There is no reload and no recycling then.",
        example: "true",
        elsewhere: &["single-process"],
        set: |config, values| {
            config.supervisor = !values.switch()?;
            Ok(())
        },
        show: |config| (!config.supervisor).to_string(),
        ..FLAG
    },
    Flag {
        name: "process",
        metavar: "N",
        group: Group::Threads,
        kind: Kind::Number,
        help: "wsgo's: serve as process N, without a supervisor; 0: the usual way.",
        manual: "It is there so that a command line of wsgo's goes on working: `--no-supervisor`, with a number for the access log.",
        example: "1",
        set: |config, values| {
            config.process = values.whole(0, limits::PROCESSES_MAX)?;
            Ok(())
        },
        show: |config| config.process.to_string(),
        ..FLAG
    },
    Flag {
        name: "preload",
        group: Group::Threads,
        kind: Kind::Switch,
        help: "Import the application once, in the supervisor, and fork the processes from there.",
        manual: "They begin at once and share the application's memory. But SIGHUP then renews the processes, not the code; threads \
            and connections that the application opens while it is imported don't work in the processes: open them at the first \
            request, or in `os.register_at_fork`.",
        example: "true",
        elsewhere: &["preload-app", "lazy-apps"],
        set: |config, values| {
            config.preload = values.switch()?;
            Ok(())
        },
        show: |config| config.preload.to_string(),
        ..FLAG
    },
    Flag {
        name: "max-requests",
        metavar: "N",
        group: Group::Threads,
        kind: Kind::Number,
        help: "Requests after which a process is replaced; 0: no limit.",
        manual: "Against memory that leaks. It is looked at once a second, and the old process serves until its successor is ready, so \
            that it may be somewhat more; one process is replaced at a time, and no request is lost.",
        example: "10000",
        elsewhere: &["limit-requests", "workers-max-requests"],
        set: |config, values| {
            config.max_requests = values.whole(0, limits::MAX_REQUESTS_CEILING)? as u64;
            Ok(())
        },
        show: |config| config.max_requests.to_string(),
        ..FLAG
    },
    Flag {
        name: "max-requests-jitter",
        metavar: "N",
        group: Group::Threads,
        kind: Kind::Number,
        help: "Up to so many requests more, by chance, so that processes aren't all replaced at the same time.",
        manual: "It is added to `--max-requests`, anew for each process.",
        example: "1000",
        set: |config, values| {
            config.max_requests_jitter = values.whole(0, limits::MAX_REQUESTS_CEILING)? as u64;
            Ok(())
        },
        show: |config| config.max_requests_jitter.to_string(),
        ..FLAG
    },
    Flag {
        name: "max-worker-lifetime",
        metavar: "SECONDS",
        group: Group::Threads,
        kind: Kind::Number,
        help: "Seconds after which a process is replaced; 0: no limit.",
        manual: "Like `--max-requests`.",
        example: "86400",
        elsewhere: &["workers-lifetime", "worker-lifetime"],
        set: |config, values| {
            config.max_worker_lifetime = values.seconds(Zero::Means(Duration::ZERO))?;
            Ok(())
        },
        show: |config| values::seconds_text(config.max_worker_lifetime),
        ..FLAG
    },
    Flag {
        name: "max-rss",
        metavar: "BYTES",
        group: Group::Threads,
        kind: Kind::Number,
        help: "Memory (as in 500m, 2g) at which a process is replaced; 0: no limit.",
        manual: "What it has in RAM (`RSS`), shared pages included. Like `--max-requests`. A process that is too large from the \
            start is replaced again and again: give several times what it needs when it is idle.",
        example: "1g",
        elsewhere: &["reload-on-rss", "workers-max-rss"],
        set: |config, values| {
            config.max_rss = values.bytes(0, limits::REQUEST_BODY_BYTES_CEILING)?;
            Ok(())
        },
        show: |config| values::bytes_text(config.max_rss),
        ..FLAG
    },
    Flag {
        name: "reactor",
        metavar: "DRIVER",
        group: Group::Threads,
        help: "How the kernel is asked for input and output: auto, ring, epoll or tokio-uring.",
        manual: "`ring` is io_uring, `epoll` is epoll, and `tokio-uring` is io_uring through the crate of that name. `auto` \
            tries io_uring out and takes `ring` if it works, else `epoll`: containers and hardened kernels often forbid \
            io_uring. The log says at start which one runs and why.",
        example: "epoll",
        elsewhere: &["loop", "driver"],
        set: |config, values| {
            config.reactor = values.choice(REACTORS)?;
            Ok(())
        },
        show: |config| values::choice_text(REACTORS, config.reactor),
        ..FLAG
    },
    Flag {
        name: "reactors",
        metavar: "N",
        group: Group::Threads,
        kind: Kind::Number,
        help: "I/O threads of each process, or auto: as many as there are processors to use, shared out among the processes.",
        manual: "`auto` counts the processors the server may run on and the CPU quota of its container, whichever is less, and divides \
            them by `--processes`; each process has at least one.",
        example: "2",
        elsewhere: &["io-threads", "runtime-threads"],
        set: |config, values| {
            config.reactors = reactors(values)?;
            Ok(())
        },
        show: |config| config.reactors.map_or("auto".to_owned(), |number| number.to_string()),
        ..FLAG
    },
    Flag {
        name: "queue",
        metavar: "REQUESTS",
        group: Group::Queue,
        kind: Kind::Number,
        default: "128, or the most workers there may be (--workers, --max-workers) if that is more",
        help: "Requests that may wait for a worker in each process; past it the one with the lowest priority is answered 504.",
        manual: "It is answered as soon as it has waited for 100 ms: a burst that the workers get through sooner costs nobody \
            anything. See [priorities](priorities.md).",
        example: "1000",
        elsewhere: &["backlog", "listen-queue", "queue-size", "max-queue"],
        set: |config, values| {
            config.queue = Some(values.whole(1, limits::QUEUE_REQUESTS_CEILING)?);
            Ok(())
        },
        show: |config| config.queue.map_or(String::new(), |queue| queue.to_string()),
        ..FLAG
    },
    Flag {
        name: "priority",
        metavar: "on|off",
        group: Group::Queue,
        help: "Which waiting request is next: the one with the highest priority, or (off) the oldest.",
        manual: "With priorities, requests of clients that ask for little go before those of clients that ask for much, and bots \
            wait until nothing else runs. See [priorities](priorities.md).",
        example: "off",
        elsewhere: &["priorities", "scheduling"],
        set: |config, values| {
            config.priority = values.choice(&[("on", true), ("off", false)])?;
            Ok(())
        },
        show: |config| if config.priority { "on" } else { "off" }.to_owned(),
        ..FLAG
    },
    Flag {
        name: "priority-prefix",
        metavar: "PREFIX=POINTS",
        group: Group::Queue,
        default: "none",
        help: "Points added to the priority of requests whose path begins with PREFIX, or taken off; repeatable.",
        manual: "The path is compared as it is after percent-decoding, and of several prefixes the longest counts. A prefix ends \
            where it ends: `/api` is also that of `/apiary`, `/api/` isn't. Points are whole numbers from -100000 to 100000; \
            every request begins with 1000. A prefix can't hold a comma.",
        example: "/api/=+500",
        separator: Some(','),
        elsewhere: &["heavy-prefix", "priority-path"],
        set: |config, values| {
            config.priority_prefixes = prefixes(values)?;
            Ok(())
        },
        show: |config| {
            joined(config.priority_prefixes.iter().map(|(prefix, points)| format!("{prefix}={points:+}")), ",")
        },
        ..FLAG
    },
    Flag {
        name: "priority-by-cost",
        group: Group::Queue,
        kind: Kind::Switch,
        help: "Let requests that have been cheap go before those that have been dear.",
        manual: "What a request will cost is estimated from the CPU time of earlier ones of the same route: method and first four \
            segments of the path, segments with digits in them taken as one. From 1 ms on each doubling takes 100 points off, \
            800 at most; for each quarter of a second that the request waits the most that is taken off shrinks by 100, so \
            nobody waits more than two seconds for being dear.",
        example: "true",
        elsewhere: &["priority-cost"],
        set: |config, values| {
            config.priority_by_cost = values.switch()?;
            Ok(())
        },
        show: |config| config.priority_by_cost.to_string(),
        ..FLAG
    },
    Flag {
        name: "shed",
        group: Group::Queue,
        kind: Kind::Switch,
        help: "When the workers can't keep up, answer 503 to what has waited too long, instead of letting everything wait.",
        manual: "It takes effect when the queue hasn't been empty for a second: from then on a request that has waited for half a \
            second is answered 503 with `Retry-After: 1`, until the workers have come to the end of the queue again.",
        example: "true",
        elsewhere: &["load-shedding", "codel"],
        set: |config, values| {
            config.shed = values.switch()?;
            Ok(())
        },
        show: |config| config.shed.to_string(),
        ..FLAG
    },
    Flag {
        name: "request-timeout",
        metavar: "SECONDS",
        group: Group::Timeouts,
        kind: Kind::Number,
        help: "How long a request may wait for a worker, and again how long it may run; past it, 504; 0: no limit.",
        manual: "A request that runs too long is interrupted by `hoopsnake.RequestTimeoutException`; a thread that this doesn't reach is \
            replaced. 0 switches all of it off, as in gunicorn and uWSGI.",
        example: "120",
        elsewhere: &["timeout", "harakiri"],
        set: |config, values| {
            config.request_timeout = values.seconds(Zero::Means(Config::NO_LIMIT))?;
            Ok(())
        },
        show: |config| match config.request_timeout {
            Config::NO_LIMIT => "0".to_owned(),
            duration => values::seconds_text(duration),
        },
        ..FLAG
    },
    Flag {
        name: "header-timeout",
        metavar: "SECONDS",
        group: Group::Timeouts,
        kind: Kind::Number,
        help: "How long a client may take to send the head of a request; past it, 408.",
        manual: "It can't be 0.",
        example: "10",
        set: |config, values| {
            config.header_timeout = values.seconds(NO_ZERO)?;
            Ok(())
        },
        show: |config| values::seconds_text(config.header_timeout),
        ..FLAG
    },
    Flag {
        name: "body-timeout",
        metavar: "SECONDS",
        group: Group::Timeouts,
        kind: Kind::Number,
        help: "How long a client may send nothing of a request body that isn't complete; past it, 408.",
        manual: "It counts anew with what arrives, so that a slow upload can finish. It can't be 0.",
        example: "30",
        set: |config, values| {
            config.body_timeout = values.seconds(NO_ZERO)?;
            Ok(())
        },
        show: |config| values::seconds_text(config.body_timeout),
        ..FLAG
    },
    Flag {
        name: "send-timeout",
        metavar: "SECONDS",
        group: Group::Timeouts,
        kind: Kind::Number,
        help: "How long a client may take nothing of a response; past it, the connection is closed.",
        manual: "It counts anew with what is taken, so that a slow download can finish. It can't be 0.",
        example: "30",
        set: |config, values| {
            config.send_timeout = values.seconds(NO_ZERO)?;
            Ok(())
        },
        show: |config| values::seconds_text(config.send_timeout),
        ..FLAG
    },
    Flag {
        name: "keep-alive",
        metavar: "SECONDS",
        group: Group::Timeouts,
        kind: Kind::Number,
        help: "How long a connection is kept for a next request; 0: it is closed after each response.",
        manual: "Behind a proxy that keeps connections itself, give more than the proxy does, so that it is never the server \
            that closes first.",
        example: "75",
        elsewhere: &["keepalive", "http-keepalive"],
        set: |config, values| {
            config.keep_alive = values.seconds(Zero::Means(Duration::ZERO))?;
            Ok(())
        },
        show: |config| values::seconds_text(config.keep_alive),
        ..FLAG
    },
    Flag {
        name: "start-timeout",
        metavar: "SECONDS",
        group: Group::Timeouts,
        kind: Kind::Number,
        help: "How long a process may take to load the application and to accept connections; past it, it is killed; 0: no limit.",
        manual: "When the server starts that ends it, with status 1. In a reload the processes that were there go on serving.",
        example: "300",
        set: |config, values| {
            config.start_timeout = values.seconds(Zero::Means(Config::NO_LIMIT))?;
            Ok(())
        },
        show: |config| match config.start_timeout {
            Config::NO_LIMIT => "0".to_owned(),
            limit => values::seconds_text(limit),
        },
        ..FLAG
    },
    Flag {
        name: "graceful-timeout",
        metavar: "SECONDS",
        group: Group::Timeouts,
        kind: Kind::Number,
        help: "How long requests may go on after the server, or a process that is replaced, was told to stop; 0: not at all.",
        manual: "A second signal ends the wait at once.",
        example: "10",
        elsewhere: &["shutdown-timeout", "worker-reload-mercy"],
        set: |config, values| {
            config.graceful_timeout = values.seconds(Zero::Means(Duration::ZERO))?;
            Ok(())
        },
        show: |config| values::seconds_text(config.graceful_timeout),
        ..FLAG
    },
    Flag {
        name: "background-timeout",
        metavar: "SECONDS",
        group: Group::Timeouts,
        kind: Kind::Number,
        help: "How long a cron job or timer may run; past it, RequestTimeoutException is raised in it; 0: no limit.",
        manual: "See [cron.md](cron.md).",
        example: "7200",
        set: |config, values| {
            config.background_timeout = values.seconds(Zero::Means(Config::NO_LIMIT))?;
            Ok(())
        },
        show: |config| match config.background_timeout {
            Config::NO_LIMIT => "0".to_owned(),
            duration => values::seconds_text(duration),
        },
        ..FLAG
    },
    Flag {
        name: "max-request-line",
        metavar: "BYTES",
        group: Group::Limits,
        kind: Kind::Number,
        help: "Longest request line, which holds the URL; past it, 414.",
        manual: "From 256 bytes to 1 MiB. It is part of the head, so it can't be more than `--max-header-bytes`; if only that \
            one is given and is smaller, this one follows it.",
        example: "8k",
        elsewhere: &["limit-request-line"],
        set: |config, values| {
            config.max_request_line = size(values, limits::REQUEST_LINE_BYTES_FLOOR, limits::HEAD_BYTES_CEILING)?;
            Ok(())
        },
        show: |config| values::bytes_text(config.max_request_line as u64),
        ..FLAG
    },
    Flag {
        name: "max-header-bytes",
        metavar: "BYTES",
        group: Group::Limits,
        kind: Kind::Number,
        help: "Largest head of a request, request line and all header fields together; past it, 431.",
        manual: "From 1 KiB to 1 MiB. Single sign-on cookies can be large.",
        example: "32k",
        elsewhere: &["buffer-size", "limit-request-field-size"],
        set: |config, values| {
            config.max_header_bytes = size(values, limits::HEAD_BYTES_FLOOR, limits::HEAD_BYTES_CEILING)?;
            Ok(())
        },
        show: |config| values::bytes_text(config.max_header_bytes as u64),
        ..FLAG
    },
    Flag {
        name: "max-headers",
        metavar: "N",
        group: Group::Limits,
        kind: Kind::Number,
        help: "Most header fields of a request; past it, 431.",
        manual: "From 1 to 1024.",
        example: "100",
        elsewhere: &["limit-request-fields"],
        set: |config, values| {
            config.max_headers = values.whole(1, limits::FIELDS_CEILING)?;
            Ok(())
        },
        show: |config| config.max_headers.to_string(),
        ..FLAG
    },
    Flag {
        name: "max-request-body",
        metavar: "BYTES",
        group: Group::Limits,
        kind: Kind::Number,
        help: "Largest request body; past it, 413.",
        manual: "From 1 byte to 16 TiB (16384g). Bodies above 1 MiB are kept in an unlinked temporary file until the \
            response is complete, so the disk must have room for as many as arrive at the same time.",
        example: "100m",
        elsewhere: &["limit-post", "client-max-body-size", "max-body"],
        set: |config, values| {
            config.max_request_body = values.bytes(1, limits::REQUEST_BODY_BYTES_CEILING)?;
            Ok(())
        },
        show: |config| values::bytes_text(config.max_request_body),
        ..FLAG
    },
    Flag {
        name: "header-underscores",
        group: Group::Limits,
        kind: Kind::Switch,
        help: "Let header fields with an underscore in their name through to the application.",
        manual: "Without it they are dropped, because WSGI can't tell `X_User` from `X-User`: a client could pass for a field \
            that only a proxy may set.",
        example: "true",
        elsewhere: &["underscores-in-headers", "header-map"],
        set: |config, values| {
            config.header_underscores = values.switch()?;
            Ok(())
        },
        show: |config| switch_text(config.header_underscores),
        ..FLAG
    },
    Flag {
        name: "static-map",
        metavar: "PREFIX=PATH",
        group: Group::Static,
        default: "none",
        help: "Serve files beneath PATH for URLs that begin with PREFIX, without the application; repeatable.",
        manual: "PATH is a folder or a single file. The maps are tried in the order given; a request that finds no file in any \
            of them, or isn't GET or HEAD, goes to the application. `/media` covers `/media/a` and not `/mediam`. Nothing \
            outside of PATH is served, symbolic links or not. Neither PREFIX nor PATH can hold a comma.",
        example: "/static=/srv/mysite/static",
        separator: Some(','),
        elsewhere: &["static", "check-static", "static-path-route", "static-path-mount", "offload"],
        set: |config, values| {
            config.static_map = statics::maps(values)?;
            Ok(())
        },
        show: |config| {
            joined(config.static_map.iter().map(|(prefix, path)| format!("{prefix}={}", path.display())), ",")
        },
        ..FLAG
    },
    Flag {
        name: "static-max-age",
        metavar: "SECONDS",
        group: Group::Static,
        kind: Kind::Number,
        help: "How long clients may keep a static file before they ask again.",
        manual: "Whole seconds, up to a year. It is sent as Cache-Control and Expires, unless `--static-header` says something \
            else about either.",
        example: "3600",
        elsewhere: &["static-path-expires", "static-expires", "static-expire"],
        set: |config, values| {
            config.static_max_age = values.whole(0, limits::TIMEOUT_S_MAX as usize)? as u64;
            Ok(())
        },
        show: |config| config.static_max_age.to_string(),
        ..FLAG
    },
    Flag {
        name: "static-index",
        metavar: "NAME",
        group: Group::Static,
        default: "none",
        help: "File to serve for a folder of a static map.",
        manual: "A URL that names the folder without a slash at its end is redirected to the one that has it. Folders are never \
            listed.",
        example: "index.html",
        elsewhere: &["static-path-dir-to-file", "index", "directory-index"],
        set: |config, values| {
            config.static_index = Some(statics::index(values)?);
            Ok(())
        },
        show: |config| config.static_index.clone().unwrap_or_default(),
        ..FLAG
    },
    Flag {
        name: "static-header",
        metavar: "NAME:VALUE",
        group: Group::Static,
        default: "none",
        help: "Header field to add to every static response; repeatable.",
        manual: "A Cache-Control or Expires takes the place of those that `--static-max-age` makes. Fields that describe the \
            file or the connection can't be set. A value can't hold a vertical bar.",
        example: "X-Content-Type-Options:nosniff",
        separator: Some('|'),
        elsewhere: &["add-header"],
        set: |config, values| {
            config.static_header = statics::headers(values)?;
            Ok(())
        },
        show: |config| joined(config.static_header.iter().map(|(name, value)| format!("{name}:{value}")), "|"),
        ..FLAG
    },
    Flag {
        name: "static-dotfiles",
        group: Group::Static,
        kind: Kind::Switch,
        help: "Serve static files whose name, or whose folder's name, begins with a dot.",
        manual: "Without it a `.git` or `.env` that was copied along stays private. The prefix and the path of a map aren't \
            looked at, so `--static-map /.well-known=/srv/acme` needs no switch.",
        example: "true",
        set: |config, values| {
            config.static_dotfiles = values.switch()?;
            Ok(())
        },
        show: |config| switch_text(config.static_dotfiles),
        ..FLAG
    },
    Flag {
        name: "sendfile-root",
        metavar: "PATH",
        group: Group::Static,
        default: "none",
        help: "Folder whose files the application may have sent by naming them in X-Sendfile; repeatable.",
        manual: "X-Sendfile names a file by its whole path, or by its path beneath a root. What lies outside of every root is \
            answered 404, and logged. Without a root X-Sendfile is passed on to the client. A path can't hold a colon.",
        example: "/srv/mysite/protected",
        separator: Some(':'),
        elsewhere: &["sendfile", "file-serve-mode", "x-sendfile-root"],
        set: |config, values| {
            config.sendfile_root = statics::roots(values)?;
            Ok(())
        },
        show: |config| joined(config.sendfile_root.iter().map(|path| path.display()), ":"),
        ..FLAG
    },
    Flag {
        name: "trusted-proxies",
        metavar: "NETWORKS",
        group: Group::Proxies,
        default: "loopback, link-local and private networks",
        help: "Peers whose X-Forwarded-For and X-Forwarded-Proto are believed: networks or addresses, or none; repeatable.",
        manual: "The client's address is then the rightmost one of X-Forwarded-For that isn't trusted itself. The default is \
            127.0.0.0/8, ::1, 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 169.254.0.0/16, fc00::/7 and fe80::/10. `none` \
            believes nobody. A list given replaces the default, it doesn't add to it.",
        example: "127.0.0.1,203.0.113.0/24",
        separator: Some(','),
        elsewhere: &["forwarded-allow-ips", "proxies", "set-real-ip-from"],
        set: |config, values| {
            config.trusted_proxies = networks(values)?;
            Ok(())
        },
        show: |config| match config.trusted_proxies.as_slice() {
            [] => "none".to_owned(),
            networks => joined(networks.iter(), ","),
        },
        ..FLAG
    },
    Flag {
        name: "max-age",
        metavar: "SECONDS",
        group: Group::Cache,
        kind: Kind::Number,
        help: "How long a response that allows it may be served from memory; 0: nothing is cached.",
        manual: "A ceiling: a response says itself, in Cache-Control or Expires, whether and how long it may be kept, and is kept \
            no longer than this. See the page on the cache.",
        example: "60",
        elsewhere: &["cache-max-age", "cache"],
        set: |config, values| {
            config.max_age = values.seconds(Zero::Means(Duration::ZERO))?;
            Ok(())
        },
        show: |config| values::seconds_text(config.max_age),
        ..FLAG
    },
    Flag {
        name: "cache-size",
        metavar: "BYTES",
        group: Group::Cache,
        kind: Kind::Number,
        help: "Memory for cached responses, for all processes together; past it the least recently used go; 0: nothing is cached.",
        manual: "What is kept beside the responses themselves counts too. Up to 16 TiB.",
        example: "256m",
        elsewhere: &["cache-bytes", "cache2"],
        set: |config, values| {
            config.cache_size = cache_size(values, 0)?;
            Ok(())
        },
        show: |config| values::bytes_text(config.cache_size as u64),
        ..FLAG
    },
    Flag {
        name: "cache-response-size",
        metavar: "BYTES",
        group: Group::Cache,
        kind: Kind::Number,
        help: "Largest response that is cached, head and body together.",
        manual: "A larger one is served as if there were no cache.",
        example: "5m",
        elsewhere: &["cache-max-response"],
        set: |config, values| {
            config.cache_response_size = cache_size(values, 1)?;
            Ok(())
        },
        show: |config| values::bytes_text(config.cache_response_size as u64),
        ..FLAG
    },
    Flag {
        name: "cache-status",
        group: Group::Cache,
        kind: Kind::Switch,
        help: "Say in every response, as Cache-Status and X-Cache, what the cache had to do with it.",
        manual: "X-Cache is HIT, MISS, STALE or BYPASS; Cache-Status says it as RFC 9211 has it. Nothing is added while nothing is \
            cached.",
        example: "true",
        elsewhere: &["x-cache"],
        set: |config, values| {
            config.cache_status = values.switch()?;
            Ok(())
        },
        show: |config| switch_text(config.cache_status),
        ..FLAG
    },
    Flag {
        name: "access-log",
        metavar: "off|-|PATH",
        group: Group::Logs,
        help: "One line for each response: off, - for standard output, or a file to append to.",
        manual: "A file called `off` is written `./off`.",
        example: "/var/log/mysite/access.log",
        elsewhere: &["access-logfile", "logto", "disable-logging"],
        set: |config, values| {
            config.access_log = match values.text() {
                Ok("off") => LogTarget::Off,
                _ => log_target(values)?,
            };
            Ok(())
        },
        show: |config| target_text(&config.access_log),
        ..FLAG
    },
    Flag {
        name: "error-log",
        metavar: "-|PATH",
        group: Group::Logs,
        help: "What the server has to say, tracebacks too: - for standard error, or a file to append to.",
        manual: "It can't be switched off; `--log-level error` makes it quiet.",
        example: "/var/log/mysite/error.log",
        elsewhere: &["error-logfile", "log-file"],
        set: |config, values| {
            config.error_log = match values.text() {
                Ok("off") => return Err("'off' isn't possible here: give --log-level error, or /dev/null".to_owned()),
                _ => log_target(values)?,
            };
            Ok(())
        },
        show: |config| target_text(&config.error_log),
        ..FLAG
    },
    Flag {
        name: "log-level",
        metavar: "LEVEL",
        group: Group::Logs,
        help: "How much the error log holds: error, warning, info or debug.",
        manual: "`error`: what stopped something. `warning`: and what an operator should look at. `info`: and start and stop. \
            `debug`: and the faults of clients.",
        example: "warning",
        elsewhere: &["loglevel", "level", "verbose", "l"],
        set: |config, values| {
            config.log_level = values.choice(LEVELS)?;
            Ok(())
        },
        show: |config| values::choice_text(LEVELS, config.log_level),
        ..FLAG
    },
    Flag {
        name: "pid",
        metavar: "FILE",
        group: Group::Housekeeping,
        default: "none",
        help: "File to write the process id into.",
        manual: "It holds the number of the process to send signals to, and is there from the time the addresses are bound. \
            The file is replaced whole, never written in place. One that a server left behind is replaced; if its process \
            still runs, the server doesn't start. It is removed at the end, unless another process has put its own there; \
            where `--user` may not remove it, it is emptied. It stays owned by the user who starts the server, since scripts \
            send signals to the number in it.",
        example: "/run/mysite/hoopsnake.pid",
        elsewhere: &["pidfile", "pid-file"],
        set: |config, values| {
            config.pid = Some(values.path()?);
            Ok(())
        },
        show: |config| config.pid.as_ref().map_or(String::new(), |path| path.display().to_string()),
        ..FLAG
    },
    Flag {
        name: "user",
        metavar: "USER",
        group: Group::Housekeeping,
        default: "the one who starts it",
        help: "User to run as, a name or a number.",
        manual: "The server must be started by root for that. Addresses are bound, log files made and the pid file written \
            first; then every process, the supervisor included, becomes that user for good, before the application is \
            loaded. Supplementary groups are those of the user, and `HOME`, `USER` and `LOGNAME` are set. Unix sockets and \
            the log files that the server makes are given to that user; existing log files must be writable for it. Under \
            systemd, `User=` does the same.",
        example: "www-data",
        elsewhere: &["uid", "u"],
        set: |config, values| {
            config.user = Some(account(values)?);
            Ok(())
        },
        show: |config| config.user.clone().unwrap_or_default(),
        ..FLAG
    },
    Flag {
        name: "group",
        metavar: "GROUP",
        group: Group::Housekeeping,
        default: "the user's own",
        help: "Group to run as, a name or a number.",
        manual: "With `--user` alone it is that user's own group. Needed for a user that is a number without an account.",
        example: "www-data",
        elsewhere: &["gid", "g"],
        set: |config, values| {
            config.group = Some(account(values)?);
            Ok(())
        },
        show: |config| config.group.clone().unwrap_or_default(),
        ..FLAG
    },
    Flag {
        name: "umask",
        metavar: "MASK",
        group: Group::Housekeeping,
        default: "the one it is started with",
        help: "Permissions that new files don't get, in octal.",
        manual: "It holds for everything: Unix sockets, log files, and the files that the application makes. `0o007`, `007` and \
            `7` are the same.",
        example: "0o007",
        set: |config, values| {
            config.umask = Some(umask(values)?);
            Ok(())
        },
        show: |config| config.umask.map_or(String::new(), |mask| format!("{mask:#05o}")),
        ..FLAG
    },
    Flag {
        name: "env",
        metavar: "NAME=VALUE",
        group: Group::Housekeeping,
        default: "none",
        help: "Environment variable for the application; repeatable.",
        manual: "It is set before the application is loaded, over what the environment says. Several in one text stand on a \
            line each. Flags aren't read from it.",
        example: "DJANGO_SETTINGS_MODULE=mysite.settings",
        separator: Some('\n'),
        elsewhere: &["e", "raw-env", "environment", "setenv"],
        set: |config, values| {
            config.env = variables(values)?;
            Ok(())
        },
        show: |config| {
            let lines = config
                .env
                .iter()
                .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()));
            joined(lines, "\n")
        },
        ..FLAG
    },
    Flag {
        name: "daemon",
        group: Group::Housekeeping,
        kind: Kind::Switch,
        help: "Run in the background, detached from the terminal.",
        manual: "The command returns when the server is ready, with exit status 0, or when it has failed, with the status and \
            the messages it would have had in the foreground. From then on standard output and standard error lead \
            nowhere, so name files for `--access-log` and `--error-log`. Under systemd or in a container, leave it out.",
        example: "true",
        elsewhere: &["daemonize", "d", "background"],
        set: |config, values| {
            config.daemon = values.switch()?;
            Ok(())
        },
        show: |config| switch_text(config.daemon),
        ..FLAG
    },
    Flag {
        name: "reload",
        group: Group::Housekeeping,
        kind: Kind::Switch,
        help: "Load the application anew when its files change; for development.",
        manual: "The folders of all imported modules are watched, those imported later too. A change loads the application \
            anew in new processes, and they take over when they are ready: no request fails. If the new code can't be \
            loaded, its traceback is printed, the old code goes on serving, and the next change is tried. While it is on, \
            Python writes no `.pyc` files.",
        example: "true",
        elsewhere: &["autoreload", "auto-reload", "py-autoreload", "python-autoreload", "watch"],
        set: |config, values| {
            config.reload = values.switch()?;
            Ok(())
        },
        show: |config| switch_text(config.reload),
        ..FLAG
    },
    Flag {
        name: "reload-extra",
        metavar: "PATH",
        group: Group::Housekeeping,
        default: "none",
        help: "File or folder that --reload watches too; repeatable.",
        manual: "It switches `--reload` on, unless `--reload=false` is given. Of a folder everything is watched, with the \
            folders in it; names that begin with a dot, editors' backups and `.pyc` files are left out. A path can't hold a colon.",
        example: "/srv/mysite/templates",
        separator: Some(':'),
        elsewhere: &["reload-extra-file", "reload-include", "touch-reload", "reload-paths"],
        set: |config, values| {
            config.reload_extra = values.paths();
            Ok(())
        },
        show: |config| joined(config.reload_extra.iter().map(|path| path.display()), ":"),
        ..FLAG
    },
    Flag {
        name: "config",
        metavar: "FILE",
        default: "none",
        help: "TOML file to read flags from.",
        manual: "A key is a flag's name, with dashes or underscores. The file can't name another one.",
        example: "/etc/hoopsnake/mysite.toml",
        in_file: false,
        elsewhere: &["toml", "config-file"],
        set: |config, values| {
            config.config_file = Some(values.path()?);
            Ok(())
        },
        show: |config| config.config_file.as_ref().map_or(String::new(), |path| path.display().to_string()),
        ..FLAG
    },
    Flag {
        name: "check",
        kind: Kind::Switch,
        help: "Load the application, print the configuration and where each value comes from, and exit.",
        manual: "Nothing is served. The exit status says whether the server would start.",
        example: "true",
        elsewhere: &["check-config", "test", "dry-run", "print-config"],
        set: |config, values| {
            config.check = values.switch()?;
            Ok(())
        },
        show: |config| switch_text(config.check),
        ..FLAG
    },
    Flag { name: "version", kind: Kind::Action, help: "Print the version and exit.", elsewhere: &["v"], ..FLAG },
    Flag { name: "help", kind: Kind::Action, help: "Print this and exit.", elsewhere: &["usage"], ..FLAG },
];

fn joined(items: impl Iterator<Item = impl ToString>, separator: &str) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(separator)
}

fn switch_text(on: bool) -> String {
    if on { "true".to_owned() } else { "false".to_owned() }
}

fn target_text(target: &LogTarget) -> String {
    match target {
        LogTarget::Off => "off".to_owned(),
        LogTarget::Standard => "-".to_owned(),
        LogTarget::File(path) => path.display().to_string(),
    }
}

fn log_target(values: Values<'_>) -> Result<LogTarget, String> {
    match values.one() == "-" {
        true => Ok(LogTarget::Standard),
        false => values.path().map(LogTarget::File),
    }
}

fn size(values: Values<'_>, least: usize, most: usize) -> Result<usize, String> {
    let bytes = values.bytes(least as u64, most as u64)?;
    usize::try_from(bytes).map_err(|_| format!("'{bytes}' is more than this machine can address"))
}

/// A user or a group: looked up when the server starts, not here.
fn account(values: Values<'_>) -> Result<String, String> {
    match values.text()? {
        "" => Err("'' is neither a name nor a number".to_owned()),
        text => Ok(text.to_owned()),
    }
}

fn umask(values: Values<'_>) -> Result<u32, String> {
    let text = values.text()?;
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let octal = !digits.is_empty() && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mask = octal.then(|| u32::from_str_radix(digits, 8).ok()).flatten().filter(|mask| *mask <= 0o777);
    mask.ok_or_else(|| {
        format!("{} isn't an octal number from 0 to 0o777, such as 0o022 or 007", values::shown(values.one()))
    })
}

fn variables(values: Values<'_>) -> Result<Vec<(OsString, OsString)>, String> {
    let split = |line: &OsStr| {
        let (name, value) = line
            .as_bytes()
            .iter()
            .position(|byte| *byte == b'=')
            .filter(|at| *at > 0)
            .map(|at| line.as_bytes().split_at(at))
            .ok_or_else(|| format!("{} isn't NAME=VALUE", values::shown(line)))?;
        Ok((OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(&value[1..]).to_owned()))
    };
    values.lines().into_iter().map(split).collect()
}

fn cache_size(values: Values<'_>, least: u64) -> Result<usize, String> {
    let bytes = values.bytes(least, limits::REQUEST_BODY_BYTES_CEILING)?;
    usize::try_from(bytes).map_err(|_| format!("'{bytes}' is more than this machine can address"))
}

fn reactors(values: Values<'_>) -> Result<Option<usize>, String> {
    if values.one() == "auto" {
        return Ok(None);
    }
    values.whole(1, limits::REACTORS_MAX).map(Some).map_err(|clause| format!("{clause}, nor auto"))
}

fn addresses(values: Values<'_>) -> Result<Vec<Address>, String> {
    let mut addresses: Vec<Address> = Vec::new();
    for word in values.words() {
        let address = Address::parse(word)?;
        if addresses.iter().any(|other| other.collides(&address)) {
            return Err(format!("{} is given twice: leave one out", values::shown(word)));
        }
        addresses.push(address);
    }
    match addresses.len() {
        0 => Err("'' is no address: write host:port, unix:/path or fd:N".to_owned()),
        1..=limits::LISTENERS_MAX => Ok(addresses),
        more => Err(format!("{more} addresses are more than the {} a process can listen on", limits::LISTENERS_MAX)),
    }
}

/// What paths begin with, and the points for that.
fn prefixes(values: Values<'_>) -> Result<Vec<(String, i32)>, String> {
    let most = limits::PRIORITY_PREFIX_POINTS_MAX;
    let read = |word: &std::ffi::OsStr| {
        let text = values::utf8(word)?;
        let (prefix, points) = text.rsplit_once('=').unwrap_or((text, ""));
        let digits = points.strip_prefix(['+', '-']).unwrap_or(points);
        let number = points.parse().ok().filter(|points: &i32| points.abs() <= most);
        match number.filter(|_| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())) {
            Some(points) if prefix.starts_with('/') => Ok((prefix.to_owned(), points)),
            Some(_) => Err(format!("{} doesn't begin with a slash: write /api=+500", values::shown(word))),
            None => Err(format!(
                "{} doesn't end in = and a number from -{most} to {most}: write /api=+500",
                values::shown(word)
            )),
        }
    };
    let prefixes = values.words().into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    match prefixes.len() > limits::PRIORITY_PREFIXES_MAX {
        true => Err(format!("{} prefixes are too many: {} at most", prefixes.len(), limits::PRIORITY_PREFIXES_MAX)),
        false => Ok(prefixes),
    }
}

fn networks(values: Values<'_>) -> Result<Vec<Network>, String> {
    let words = values.words();
    if words == ["none"] {
        return Ok(Vec::new());
    }
    if words.is_empty() {
        return Err("'' is no network: write none to believe nobody".to_owned());
    }
    if words.len() > limits::NETWORKS_MAX {
        return Err(format!("{} networks are more than the {} that fit", words.len(), limits::NETWORKS_MAX));
    }
    let read = |word| match values::utf8(word)? {
        "none" => Err("'none' can't stand beside a network: leave one out".to_owned()),
        text => Network::parse(text).map_err(|clause| format!("{} {clause}", values::shown(word))),
    };
    words.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_well_formed_and_single() {
        for (at, flag) in FLAGS.iter().enumerate() {
            assert!(flag.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", flag.name);
            assert!(flag.name.len() > 1, "{}: -x is nobody's name", flag.name);
            assert!(FLAGS[at + 1..].iter().all(|other| !other.answers_to(flag.name)), "{} twice", flag.name);
            assert!(flag.help.ends_with('.') && flag.help.matches(". ").count() == 0, "{}: one sentence", flag.name);
            assert_eq!(flag.metavar.is_empty(), !matches!(flag.kind, Kind::Text | Kind::Number), "{}", flag.name);
            for other in flag.elsewhere {
                assert!(find(other).is_none(), "{other} is a flag itself");
                assert_eq!(meant(other).unwrap().name, flag.name, "{other} means two flags");
            }
        }
    }

    /// What is shown can be given; so what `--check` prints, and the defaults in the manual, are true.
    #[test]
    fn every_default_and_example_reads_back() {
        for flag in FLAGS.iter().filter(|flag| flag.settable()) {
            let default = Config::default();
            let shown = (flag.show)(&default);
            if !shown.is_empty() {
                let mut config = Config::default();
                (flag.set)(&mut config, Values::new(&[OsString::from(&shown)])).unwrap();
                assert_eq!((flag.show)(&config), shown, "{}", flag.name);
                assert_eq!(config, default, "{}", flag.name);
            }
            let mut config = Config::default();
            (flag.set)(&mut config, Values::new(&[OsString::from(flag.example)])).unwrap();
            assert_eq!((flag.show)(&config), flag.example, "{}", flag.name);
        }
    }

    #[test]
    fn suggestions() {
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(meant(name).map(|flag| flag.name), expected, "{name}");
        };
        check("wrokers", Some("workers"));
        check("worker", Some("workers"));
        check("http_socket", Some("http-socket"));
        check("WORKERS", Some("workers"));
        check("bind", Some("http-socket"));
        check("timeout", Some("request-timeout"));
        check("body", Some("body-timeout"));
        check("proxy", None);
        check("x", None);
        check("", None);
        check("frobnicate", None);
        check(&"workers".repeat(1000), None);
    }

    #[test]
    fn distances() {
        for (one, other, expected) in [("", "abc", 3), ("abc", "abc", 0), ("abc", "acb", 1), ("kitten", "sitting", 3)] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
            assert_eq!(distance(other, one), expected, "{other} {one}");
        }
    }
}
