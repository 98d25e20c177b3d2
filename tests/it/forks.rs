//! Promise: children that the application forks, and doesn't end itself, end where they would come back to the server. They answer
//! nobody, take no requests, and signals mean to them what they mean to any program.

use crate::support::server::Start;
use crate::support::{Driver, Folder, PATIENCE};

fn forks(driver: Driver) -> Start {
    Start::bare(&["--reactor", driver.name(), "--http-socket", "127.0.0.1:0"]).application("forks")
}

on_every_driver! {
    /// As `sys.exit` says, 1 after an exception, otherwise 0; its parent serves on.
    fn a_child_that_comes_back_ends(driver: Driver) {
        for flags in [&["--workers", "1", "--no-supervisor"][..], &["--processes", "2"]] {
            let server = forks(driver).flags(flags).start();
            let mut client = server.connect();
            client.get("/returns").expect("0");
            client.get("/raises").expect("1");
            client.get("/exits").expect("7");
            client.get("/exits-with-words").expect("1");
            client.get("/generator").expect("first 0");
            let folder = Folder::new();
            let log = folder.log("log");
            client.get(&format!("/close?{}", log.path())).expect("body");
            assert_eq!(log.wait_for(1), ["0"]);
            client.get("/").expect("served");
            let text = server.stderr.wait_for("words of the child", PATIENCE);
            assert!(text.is_some() && server.stderr.text().contains("ValueError: in the child"), "{}", server.stderr.text());
            server.stop();
        }
    }

    /// `Process.terminate()` sends SIGTERM, which must not be taken for the server's.
    fn a_child_that_is_terminated_ends(driver: Driver) {
        for flags in [&["--no-supervisor"][..], &[]] {
            let server = forks(driver).flags(flags).start();
            let mut client = server.connect();
            client.get("/terminated").expect("-15");
            client.get("/pool").expect("[0, 1, 4, 9, 16]");
            client.get("/").expect("served");
            server.stop();
        }
    }
}

/// A child of a job runs no jobs.
#[test]
fn a_child_of_a_job_ends() {
    let folder = Folder::new();
    let log = folder.log("log");
    let server = forks(Driver::Epoll).environment("FORKS_LOG", &log.path().to_string()).start();
    assert_eq!(log.wait_for(1), ["0"]);
    server.stop();
}
