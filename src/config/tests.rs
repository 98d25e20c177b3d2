//! The way from arguments, environment and file to a configuration, as one.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use proptest::prelude::*;

use super::flags::{FLAGS, Flag, Kind};
use super::*;

/// Arguments (separated by blanks), variables, and the contents of the file that is found at any path.
fn read(arguments: &str, variables: &[(&str, &str)], file: &str) -> Result<Outcome, Error> {
    let arguments: Vec<OsString> = arguments.split_whitespace().map(OsString::from).collect();
    let variables: Vec<(OsString, OsString)> =
        variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
    from(&arguments, &variables, &|_| Ok(file.as_bytes().to_vec()))
}

fn config(arguments: &str, variables: &[(&str, &str)], file: &str) -> Config {
    match read(arguments, variables, file) {
        Ok(Outcome::Run(config, _)) => *config,
        other => panic!("{arguments} {variables:?} {file}: {other:?}"),
    }
}

fn error(arguments: &str, variables: &[(&str, &str)], file: &str) -> String {
    read(arguments, variables, file).expect_err("is wrong").sentence().to_owned()
}

type Holds = fn(&Config) -> bool;

/// A value of each flag that isn't its default, how TOML writes it, and the field it must end up in.
const EACH: &[(&str, &str, &str, Holds)] = &[
    ("module", "site:make(1)", "'site:make(1)'", |config| config.application == "site:make(1)"),
    ("chdir", "/srv", "'/srv'", |config| config.chdir == Some("/srv".into())),
    ("pythonpath", "/a:b", "['/a', 'b']", |config| config.pythonpath == [PathBuf::from("/a"), PathBuf::from("b")]),
    ("http-socket", "fd:3,unix:@x", "['fd:3', 'unix:@x']", |config| {
        config.http_socket == [Address::Descriptor(3), Address::Unix("@x".into())]
    }),
    ("workers", "8", "8", |config| config.workers == 8),
    ("max-workers", "99", "99", |config| config.max_workers == Some(99)),
    ("reactor", "epoll", "'epoll'", |config| config.reactor == ReactorChoice::Epoll),
    ("reactors", "2", "2", |config| config.reactors == Some(2)),
    ("queue", "500", "500", |config| config.queue_requests() == 500),
    ("priority", "off", "'off'", |config| !config.priority),
    ("priority-prefix", "/api=+500,/a=b=-7", "['/api=+500', '/a=b=-7']", |config| {
        config.priority_prefixes == [("/api".to_owned(), 500), ("/a=b".to_owned(), -7)]
    }),
    ("priority-by-cost", "true", "true", |config| config.priority_by_cost),
    ("shed", "true", "true", |config| config.shed),
    ("request-timeout", "0.5", "0.5", |config| config.request_timeout == Duration::from_millis(500)),
    ("header-timeout", "3", "3", |config| config.header_timeout == Duration::from_secs(3)),
    ("body-timeout", "4", "'4'", |config| config.body_timeout == Duration::from_secs(4)),
    ("send-timeout", "5", "+5", |config| config.send_timeout == Duration::from_secs(5)),
    ("keep-alive", "0", "0", |config| config.keep_alive == Duration::ZERO),
    ("graceful-timeout", "7", "7.0", |config| config.graceful_timeout == Duration::from_secs(7)),
    ("background-timeout", "8", "8", |config| config.background_timeout == Duration::from_secs(8)),
    ("max-request-line", "1k", "1_024", |config| config.max_request_line == 1024),
    ("max-header-bytes", "128K", "0x20000", |config| config.max_header_bytes == 128 * 1024),
    ("max-headers", "9", "9", |config| config.max_headers == 9),
    ("max-request-body", "2m", "'2m'", |config| config.max_request_body == 2 * 1024 * 1024),
    ("header-underscores", "true", "true", |config| config.header_underscores),
    ("trusted-proxies", "10.0.0.0/8,::1", "['10.0.0.0/8', '::1']", |config| {
        config.trusted_proxies == ["10.0.0.0/8", "::1"].map(|text| Network::parse(text).unwrap())
    }),
    ("access-log", "off", "'off'", |config| config.access_log == LogTarget::Off),
    ("error-log", "/var/e", "'/var/e'", |config| config.error_log == LogTarget::File("/var/e".into())),
    ("log-level", "debug", "'debug'", |config| config.log_level == LogLevel::Debug),
    ("static-map", "/a=/b", "['/a=/b']", |config| config.static_map == [("/a".to_owned(), "/b".into())]),
    ("static-max-age", "0", "0", |config| config.static_max_age == 0),
    ("static-index", "a.html", "'a.html'", |config| config.static_index.as_deref() == Some("a.html")),
    ("static-header", "X-A:b", "['X-A: b']", |config| config.static_header == [("X-A".to_owned(), "b".to_owned())]),
    ("static-dotfiles", "true", "true", |config| config.static_dotfiles),
    ("sendfile-root", "/a:/b", "['/a', '/b']", |config| config.sendfile_root == ["/a", "/b"].map(PathBuf::from)),
    ("check", "true", "true", |config| config.check),
    ("pid", "/run/x.pid", "'/run/x.pid'", |config| config.pid == Some("/run/x.pid".into())),
    ("user", "www-data", "'www-data'", |config| config.user.as_deref() == Some("www-data")),
    ("group", "33", "'33'", |config| config.group.as_deref() == Some("33")),
    ("umask", "027", "'0o27'", |config| config.umask == Some(0o27)),
    ("env", "A=b=c,:", "['A=b=c,:']", |config| config.env == [("A".into(), "b=c,:".into())]),
    ("daemon", "true", "true", |config| config.daemon),
    ("reload", "true", "true", |config| config.reload),
    ("reload-extra", "/a:b", "['/a', 'b']", |config| config.reload_extra == [PathBuf::from("/a"), PathBuf::from("b")]),
    ("processes", "4", "4", |config| config.processes == 4),
    ("no-supervisor", "true", "true", |config| !config.supervisor),
    ("process", "3", "3", |config| config.process == 3 && !config.supervisor),
    ("preload", "true", "true", |config| config.preload),
    ("max-requests", "500", "500", |config| config.max_requests == 500),
    ("max-requests-jitter", "50", "50", |config| config.max_requests_jitter == 50),
    ("max-worker-lifetime", "1.5", "1.5", |config| config.max_worker_lifetime == Duration::from_millis(1500)),
    ("max-rss", "500m", "\"500m\"", |config| config.max_rss == 500 << 20),
    ("max-age", "90.5", "90.5", |config| config.max_age == Duration::from_millis(90_500)),
    ("cache-size", "8m", "\"8m\"", |config| config.cache_size == 8 << 20),
    ("cache-response-size", "2m", "\"2m\"", |config| config.cache_response_size == 2 << 20),
    ("cache-status", "true", "true", |config| config.cache_status),
    ("start-timeout", "0", "0", |config| config.start_timeout == Config::NO_LIMIT),
];

#[test]
fn paths_to_watch_switch_watching_on() {
    assert!(config("--reload-extra x", &[], "").reload);
    assert!(!config("--reload-extra x --reload=false", &[], "").reload);
    for (other, named) in
        [("--preload", "--preload"), ("--no-supervisor", "--no-supervisor"), ("--process 1", "--process")]
    {
        let sentence = error(&format!("--reload {other}"), &[], "");
        assert!(sentence.starts_with("--reload (command line): 'true' ") && sentence.contains(named), "{sentence}");
    }
    assert!(!config("", &[("HOOPSNAKE_RELOAD", "off"), ("HOOPSNAKE_RELOAD_EXTRA", "x")], "").reload);
}

#[test]
fn variables_of_the_application() {
    let found = config("--env A=1 --env B= --env A=2", &[], "");
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    };
    assert_eq!(found.env, pairs(&[("A", "1"), ("B", ""), ("A", "2")]));
    assert_eq!(config("", &[("HOOPSNAKE_ENV", "A=1\nB=2 3\n")], "").env, pairs(&[("A", "1"), ("B", "2 3")]));
    assert_eq!(config("--config x", &[], "env = ['A=1', 'B=2']").env, pairs(&[("A", "1"), ("B", "2")]));
    for wrong in ["A", "=1", "="] {
        assert_eq!(
            error(&format!("--env {wrong}"), &[], ""),
            format!("--env (command line): '{wrong}' isn't NAME=VALUE.")
        );
    }
}

#[test]
fn umasks_are_octal() {
    for (text, mask) in [("0", 0), ("7", 7), ("022", 0o22), ("0o022", 0o22), ("777", 0o777)] {
        assert_eq!(config(&format!("--umask {text}"), &[], "").umask, Some(mask), "{text}");
    }
    for wrong in ["8", "018", "0x12", "1000", "0o", "-1", "+7", "u=rwx", "77777777777777777777"] {
        let sentence = error(&format!("--umask={wrong}"), &[], "");
        assert_eq!(
            sentence,
            format!("--umask (command line): '{wrong}' isn't an octal number from 0 to 0o777, such as 0o022 or 007.")
        );
    }
    assert!(error("--config x", &[], "umask = 0o22").contains("it must be a string, in quotes"));
    assert!(error("--user=", &[], "").contains("'' is neither a name nor a number"));
}

#[test]
fn every_flag_in_every_form() {
    for (name, value, toml, holds) in EACH {
        let variable = flags::find(name).unwrap().variable();
        assert!(!holds(&config("", &[], "")), "{name}: {value} is the default");
        for dashes in ["-", "--"] {
            assert!(holds(&config(&format!("{dashes}{name}={value}"), &[], "")), "{dashes}{name}={value}");
            let spaced = match flags::find(name).unwrap().kind {
                Kind::Switch => format!("{dashes}{name}"),
                _ => format!("{dashes}{name} {value}"),
            };
            let found = config(&spaced, &[], "");
            assert!(holds(&found), "{spaced}");
            assert_eq!(*found.origin(name), Origin::CommandLine);
        }
        let found = config("", &[(&variable, value)], "");
        assert!(holds(&found), "{variable}");
        assert_eq!(*found.origin(name), Origin::Environment(variable.clone()));
        for key in [(*name).to_owned(), name.replace('-', "_")] {
            let found = config("--config x", &[], &format!("\n{key} = {toml}"));
            assert!(holds(&found), "{key} = {toml}");
            assert_eq!(*found.origin(name), Origin::File("x".into(), 2));
        }
    }
}

/// The three that have no value but their default, or aren't values, have tests of their own below.
#[test]
fn no_flag_is_forgotten() {
    let apart = ["config", "version", "help"];
    for flag in FLAGS {
        let tested = EACH.iter().any(|(name, ..)| *name == flag.name);
        assert!(tested != apart.contains(&flag.name), "{}", flag.name);
    }
}

#[test]
fn the_queue_has_room_for_every_worker() {
    assert_eq!(config("", &[], "").queue_requests(), 128);
    assert_eq!(config("--workers 1000", &[], "").queue_requests(), 1000);
    assert_eq!(config("--workers 16 --max-workers 1024", &[], "").queue_requests(), 1024);
    assert_eq!(config("--workers 1000 --queue 5", &[], "").queue_requests(), 5);
}

#[test]
fn prefixes_that_are_none() {
    for wrong in ["/api", "/api=", "/api=+", "/api=x", "/api=+-5", "/api=1.5", "/api=100001", "/api=99999999999"] {
        let sentence = error(&format!("--priority-prefix {wrong}"), &[], "");
        assert!(
            sentence.contains("doesn't end in = and a number from -100000 to 100000: write /api=+500"),
            "{sentence}"
        );
    }
    for wrong in ["api=5", "=5"] {
        let sentence = error(&format!("--priority-prefix {wrong}"), &[], "");
        assert!(sentence.contains("doesn't begin with a slash: write /api=+500"), "{sentence}");
    }
    let many = vec!["/a=1"; limits::PRIORITY_PREFIXES_MAX + 1].join(",");
    assert!(error(&format!("--priority-prefix {many}"), &[], "").contains("257 prefixes are too many: 256 at most"));
    assert!(error("--priority maybe", &[], "").contains("isn't one of on, off"));
    assert!(error("--queue 0", &[], "").contains("isn't a whole number from 1 to 262144"));
}

#[test]
fn without_a_supervisor_there_is_one_process_and_nobody_replaces_it() {
    assert!(config("--processes 4", &[], "").supervisor);
    assert!(!config("--processes 4 --process 2", &[], "").supervisor);
    assert_eq!(
        error("--no-supervisor --processes 4", &[], ""),
        "--processes (command line): '4' needs the supervisor, and --no-supervisor switches it off: leave one of them out."
    );
    for flag in ["preload", "max-requests=5", "max-requests-jitter=5", "max-worker-lifetime=5", "max-rss=1g"] {
        let sentence = error(&format!("--no-supervisor --{flag}"), &[], "");
        assert!(sentence.contains("needs the supervisor"), "{sentence}");
    }
    assert_eq!(error("", &[("HOOPSNAKE_PROCESSES", "0")], "").matches("whole number from 1").count(), 1);
}

#[test]
fn the_file_is_the_one_that_is_named() {
    for (arguments, variables) in [("--config a.toml", None), ("", Some("a.toml")), ("-config=a.toml", Some("b.toml"))]
    {
        let arguments: Vec<OsString> = arguments.split_whitespace().map(OsString::from).collect();
        let variables: Vec<_> = variables.map(|path| ("HOOPSNAKE_CONFIG".into(), path.into())).into_iter().collect();
        let outcome = from(&arguments, &variables, &|path| {
            assert_eq!(path, Path::new("a.toml"));
            Ok(b"workers = 3".to_vec())
        });
        let Ok(Outcome::Run(config, _)) = outcome else { panic!("{outcome:?}") };
        assert_eq!((config.workers, config.config_file), (3, Some("a.toml".into())));
    }
    let missing = from(&["--config=no".into()], &[], &|_| Err(io::ErrorKind::NotFound.into())).unwrap_err();
    assert_eq!(
        missing.sentence(),
        "--config (command line): 'no' can't be read: entity not found; check its path and permissions."
    );
}

#[test]
fn help_and_version_come_before_everything_else() {
    for arguments in ["-h", "--help", "-help", "--bogus --help", "a b -h", "--workers 8 -h"] {
        assert!(matches!(read(arguments, &[], ""), Ok(Outcome::Print(text)) if text == help()), "{arguments}");
    }
    for arguments in ["--version", "-version", "--bogus --version"] {
        assert!(matches!(read(arguments, &[], ""), Ok(Outcome::Print(text)) if text == version()), "{arguments}");
    }
    assert!(read("--chdir -h", &[], "").is_ok(), "a value isn't a flag");
}

#[test]
fn the_command_line_wins_over_the_environment_over_the_file() {
    let variables = [("HOOPSNAKE_WORKERS", "2"), ("HOOPSNAKE_MAX_HEADERS", "22")];
    let file = "workers = 3\nmax-headers = 33\nkeep-alive = 44";
    let found = config("--config x --workers 1", &variables, file);
    assert_eq!((found.workers, found.max_headers, found.keep_alive.as_secs()), (1, 22, 44));
    assert_eq!(found.origin("keep-alive").to_string(), "x, line 3");
}

#[test]
fn a_higher_layer_replaces_a_list() {
    let file = "http-socket = [':1', ':2']";
    let ports = |found: Config| found.http_socket.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(ports(config("--config x", &[], file)), [":1", ":2"]);
    assert_eq!(ports(config("--config x --http-socket :3 -http-socket=:4", &[], file)), [":3", ":4"]);
    assert_eq!(ports(config("--config x", &[("HOOPSNAKE_HTTP_SOCKET", ":5, :6")], file)), [":5", ":6"]);
}

#[test]
fn the_application_has_two_names() {
    assert_eq!(config("mysite.wsgi", &[], "").application, "mysite.wsgi");
    assert_eq!(config("--workers 2 mysite.wsgi --check", &[], "").application, "mysite.wsgi");
    assert_eq!(config("--check mysite.wsgi", &[], "").application, "mysite.wsgi");
    assert_eq!(config("", &[("HOOPSNAKE_APPLICATION", "a:b")], "").application, "a:b");
    assert_eq!(config("--config x", &[], "application = 'a:b'").application, "a:b");
    assert_eq!(config("a", &[("HOOPSNAKE_MODULE", "b")], "").application, "a");
    assert_eq!(
        error("--module a b", &[], ""),
        "APPLICATION (command line): --module is given too and says the same: leave one out."
    );
    assert!(error("", &[("HOOPSNAKE_MODULE", "a"), ("HOOPSNAKE_APPLICATION", "b")], "").contains("leave one out"));
    assert!(error("--config x", &[], "module = 'a'\napplication = 'b'").contains("application (x, line 2)"));
}

#[test]
fn switches_can_be_switched_off_again() {
    let variables = [("HOOPSNAKE_HEADER_UNDERSCORES", "1")];
    assert!(config("", &variables, "").header_underscores);
    assert!(!config("--header-underscores=false", &variables, "").header_underscores);
    assert!(!config("", &[("HOOPSNAKE_CHECK", "off")], "").check);
    assert!(error("--check=maybe", &[], "").contains("'maybe' is neither true nor false"));
}

#[test]
fn of_a_flag_given_twice_the_last_counts() {
    assert_eq!(config("--workers 1 -workers=2 --check --check", &[], "").workers, 2);
}

#[test]
fn zero_is_what_an_operator_expects() {
    assert_eq!(config("--request-timeout 0", &[], "").request_timeout, Config::NO_LIMIT);
    assert_eq!(config("--background-timeout 0", &[], "").background_timeout, Config::NO_LIMIT);
    assert_eq!(config("--keep-alive 0.0", &[], "").keep_alive, Duration::ZERO);
    assert_eq!(config("--graceful-timeout 0", &[], "").graceful_timeout, Duration::ZERO);
    for flag in ["header-timeout", "body-timeout", "send-timeout"] {
        assert!(error(&format!("--{flag} 0"), &[], "").contains("for ever: give a number of seconds"), "{flag}");
    }
    for flag in ["workers", "reactors", "max-headers", "max-request-line", "max-header-bytes", "max-request-body"] {
        assert!(error(&format!("--{flag}=0"), &[], "").contains("'0' isn't a"), "{flag}");
    }
}

/// The whole sentence, for each kind of mistake on the command line.
#[test]
fn mistakes_on_the_command_line() {
    let check = |arguments: &str, expected: &str| {
        let error = read(arguments, &[], "").expect_err(arguments);
        assert_eq!(error.sentence(), expected);
        assert_eq!(error.to_string(), format!("{expected}\nTry 'hoopsnake --help'."));
    };
    check("--wrokers 8", "'--wrokers' (command line): there is no such flag; did you mean --workers?");
    check(
        "-w 8",
        "'-w' (command line): there is no such flag; gunicorn's workers are processes, --processes; --workers counts the threads of each.",
    );
    check(
        "-w8",
        "'-w8' (command line): there is no such flag; gunicorn's workers are processes, --processes; --workers counts the threads of each.",
    );
    check("-b:8000", "'-b:8000' (command line): there is no such flag; did you mean --http-socket?");
    check("--Threads=8", "'--Threads' (command line): there is no such flag; did you mean --workers?");
    check("--master", "'--master' (command line): there is no such flag; leave it out: it is always so.");
    check(
        "--certfile cert.pem",
        "'--certfile' (command line): there is no such flag; there is no TLS; put a proxy such as nginx in front (docs/deployment.md).",
    );
    check("-bind=:80", "'-bind' (command line): there is no such flag; did you mean --http-socket?");
    check(
        "--frobnicate",
        "'--frobnicate' (command line): there is no such flag; hoopsnake --help lists those there are.",
    );
    check("---workers=8", "'---workers' (command line): there is no such flag; did you mean --workers?");
    check("a b", "'b' (command line): there is one application already, so leave this argument out.");
    check("a -", "'-' (command line): there is one application already, so leave this argument out.");
    check("a -- b", "-- (command line): nothing is handed on to the application, so leave it and what follows out.");
    check("--", "-- (command line): nothing is handed on to the application, so leave it and what follows out.");
    check("--workers", "--workers (command line): its value is missing: write --workers N.");
    check("--chdir --workers 8", "--chdir (command line): its value is missing: write --chdir DIRECTORY.");
    check("--workers lots", "--workers (command line): 'lots' isn't a whole number from 1 to 4096.");
    check("--workers -1", "--workers (command line): '-1' isn't a whole number from 1 to 4096.");
    check("--workers=", "--workers (command line): '' isn't a whole number from 1 to 4096.");
    check("--reactors 257", "--reactors (command line): '257' isn't a whole number from 1 to 256, nor auto.");
    check(
        "--reactor rign",
        "--reactor (command line): 'rign' isn't one of auto, ring, epoll, tokio-uring; the nearest is ring.",
    );
    check("--http-socket :80 --http-socket 80", "--http-socket (command line): '80' is given twice: leave one out.");
    check("--http-socket=", "--http-socket (command line): '' is no address: write host:port, unix:/path or fd:N.");
    check(
        "--http-socket localhost",
        "--http-socket (command line): 'localhost' names no port: write host:port or :port.",
    );
    check("--chdir=", "--chdir (command line): '' isn't a path.");
    check(
        "--error-log off",
        "--error-log (command line): 'off' isn't possible here: give --log-level error, or /dev/null.",
    );
    check(
        "--trusted-proxies none,::1",
        "--trusted-proxies (command line): 'none' can't stand beside a network: leave one out.",
    );
    check("--trusted-proxies=", "--trusted-proxies (command line): '' is no network: write none to believe nobody.");
    check(
        "--max-header-bytes=2m",
        "--max-header-bytes (command line): '2m' isn't a number of bytes from 1k to 1m, such as 65536, 64k, 10m or 1g.",
    );
    check(
        "mysite/wsgi.py",
        "APPLICATION (command line): 'mysite/wsgi.py' is a file: give the dotted name of the module, such as 'mysite.wsgi'.",
    );
}

#[test]
fn mistakes_in_the_environment() {
    assert_eq!(
        error("", &[("HOOPSNAKE_WORKERS", "lots")], ""),
        "--workers (environment variable HOOPSNAKE_WORKERS): 'lots' isn't a whole number from 1 to 4096."
    );
    let wrong = read("", &[("HOOPSNAKE_WORKERS", "lots")], "").unwrap_err();
    assert!(!wrong.to_string().contains("--help"), "the command line isn't at fault");
}

#[test]
fn unknown_variables_are_warned_of() {
    let warnings = |name: &str, value: &str| match read("", &[(name, value)], "") {
        Ok(Outcome::Run(_, warnings)) => warnings,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        warnings("HOOPSNAKE_WROKERS", "8"),
        [
            "'HOOPSNAKE_WROKERS' (environment): no flag has this variable, so it is ignored; did you mean HOOPSNAKE_WORKERS?"
        ]
    );
    assert_eq!(warnings("HOOPSNAKE_workers", "8").len(), 1);
    assert_eq!(warnings("HOOPSNAKE_", "8").len(), 1);
    assert_eq!(warnings("HOOPSNAKE_VERSION", "1.2").len(), 0);
    assert_eq!(warnings("HOOPSNAKE_HELP", "1").len(), 0);
    assert_eq!(warnings("HOOPSNAKE_WORKERS", "").len(), 0, "empty is not given");
    assert_eq!(warnings("WORKERS", "8").len(), 0);
}

#[test]
fn mistakes_in_the_file() {
    let check = |file: &str, expected: &str| assert_eq!(error("--config my.toml", &[], file), expected, "{file}");
    check("\nwrokers = 8", "'wrokers' (my.toml, line 2): there is no such key; did you mean workers?");
    check("bind = ':80'", "'bind' (my.toml, line 1): there is no such key; did you mean http-socket?");
    check(
        "[server]\nworkers = 8",
        "'server' (my.toml, line 1): there is no such key; hoopsnake --help lists the flags, and keys are called as they are.",
    );
    check("workers = 'lots'", "workers (my.toml, line 1): 'lots' isn't a whole number from 1 to 4096.");
    check("workers = -1", "workers (my.toml, line 1): '-1' isn't a whole number from 1 to 4096.");
    check("workers = true", "workers (my.toml, line 1): it must be a number, or a string that holds one.");
    check("workers = [8]", "workers (my.toml, line 1): it takes one value, not an array.");
    check("http-socket = [8000]", "http-socket (my.toml, line 1): it must be a string, in quotes.");
    check("check = 1", "check (my.toml, line 1): it must be true or false.");
    check("chdir = false", "chdir (my.toml, line 1): it must be a string, in quotes.");
    check("chdir = \"a\\u0000b\"", "chdir (my.toml, line 1): 'a\\0b' holds a NUL byte.");
    check("config = 'x'", "'config' (my.toml, line 1): this can't be given in a file, so give it on the command line.");
    check("help = true", "'help' (my.toml, line 1): this can't be given in a file, so give it on the command line.");
    check(
        "max-headers = 1\nmax_headers = 2",
        "max_headers (my.toml, line 2): max-headers is given too and says the same: leave one out.",
    );
    assert!(
        error("--config my.toml", &[], "workers = 1\nworkers =")
            .starts_with("my.toml, line 2 (--config): it isn't TOML")
    );
    let large = "#".repeat(limits::CONFIG_FILE_BYTES_MAX + 1);
    assert!(error("--config my.toml", &[], &large).contains("larger than 1048576 bytes"));
    assert!(file::file(Path::new("x"), b"\xff").is_err_and(|error| error.sentence().contains("isn't UTF-8")));
    assert_eq!(config("--config x", &[], "\u{feff}workers = 3").workers, 3);
    assert!(config("--config x", &[], "pythonpath = []\n# nothing").pythonpath.is_empty());
}

#[test]
fn a_pool_grows_and_does_not_begin_above_its_most() {
    assert_eq!(config("--workers 8 --max-workers 8", &[], "").max_workers, Some(8));
    assert_eq!(
        error("--max-workers 8", &[], ""),
        "--max-workers (command line): '8' is less than --workers, which is 16 (default): raise the one or lower the other."
    );
}

#[test]
fn the_request_line_is_part_of_the_head() {
    let found = config("--max-header-bytes 8k", &[], "");
    assert_eq!((found.max_request_line, found.max_header_bytes), (8192, 8192));
    assert_eq!(config("--max-request-line 128k --max-header-bytes 256k", &[], "").max_request_line, 128 * 1024);
    assert_eq!(
        error("--max-request-line 128k", &[], ""),
        "--max-request-line (command line): '128k' is more than --max-header-bytes, which is 64k (default) and holds the \
         request line too: raise that one as well."
    );
}

#[test]
fn what_check_prints() {
    let found =
        config("--config my.toml --workers 8 --request-timeout 0", &[("HOOPSNAKE_CHECK", "1")], "chdir = '/srv'");
    let text = found.describe();
    let lines: Vec<&str> = text.lines().collect();
    let line = |flag: &str| *lines.iter().find(|line| line.split(' ').next() == Some(flag)).unwrap();
    let squeezed = |flag: &str| line(flag).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(squeezed("workers"), "workers = 8 (command line)");
    assert_eq!(squeezed("request-timeout"), "request-timeout = 0 (command line)");
    assert_eq!(squeezed("chdir"), "chdir = /srv (my.toml, line 1)");
    assert_eq!(squeezed("check"), "check = true (environment variable HOOPSNAKE_CHECK)");
    assert_eq!(squeezed("max-request-body"), "max-request-body = 1g (default)");
    assert_eq!(squeezed("pythonpath"), "pythonpath = none (default)");
    assert_eq!(lines.len(), FLAGS.iter().filter(|flag| flag.settable()).count());
    assert_eq!(line("workers").find('('), line("chdir").find('('), "aligned");
}

#[test]
fn bytes_that_are_not_utf8_are_values_or_sentences() {
    let path = OsString::from_vec(b"--chdir=/srv/\xff".to_vec());
    let Ok(Outcome::Run(config, _)) = from(&[path], &[], &|_| Ok(Vec::new())) else { panic!() };
    assert_eq!(config.chdir.unwrap().as_os_str().as_bytes(), b"/srv/\xff");
    for wrong in [&b"--workers=\xff"[..], b"--\xff", b"-\xff=1", b"\xff", b"--access-log-\xff"] {
        let error = from(&[OsStr::from_bytes(wrong).into()], &[], &|_| Ok(Vec::new())).unwrap_err();
        assert!(error.sentence().contains('\u{fffd}') || error.sentence().contains("UTF-8"), "{error}");
        assert!(error.sentence().contains("command line"), "{error}");
    }
}

fn flag_name() -> impl Strategy<Value = String> {
    prop::sample::select(FLAGS.iter().map(|flag: &Flag| flag.name.to_owned()).collect::<Vec<_>>())
}

/// Anything, and things that look like arguments.
fn argument() -> impl Strategy<Value = OsString> {
    let value = prop_oneof!["[-0-9a-z:./@,=%\\[\\]]{0,12}", "[0-9.]{1,20}[kmg]?", any::<String>()];
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..24).prop_map(OsString::from_vec),
        ("-{0,3}", flag_name()).prop_map(|(dashes, name)| (dashes + &name).into()),
        ("--?", flag_name(), value.clone()).prop_map(|(dashes, name, value)| format!("{dashes}{name}={value}").into()),
        value.prop_map(OsString::from),
    ]
}

proptest! {
    #[test]
    fn no_arguments_panic(arguments in prop::collection::vec(argument(), 0..8)) {
        match from(&arguments, &[], &|_| Ok(b"workers = 2".to_vec())) {
            Ok(Outcome::Run(config, _)) => prop_assert!(!config.describe().is_empty()),
            Ok(Outcome::Print(text)) => prop_assert!(!text.is_empty()),
            Err(error) => prop_assert_eq!(error.sentence().lines().count(), 1),
        }
    }

    #[test]
    fn no_environment_panics(name in any::<String>(), flag in flag_name(), value in any::<Vec<u8>>()) {
        let value = OsString::from_vec(value);
        let variables = [
            (flags::variable(&flag).into(), value.clone()),
            (format!("HOOPSNAKE_{name}").into(), value),
        ];
        if let Err(error) = from(&[], &variables, &|_| Ok(Vec::new())) {
            prop_assert_eq!(error.sentence().lines().count(), 1);
        }
    }

    #[test]
    fn no_file_panics(
        key in flag_name(), value in "[\\[\\]'\"0-9a-z.,:= \n-]{0,20}", rest in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let contents = [format!("{key} = {value}\n").as_bytes(), &rest].concat();
        if let Err(error) = from(&["--config=x".into()], &[], &|_| Ok(contents.clone())) {
            prop_assert_eq!(error.sentence().lines().count(), 1);
        }
    }
}
