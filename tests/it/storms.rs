//! Promise: whatever the supervisor does with its processes, no client notices: nothing refused, nothing reset, every answer a 200.

use std::process::{Child, Command, Stdio};

use crate::support::server::signal;
use crate::support::storm::{Load, Storm};
use crate::support::{Driver, PATIENCE, Server, eventually};

/// 2,000 new connections a second, and 400 requests on kept ones; on a machine that is busy otherwise it is as many as there can be.
const LOAD: Load = Load { new: 10, kept: 2, per_second: 200 };

fn server(driver: Driver, flags: &[&str]) -> Server {
    let flags = [&["--processes", "2", "--workers", "2"], flags].concat();
    driver.server().application("staged").flags(&flags).start()
}

/// Waits until the error log has so many lines with this.
fn says(server: &Server, needle: &str, times: usize) {
    eventually(&format!("{times} × {needle}"), || {
        let lines = server.stderr.all();
        (lines.iter().filter(|line| line.contains(needle)).count() >= times).then_some(())
    });
}

/// A client that asks on kept connections as fast as it can, in what time others leave it. Not every machine has it.
struct Wrk(Option<Child>);

impl Wrk {
    fn start(server: &Server) -> Self {
        let url = format!("http://{}/", server.address());
        let arguments =
            ["-n", "19", "wrk", "--threads", "1", "--connections", "8", "--duration", "10m", "--timeout", "30s"];
        let there = Command::new("wrk").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
        let start =
            || Command::new("nice").args(arguments).arg(url).stdout(Stdio::piped()).spawn().expect("it is there");
        Self(there.then(start))
    }

    /// It has seen nothing but 200s.
    fn end_unharmed(mut self) {
        let Some(child) = self.0.take() else { return };
        signal(child.id(), "INT");
        let output = child.wait_with_output().expect("it ends");
        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(report.contains("Requests/sec"), "{report}");
        assert!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}");
    }
}

impl Drop for Wrk {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

on_every_driver! {
    /// SIGHUP, again and again.
    fn reloads(driver: Driver) {
        let server = server(driver, &[]);
        let wrk = Wrk::start(&server);
        let storm = Storm::start(server.address(), LOAD);
        storm.let_pass(200);
        for reload in 1..=20 {
            server.signal("HUP");
            says(&server, "reloaded: 2 new", reload);
            storm.let_pass(50);
        }
        storm.end_unharmed();
        wrk.end_unharmed();
        server.stop();
    }

    /// SIGTTIN and SIGTTOU, again and again.
    fn more_and_fewer(driver: Driver) {
        let server = server(driver, &[]);
        let storm = Storm::start(server.address(), LOAD);
        storm.let_pass(200);
        for round in 1..=20 {
            server.signal("TTIN");
            says(&server, "process 3 serves", round);
            storm.let_pass(50);
            server.signal("TTOU");
            says(&server, "SIGTTOU: 2", round);
            storm.let_pass(50);
        }
        storm.end_unharmed();
        server.stop();
    }

    /// `--max-requests`: one process after the other is replaced.
    fn recycling(driver: Driver) {
        let server = server(driver, &["--max-requests", "50", "--max-requests-jitter", "20"]);
        let storm = Storm::start(server.address(), LOAD);
        says(&server, "(--max-requests)", 8);
        storm.end_unharmed();
        server.stop();
    }

    /// Processes are killed: only what they had in hand is lost, and nothing is ever refused.
    fn kills(driver: Driver) {
        const KILLS: usize = 10;
        let server = server(driver, &[]);
        let storm = Storm::start(server.address(), LOAD);
        storm.let_pass(200);
        for kill in 1..=KILLS {
            let pids = eventually("two processes serve", || Some(server.serving()).filter(|pids| pids.len() == 2));
            signal(pids[kill % 2], "KILL");
            says(&server, "was killed by SIGKILL", kill);
            storm.let_pass(100);
        }
        let tally = storm.end();
        assert!(tally.faults.len() <= KILLS * LOAD.clients(), "each client has one request at a time: {:#?}", tally.faults);
        let refused: Vec<&String> = tally.faults.iter().filter(|fault| fault.contains("connecting")).collect();
        assert!(refused.is_empty(), "{refused:#?}");
        server.stop();
    }
}

/// The end of it all: whoever was let in before is answered, whoever comes later is refused, nobody is cut off.
#[test]
fn a_stop_under_load() {
    let mut server = server(Driver::Epoll, &[]);
    let storm = Storm::start(server.address(), LOAD);
    storm.let_pass(200);
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    for fault in storm.end().faults {
        assert!(fault.contains("connecting: Connection refused"), "{fault}");
    }
    assert!(server.stderr.wait_for("stopped", PATIENCE).is_some());
}
