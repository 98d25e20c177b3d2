//! Promise: a supervisor keeps as many processes serving as were asked for, whatever happens to them, and none outlives it.

use std::net::TcpStream;

use crate::support::server::{Start, signal};
use crate::support::{Driver, Folder, PATIENCE, Server, eventually};

/// A server of the application that does at import what `scene` says.
fn staged(driver: Driver, folder: &Folder, scene: &str, flags: &[&str]) -> Start {
    let stage = folder.file("stage.py", scene.as_bytes()).display().to_string();
    driver.server().application("staged").environment("STAGE", &stage).flags(flags)
}

fn plain(driver: Driver, flags: &[&str]) -> Server {
    driver.server().application("staged").flags(flags).start()
}

/// Sends a request whose process doesn't live to answer it.
fn send_and_forget(server: &Server, target: &str) {
    let mut client = server.connect();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
    client.expect_closed();
}

fn says(server: &Server, needle: &str) -> String {
    server
        .stderr
        .wait_for(needle, PATIENCE)
        .unwrap_or_else(|| panic!("{needle:?} didn't come: {}", server.stderr.text()))
}

/// Waits until this many processes serve, none of them one of `without`.
fn serving(server: &Server, count: usize, without: &[u32]) -> Vec<u32> {
    eventually(&format!("{count} processes serve"), || {
        let serving = server.serving();
        (serving.len() == count && serving.iter().all(|pid| !without.contains(pid) && *pid != server.pid()))
            .then_some(serving)
    })
}

on_every_driver! {
    /// As many as were asked for, each with its number in the access log; the supervisor itself serves nothing.
    fn several_processes(driver: Driver) {
        let flags = ["--processes", "3", "--access-log", "-"];
        let server = plain(driver, &flags);
        let pids = serving(&server, 3, &[]);
        assert!(server.stderr.text().contains("in 3 processes"), "{}", server.stderr.text());
        assert_eq!(server.stderr.all().len(), 5, "the start-up block is five lines: {}", server.stderr.text());
        for _ in 0..30 {
            let pid: u32 = server.get("/pid").parse().expect("a number");
            assert!(pids.contains(&pid), "{pid} isn't one of {pids:?}");
        }
        assert_eq!(server.get("/multiprocess"), "True");
        server.stdout.wait_for("GET /multiprocess", PATIENCE).expect("the access log is written");
        for line in server.stdout.all() {
            let number = line.split([' ', ':']).nth(1).expect("the process's number");
            assert!(["1", "2", "3"].contains(&number), "{line}");
        }
        server.stop();
        for pid in pids {
            assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid} is left");
        }
    }

    /// Without a supervisor there is one process, the one that was started.
    fn no_supervisor(driver: Driver) {
        let server = plain(driver, &["--no-supervisor"]);
        assert_eq!(server.get("/pid"), server.pid().to_string());
        assert_eq!(server.get("/multiprocess"), "False");
        server.stop();
        let server = plain(driver, &["--process", "7", "--access-log", "-"]);
        assert_eq!(server.get("/pid"), server.pid().to_string());
        assert!(server.stdout.wait_for(" 7:1 ", PATIENCE).is_some());
        server.stop();
    }

    /// A process that dies is started again, and the others go on.
    fn death_of_a_process(driver: Driver) {
        let server = plain(driver, &["--processes", "2"]);
        for (request, word) in [
            ("/signal?SIGSEGV", "was killed by SIGSEGV"),
            ("/exit?0", "exited with status 0"),
            ("/exit?3", "exited with status 3"),
            ("/signal?SIGKILL", "was killed by SIGKILL"),
        ] {
            let before = serving(&server, 2, &[]);
            send_and_forget(&server, request);
            says(&server, word);
            eventually("another process serves", || {
                let now = server.serving();
                (now.len() == 2 && now != before).then_some(())
            });
            assert_eq!(server.get("/"), "served");
        }
        server.stop();
    }

    /// One process alone is started again as well; who comes meanwhile waits and is served.
    fn death_of_the_only_process(driver: Driver) {
        let server = plain(driver, &[]);
        let before: u32 = server.get("/pid").parse().expect("a number");
        send_and_forget(&server, "/signal?SIGSEGV");
        let now: u32 = server.get("/pid").parse().expect("a number");
        assert_ne!(before, now);
        server.stop();
    }

    /// SIGHUP loads the code anew; what is in flight is finished by the process that has it.
    fn reload(driver: Driver) {
        let folder = Folder::new();
        let server = staged(driver, &folder, "version = 1", &["--processes", "2"]).start();
        assert_eq!(server.get("/version"), "1");
        let before = serving(&server, 2, &[]);
        let gate = folder.gate("gate");
        let mut running = server.connect();
        running.send(format!("GET /gate?{} HTTP/1.1\r\nHost: test\r\n\r\n", gate.path()));
        gate.wait_for_arrival();
        folder.file("stage.py", b"version = 2");
        server.signal("HUP");
        says(&server, "reloaded: 2 new");
        for _ in 0..20 {
            eventually("new code answers", || (server.get("/version") == "2").then_some(()));
        }
        assert!(server.serving().iter().any(|pid| before.contains(pid)), "one of them still has a request");
        gate.open();
        let response = running.response();
        response.expect("through");
        assert!(response.head.closes());
        serving(&server, 2, &before);
        server.stop();
    }

    /// A reload into broken code changes nothing but the log; the next one works.
    fn reload_of_broken_code(driver: Driver) {
        let folder = Folder::new();
        let server = staged(driver, &folder, "version = 1", &["--processes", "2"]).start();
        let before = serving(&server, 2, &[]);
        folder.file("stage.py", b"raise ValueError('the settings are missing')");
        server.signal("HUP");
        let line = says(&server, "reload failed");
        assert!(line.contains("the settings are missing"), "{line}");
        assert!(server.stderr.text().contains("Traceback (most recent call last)"), "{}", server.stderr.text());
        assert_eq!(server.get("/version"), "1");
        assert_eq!(serving(&server, 2, &[]), before, "the old ones go on");
        folder.file("stage.py", b"version = 3");
        server.signal("HUP");
        serving(&server, 2, &before);
        assert_eq!(server.get("/version"), "3");
        server.stop();
    }

    /// After a good start: a process that dies and can't be loaded again is tried until it can.
    fn broken_code_after_a_good_start(driver: Driver) {
        let folder = Folder::new();
        let server = staged(driver, &folder, "version = 1", &["--processes", "2"]).start();
        folder.file("stage.py", b"import no_such_package_for_hoopsnake");
        send_and_forget(&server, "/signal?SIGKILL");
        let line = says(&server, "can't begin");
        assert!(line.contains("no_such_package_for_hoopsnake") && line.contains("trying again in"), "{line}");
        assert_eq!(server.get("/version"), "1", "the other one serves");
        folder.file("stage.py", b"version = 2");
        serving(&server, 2, &[]);
        eventually("the new one serves too", || (server.get("/version") == "2").then_some(()));
        server.stop();
    }

    /// An application that never becomes ready: at first that is the end; in a reload it changes nothing.
    fn never_ready(driver: Driver) {
        let folder = Folder::new();
        let flags = ["--start-timeout", "0.5", "--processes", "2"];
        let outcome = staged(driver, &folder, "import time; time.sleep(1000)", &flags).run();
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.lines().last().is_some_and(|line| line.contains("--start-timeout")), "{outcome:?}");
        let server = staged(driver, &folder, "version = 1", &["--start-timeout", "10"]).start();
        let before = server.worker();
        folder.file("stage.py", b"import time; time.sleep(1000)");
        server.signal("HUP");
        says(&server, "reloading");
        assert_eq!(server.get("/version"), "1");
        let line = says(&server, "reload failed");
        assert!(line.contains("--start-timeout"), "{line}");
        assert_eq!(serving(&server, 1, &[]), [before]);
        server.stop();
    }

    /// What ends the interpreter while it is imported ends the first start, with the reason.
    fn death_while_loading(driver: Driver) {
        let folder = Folder::new();
        for (scene, word) in [("import os; os._exit(3)", "exited with status 3"), ("import os; os.abort()", "SIGABRT")] {
            let outcome = staged(driver, &folder, scene, &["--processes", "2"]).run();
            assert_eq!(outcome.code, Some(1), "{outcome:?}");
            assert!(outcome.stderr.lines().last().is_some_and(|line| line.contains(word)), "{outcome:?}");
        }
    }

    /// The port isn't open before the application is loaded.
    fn the_port_opens_late(driver: Driver) {
        let folder = Folder::new();
        // The only one who can know the port before the start-up block: the application, from its inherited sockets.
        let scene = "
import os, socket
for fd in range(3, 64):
    try:
        listener = socket.socket(fileno=os.dup(fd))
    except OSError:
        continue
    if listener.family == socket.AF_INET and listener.type == socket.SOCK_STREAM:
        probe = socket.socket()
        try:
            probe.connect(listener.getsockname())
            version = 'open'
        except ConnectionRefusedError:
            version = 'refused'
";
        let server = staged(driver, &folder, scene, &[]).start();
        assert_eq!(server.get("/version"), "refused");
        server.stop();
    }

    /// SIGTTIN and SIGTTOU.
    fn more_and_fewer(driver: Driver) {
        let server = plain(driver, &[]);
        let first = server.worker();
        server.signal("TTIN");
        says(&server, "process 2 serves");
        server.signal("TTIN");
        says(&server, "process 3 serves");
        assert_eq!(serving(&server, 3, &[]).len(), 3);
        server.signal("TTOU");
        says(&server, "SIGTTOU: 2");
        server.signal("TTOU");
        says(&server, "SIGTTOU: 1");
        assert_eq!(serving(&server, 1, &[]), [first]);
        server.signal("TTOU");
        says(&server, "one process stays");
        assert_eq!(server.get("/pid"), first.to_string());
        server.stop();
    }

    /// SIGTERM to one process: it drains, and there is another.
    fn a_process_that_is_told_to_stop(driver: Driver) {
        let server = plain(driver, &[]);
        let folder = Folder::new();
        let before = server.worker();
        let gate = folder.gate("gate");
        let mut running = server.connect();
        running.send(format!("GET /gate?{} HTTP/1.1\r\nHost: test\r\n\r\n", gate.path()));
        gate.wait_for_arrival();
        signal(before, "TERM");
        says(&server, "process 1 serves");
        assert_ne!(server.get("/pid"), before.to_string());
        gate.open();
        running.response().expect("through");
        serving(&server, 1, &[before]);
        server.stop();
    }

    /// SIGUSR1 and SIGUSR2 reach every process, and are written to standard output.
    fn inspection(driver: Driver) {
        let server = plain(driver, &["--processes", "2"]);
        server.get("/");
        server.signal("USR1");
        for number in ["1", "2"] {
            assert!(server.stdout.wait_for(&format!("{number}: stacks of process"), PATIENCE).is_some());
        }
        assert!(server.stdout.wait_for("hoopsnake-worker-1", PATIENCE).is_some(), "{}", server.stdout.text());
        server.signal("USR2");
        for number in ["1", "2"] {
            assert!(server.stdout.wait_for(&format!("{number}: Request count: "), PATIENCE).is_some());
        }
        server.stop();
    }

    /// The supervisor is killed: its processes leave, and the port is free.
    fn death_of_the_supervisor(driver: Driver) {
        let mut server = plain(driver, &["--processes", "2"]);
        let folder = Folder::new();
        let pids = serving(&server, 2, &[]);
        let gate = folder.gate("gate");
        let mut running = server.connect();
        running.send(format!("GET /gate?{} HTTP/1.1\r\nHost: test\r\n\r\n", gate.path()));
        gate.wait_for_arrival();
        let address = server.address();
        server.signal("KILL");
        eventually("nobody listens there", || TcpStream::connect(address).is_err().then_some(()));
        // Even then what was accepted is answered.
        gate.open();
        running.response().expect("through");
        assert_eq!(server.wait(), None);
        for pid in pids {
            eventually("the processes leave", || (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
        }
        let socket = address.to_string();
        let again = Start::bare(&["--reactor", driver.name(), "--http-socket", &socket]).application("staged").start();
        assert_eq!(again.get("/"), "served");
        again.stop();
    }

    /// `--preload`: imported once, and its objects left alone by the garbage collector.
    fn preload(driver: Driver) {
        let folder = Folder::new();
        let imported = folder.log("imported");
        let scene = format!("version = 1\nwith open('{}', 'a') as log: log.write('imported\\n')", imported.path());
        let server = staged(driver, &folder, &scene, &["--processes", "3", "--preload"]).start();
        assert_eq!(imported.lines().len(), 1);
        assert!(server.get("/frozen").parse::<u32>().expect("a number") > 1000);
        let before = serving(&server, 3, &[]);
        server.signal("HUP");
        serving(&server, 3, &before);
        assert_eq!((server.get("/version").as_str(), imported.lines().len()), ("1", 1));
        server.stop();
        let outcome = staged(driver, &folder, "raise ValueError('not today')", &["--preload"]).run();
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.lines().last().is_some_and(|line| line.contains("not today")), "{outcome:?}");
    }

    /// No process can be forked: at first that is the end; later it is tried until one can.
    fn no_process_can_be_forked(driver: Driver) {
        let folder = Folder::new();
        let full = folder.path("full");
        // With --preload this runs in the supervisor, and what it forks with is in the application's hands.
        let scene = format!(
            "
import errno, os
fork = os.fork
def limited():
    if os.path.exists({full:?}):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()
os.fork = limited
version = 1"
        );
        folder.file("full", b"");
        let outcome = staged(driver, &folder, &scene, &["--preload"]).run();
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.lines().last().is_some_and(|line| line.contains("ulimit -u")), "{outcome:?}");
        std::fs::remove_file(&full).expect("it is there");
        let server = staged(driver, &folder, &scene, &["--preload", "--processes", "2"]).start();
        let before = serving(&server, 2, &[]);
        folder.file("full", b"");
        server.signal("HUP");
        assert!(says(&server, "reload failed").contains("ulimit -u"));
        assert_eq!(serving(&server, 2, &[]), before);
        send_and_forget(&server, "/signal?SIGKILL");
        assert!(says(&server, "can't begin").contains("ulimit -u"));
        assert_eq!(server.get("/"), "served");
        std::fs::remove_file(&full).expect("it is there");
        serving(&server, 2, &[]);
        server.stop();
    }

    /// `--max-worker-lifetime` and `--max-rss`: a successor, then the end of the old one.
    fn recycling(driver: Driver) {
        let server = plain(driver, &["--max-worker-lifetime", "1"]);
        let before = server.worker();
        says(&server, "(--max-worker-lifetime)");
        serving(&server, 1, &[before]);
        server.stop();
        let server = plain(driver, &["--max-rss", "1m"]);
        let before = server.worker();
        says(&server, "(--max-rss)");
        eventually("it is replaced", || (!server.serving().contains(&before)).then_some(()));
        assert_eq!(server.get("/"), "served");
        server.stop();
    }
}

/// A process whose interpreter hangs has no heartbeat: it writes its stacks, is killed and started again.
#[test]
fn a_process_that_hangs() {
    let server = plain(Driver::Epoll, &[]);
    let before = server.get("/pid");
    assert_eq!(server.get("/hold-later"), "soon");
    // Longer than any other wait: the limit is half a minute.
    let hangs = eventually_long("it is found", || server.stderr.wait_for("hangs: no heartbeat", PATIENCE));
    assert!(hangs.contains("process 1"), "{hangs}");
    // Its reactors accept until it is dead.
    eventually("it is killed", || (!server.serving().contains(&before.parse().expect("a number"))).then_some(()));
    assert_ne!(server.get("/pid"), before);
    assert!(server.stderr.wait_for("hold_the_interpreter", PATIENCE).is_some(), "{}", server.stderr.text());
    server.stop();
}

/// A request that keeps the interpreter for longer than that, but not longer than it may run, is finished.
#[test]
fn a_process_that_computes_for_long() {
    let server = plain(Driver::Epoll, &[]);
    let before = server.worker();
    let mut client = server.connect();
    client.patience(2 * PATIENCE);
    client.get("/hold?34").expect("None");
    assert_eq!(server.worker(), before);
    server.stop();
}

/// As process 1 of a container: children that others have left behind are reaped, and a stop works.
#[test]
fn process_1() {
    let unshare = ["unshare", "--fork", "--pid", "--kill-child", "--mount-proc"];
    let tried = std::process::Command::new(unshare[0]).args(&unshare[1..]).arg("true").output();
    if !tried.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this system lets nobody make a namespace of processes ({tried:?})");
        return;
    }
    let flags = ["--http-socket", "127.0.0.1:0", "--reactor", "epoll", "--processes", "2"];
    let mut server = Start::under(&unshare, &flags).application("staged").start();
    assert!(server.stderr.text().contains("supervisor's pid 1;"), "{}", server.stderr.text());
    let orphan = server.get("/orphan");
    assert_eq!(server.get(&format!("/exists?{orphan}")), "True", "it sleeps for a while");
    eventually("it is reaped", || (server.get(&format!("/exists?{orphan}")) == "False").then_some(()));
    send_and_forget(&server, "/exit?3");
    says(&server, "exited with status 3");
    assert_eq!(server.get("/"), "served");
    // The child of unshare, which waits for it.
    signal(server.worker(), "TERM");
    assert_eq!(server.wait(), Some(0));
}

fn eventually_long<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    look().or_else(&mut look).unwrap_or_else(|| panic!("waited in vain: {what}"))
}
