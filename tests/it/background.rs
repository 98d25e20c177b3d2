//! Promise: cron jobs and timers run one at a time on a thread of their own, and neither they nor the server get in each other's way.

use std::net::TcpStream;
use std::process::Command;
use std::time::Instant;

use crate::support::folder::Log;
use crate::support::server::Start;
use crate::support::{Driver, Folder, PATIENCE, Server, eventually, pause};

/// A server whose application has these jobs.
fn with_jobs(start: Start, folder: &Folder, jobs: &str) -> Start {
    start
        .application("jobs")
        .environment("JOBS", jobs)
        .environment("JOBS_FOLDER", &folder.path("").display().to_string())
}

fn serving(driver: Driver, folder: &Folder, flags: &[&str], jobs: &str) -> (Server, Log) {
    (with_jobs(driver.server().flags(flags), folder, jobs).start(), folder.log("log"))
}

/// Runs Python in a request.
fn run(server: &Server, code: &str) -> String {
    server.get(&format!("/?{}", code.replace(' ', "%20").replace('"', "%22").replace('\n', "%0A")))
}

on_every_driver! {
    /// A timer runs again and again, on one named thread, and is logged.
    fn timers_run(driver: Driver) {
        let folder = Folder::new();
        let (server, log) = serving(driver, &folder, &[], "
@hoopsnake.timer(0.02)
def tick():
    log(threading.current_thread().name)
");
        assert!(log.wait_for(5).iter().all(|line| line == "hoopsnake-background"));
        assert_eq!(run(&server, "pass"), "hoopsnake-background");
        assert!(server.stderr.wait_for("background: jobs.tick (timer 0.02 s) runs next at 2", PATIENCE).is_some());
        assert!(server.stderr.wait_for("background: jobs.tick (timer 0.02 s) ended after 0.", PATIENCE).is_some());
    }

    /// Where there is nothing to do there is no thread for it; a job that is added later starts one.
    fn jobs_are_added_at_any_time(driver: Driver) {
        let folder = Folder::new();
        let (server, log) = serving(driver, &folder, &[], "");
        assert_eq!(run(&server, "pass"), "");
        run(&server, "hoopsnake.add_cron(lambda: log(\"late\"), 0.01, 0, 0, 0, 0, 0)");
        log.wait_for_line("late");
        run(&server, "hoopsnake.timer(0.01)(lambda: log(\"later\"))");
        log.wait_for_line("later");
        assert_eq!(run(&server, "pass"), "hoopsnake-background");
    }

    /// Jobs never overlap, neither with others nor with themselves, and requests are served meanwhile.
    fn one_at_a_time(driver: Driver) {
        let folder = Folder::new();
        let (server, log) = serving(driver, &folder, &[], "
@hoopsnake.timer(0.01)
@alone
def held():
    at('gate')
    log('held')

@hoopsnake.timer(0.01)
@alone
def other():
    log('other')
");
        let gate = folder.gate("gate");
        gate.wait_for_arrival();
        let before = log.lines().len();
        for _ in 0..20 {
            run(&server, "pass");
        }
        assert_eq!(log.lines().len(), before, "nothing runs beside the job that is held");
        gate.open();
        let lines = log.wait_for(before + 10);
        assert!(!lines.iter().any(|line| line == "two at once"), "{lines:?}");
        assert!(lines.iter().any(|line| line == "other") && lines.iter().any(|line| line == "held"), "{lines:?}");
    }

    /// What a job raises is logged with its traceback; it runs again, and so do the others.
    fn exceptions_are_logged(driver: Driver) {
        let folder = Folder::new();
        let (server, log) = serving(driver, &folder, &[], "
@hoopsnake.timer(0.01)
def fails():
    log('fails')
    raise KeyError('what was looked for')

@hoopsnake.timer(0.01)
def leaves():
    log('leaves')
    raise SystemExit(3)
");
        log.wait_for(10);
        assert!(server.stderr.wait_for("KeyError: 'what was looked for'", PATIENCE).is_some());
        assert!(server.stderr.wait_for("background: jobs.leaves (timer 0.01 s) failed after", PATIENCE).is_some());
        let text = server.stderr.text();
        assert!(text.contains("background: jobs.fails (timer 0.01 s) raised\nTraceback (most recent call last):"), "{text}");
        run(&server, "pass");
    }

    /// Past `--background-timeout` the exception is raised in the job, once, and nowhere else.
    fn time_limit(driver: Driver) {
        let folder = Folder::new();
        let (server, log) = serving(driver, &folder, &["--background-timeout", "0.05"], "
@hoopsnake.timer(0.01)
def endless():
    try:
        while True:
            time.sleep(0.001)
    except hoopsnake.RequestTimeoutException as error:
        log(repr(error))
        raise

@hoopsnake.timer(0.01)
def short():
    log('short')
");
        log.wait_for_line("RequestTimeoutException()");
        let lines = log.wait_for(12);
        assert!(lines.iter().any(|line| line == "short"));
        let said = "background: jobs.endless (timer 0.01 s) has run for 0.05 s (--background-timeout)";
        assert!(server.stderr.wait_for(said, PATIENCE).is_some());
        let text = server.stderr.text();
        assert!(text.contains("hoopsnake.RequestTimeoutException\n"), "the traceback: {text}");
        assert!(text.contains("in endless"), "where it was: {text}");
        assert!(!text.contains("jobs.short (timer 0.01 s) raised"), "{text}");
    }

    /// What couldn't be raised in a job, since it ran no bytecode any more, is raised in no other.
    fn time_limit_and_the_next_job(driver: Driver) {
        let folder = Folder::new();
        let (server, log) = serving(driver, &folder, &["--background-timeout", "0.02"], "
# No function of Python: nothing can be raised in it.
hoopsnake.timer(0.01)(functools.partial(time.sleep, 0.05))

@hoopsnake.timer(0.01)
def next_one():
    try:
        log(str(sum(range(10))))
    except hoopsnake.RequestTimeoutException:
        log('hit')
");
        let lines = log.wait_for(10);
        assert!(lines.iter().all(|line| line == "45"), "{lines:?}");
        let text = server.stderr.text();
        assert!(text.contains("0.05) (timer 0.01 s) has run for 0.02 s"), "{text}");
        assert!(!text.contains("next_one (timer 0.01 s) raised"), "{text}");
    }

    /// A stop waits for the job that runs, begins no other, and ends in order.
    fn stop_waits_for_the_job(driver: Driver) {
        let folder = Folder::new();
        let (mut server, log) = serving(driver, &folder, &[], "
@hoopsnake.timer(0.01)
def held():
    at('gate')
    log('finished')
");
        let gate = folder.gate("gate");
        gate.wait_for_arrival();
        server.signal("TERM");
        assert!(server.stderr.wait_for("stopping", PATIENCE).is_some());
        // That was the supervisor. The process itself lets go of the port in the step of its main thread, which has the GIL all the
        // while, that tells the jobs to end: no job goes on between the two.
        let address = server.address();
        eventually("nobody listens there", || TcpStream::connect(address).is_err().then_some(()));
        assert!(!server.has_ended());
        gate.open();
        assert_eq!(server.wait(), Some(0));
        assert_eq!(log.lines(), ["finished", "atexit ran"]);
    }

    /// But not for longer than `--graceful-timeout`.
    fn stop_does_not_wait_for_ever(driver: Driver) {
        let folder = Folder::new();
        let (mut server, log) = serving(driver, &folder, &["--graceful-timeout", "0.2"], "
@hoopsnake.timer(0.01)
def held():
    at('never-opened')
");
        folder.gate("never-opened").wait_for_arrival();
        server.signal("TERM");
        assert_eq!(server.wait(), Some(0));
        assert_eq!(log.lines(), ["atexit ran"]);
        assert!(server.stderr.text().contains("a cron job or timer still ran after --graceful-timeout"));
    }

    /// A wrong call is the application's fault, and is told as such.
    fn wrong_calls_are_refused_at_the_start(driver: Driver) {
        let folder = Folder::new();
        let jobs = "hoopsnake.cron(0, 0, 31, 2, -1)(log)";
        let outcome = with_jobs(driver.server(), &folder, jobs).run();
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains("ValueError: day=31 never comes in mon=2"), "{outcome:?}");
    }
}

/// A job that says when it begins and when it ends, and in which process.
const SPANS: &str = "
@hoopsnake.timer(0.01)
def spans():
    log(f'begin {os.getpid()}')
    time.sleep(0.01)
    log(f'end {os.getpid()}')
";

/// The processes whose spans a log holds, in order; no span begins before the one before it has ended, unless its process was killed.
fn processes_of(lines: &[String], killed: &[String]) -> Vec<String> {
    let mut processes: Vec<String> = Vec::new();
    let mut open: Option<&str> = None;
    for line in lines {
        let (what, pid) = line.split_once(' ').expect("two words");
        match what {
            "begin" => {
                let clear = open.is_none_or(|other| other != pid && killed.iter().any(|killed| killed == other));
                assert!(clear, "{line} while {open:?} runs: {lines:?}");
                open = Some(pid);
            }
            _ => assert_eq!(open.take(), Some(pid), "{lines:?}"),
        }
        if processes.last().is_none_or(|last| last != pid) {
            processes.push(pid.to_owned());
        }
    }
    processes
}

fn kill(signal: &str, pid: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill -{signal} {pid}")]).status();
    assert!(status.is_ok_and(|status| status.success()), "can't send SIG{signal} to {pid}");
}

/// Waits for a span of a process that isn't one of these; its pid.
fn another(log: &Log, known: &[String]) -> String {
    eventually("another process runs the jobs", || {
        let lines = log.lines();
        let pids = lines.iter().filter_map(|line| line.strip_prefix("end "));
        pids.rev().find(|pid| !known.iter().any(|known| known == pid)).map(str::to_owned)
    })
}

/// Of several processes one runs the jobs; when it is killed, its successor.
#[test]
fn one_process_has_the_jobs_and_its_successor_after_a_crash() {
    let folder = Folder::new();
    let (server, log) = serving(Driver::Epoll, &folder, &["--processes", "3"], SPANS);
    let first = another(&log, &[]);
    log.wait_for(40);
    assert_eq!(processes_of(&log.lines(), &[]), std::slice::from_ref(&first));
    kill("KILL", &first);
    let second = another(&log, std::slice::from_ref(&first));
    kill("KILL", &second);
    let killed = [first, second];
    let third = another(&log, &killed);
    let [first, second] = &killed;
    server.get("/pid");
    server.stop();
    let lines: Vec<String> = log.lines().into_iter().filter(|line| !line.starts_with("atexit")).collect();
    assert_eq!(processes_of(&lines, &killed), [first.clone(), second.clone(), third]);
}

/// Reloads under way pass the jobs on from generation to generation.
#[test]
fn a_reload_passes_the_jobs_on() {
    let folder = Folder::new();
    let (server, log) = serving(Driver::Epoll, &folder, &["--processes", "2"], SPANS);
    let mut known = vec![another(&log, &[])];
    for _ in 0..3 {
        server.signal("HUP");
        let next = another(&log, &known);
        known.push(next);
    }
    server.stop();
    let lines: Vec<String> = log.lines().into_iter().filter(|line| !line.starts_with("atexit")).collect();
    assert_eq!(processes_of(&lines, &[]), known);
}

/// However long the old generation's job takes, the new one waits for it.
#[test]
fn a_reload_waits_for_the_job_that_runs() {
    let folder = Folder::new();
    let jobs = "
@hoopsnake.timer(0.01)
def held():
    log(f'begin {os.getpid()}')
    at('gate')
    log(f'end {os.getpid()}')
";
    let (server, log) = serving(Driver::Epoll, &folder, &[], jobs);
    let gate = folder.gate("gate");
    gate.wait_for_arrival();
    let old = server.get("/pid");
    server.signal("HUP");
    eventually("a new generation", || (server.get("/pid") != old).then_some(()));
    for _ in 0..20 {
        server.get("/pid");
    }
    assert_eq!(log.lines(), [format!("begin {old}")]);
    gate.open();
    let new = another(&log, std::slice::from_ref(&old));
    server.stop();
    let lines: Vec<String> = log.lines().into_iter().filter(|line| !line.starts_with("atexit")).collect();
    assert_eq!(processes_of(&lines, &[]), [old, new]);
}

/// With `--preload` jobs are registered before the processes are forked, and still run in one of them only.
#[test]
fn jobs_of_a_preloaded_application() {
    let folder = Folder::new();
    let (server, log) = serving(Driver::Epoll, &folder, &["--processes", "2", "--preload"], SPANS);
    log.wait_for(40);
    let pids: Vec<String> = (0..50).map(|_| server.get("/pid")).collect();
    server.stop();
    let lines: Vec<String> = log.lines().into_iter().filter(|line| !line.starts_with("atexit")).collect();
    let found = processes_of(&lines, &[]);
    assert_eq!(found.len(), 1);
    assert!(pids.contains(&found[0]), "it is one of those that serve");
}

/// Cron jobs are for local time: that of TZ, which the application may have set while it was imported.
#[test]
fn cron_jobs_keep_local_time() {
    let folder = Folder::new();
    let jobs = "
@hoopsnake.cron(30, 5, -1, -1, -1)
def early():
    pass
";
    let tokyo = with_jobs(Driver::Epoll.server(), &folder, jobs).environment("TZ", "JST-9").start();
    assert!(tokyo.stderr.wait_for("05:30:00 +0900", PATIENCE).is_some());
    let set = format!("os.environ['TZ'] = '<-03>3'; time.tzset()\n{jobs}");
    let brasilia = with_jobs(Driver::Epoll.server(), &folder, &set).environment("TZ", "JST-9").start();
    assert!(brasilia.stderr.wait_for("05:30:00 -0300", PATIENCE).is_some());
    let nowhere = with_jobs(Driver::Epoll.server(), &folder, jobs).environment("TZ", "No/Where").start();
    assert!(nowhere.stderr.wait_for("cron jobs run in UTC", PATIENCE).is_some());
    assert!(nowhere.stderr.wait_for("05:30:00 +0000", PATIENCE).is_some());
}

/// A cron job runs when its minute begins, as it was announced. Waits for that: a minute at most.
#[test]
fn cron_jobs_run_at_their_minute() {
    let folder = Folder::new();
    let jobs = "
@hoopsnake.cron(-1, -1, -1, -1, -1)
def every_minute():
    log(time.strftime('%Y-%m-%d %H:%M', time.gmtime()))
";
    let server = with_jobs(Driver::Epoll.server(), &folder, jobs).environment("TZ", "UTC0").start();
    let said =
        server.stderr.wait_for("every_minute (cron -1 -1 -1 -1 -1) runs next at ", PATIENCE).expect("it is announced");
    let announced = said.split_once(" runs next at ").map_or("", |(_, time)| time);
    let log = folder.log("log");
    // Longer than patience, since the minute must begin.
    let until = Instant::now() + 4 * PATIENCE;
    while log.lines().is_empty() && Instant::now() < until {
        pause(50);
    }
    assert_eq!(format!("{}:00 +0000", log.wait_for(1)[0]), announced);
}
