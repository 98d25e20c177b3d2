//! Promise: a client that the application blocks with `X-WSGo-Block` is held up and told 429, nobody else is, and the field is
//! nobody's to see.

use crate::support::{Driver, pause};

fn ask(client: &str, target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: {client}\r\n\r\n")
}

on_every_driver! {
    /// Blocked, held, refused, and after its time served again; another client isn't concerned.
    fn a_blocked_client_waits_and_is_refused(driver: Driver) {
        let server = driver.server().start();
        let mut blocked = server.connect();
        blocked.send(ask("203.0.113.9", "/page?h=X-WSGo-Block:+3"));
        let told = blocked.response();
        told.expect("run 1 for nobody\n");
        assert!(!told.head.has("x-wsgo-block"), "{}", told.head.masked());
        assert!(server.stderr.wait_for("blocking 203.0.113.9 for 3 seconds", crate::support::PATIENCE).is_some());
        blocked.send(ask("203.0.113.9", "/"));
        let mut other = server.connect();
        other.send(ask("203.0.113.10", "/"));
        other.response().expect("Hello, world!\n");
        let refused = blocked.response();
        assert_eq!((refused.status(), refused.text()), (429, "\n".to_owned()));
        // Until its time is over it is refused again and again; then it isn't.
        let served = crate::support::eventually("the client is served again", || {
            pause(50);
            blocked.send(ask("203.0.113.9", "/"));
            let response = blocked.response();
            (response.status() == 200).then_some(response)
        });
        served.expect("Hello, world!\n");
        assert!(server.stderr.wait_for("unblocked 203.0.113.9 after", crate::support::PATIENCE).is_some());
        server.stop();
    }

    /// Who comes from a private network, or doesn't come through a proxy that is believed, can't be blocked in another's name.
    fn private_clients_are_not_blocked(driver: Driver) {
        let server = driver.server().flags(&["--trusted-proxies", "none"]).start();
        let mut client = server.connect();
        client.send(ask("203.0.113.9", "/page?h=X-WSGo-Block:+60"));
        client.response().expect("run 1 for nobody\n");
        client.send(ask("203.0.113.9", "/"));
        client.response().expect("Hello, world!\n");
    }

    /// A server that is told to stop doesn't wait for those it holds up.
    fn a_stop_refuses_those_who_are_held(driver: Driver) {
        let server = driver.server().start();
        let mut client = server.connect();
        client.send(ask("203.0.113.9", "/page?h=X-WSGo-Block:+3600"));
        client.response();
        client.send(ask("203.0.113.9", "/"));
        // It has been read once another request, sent later, is answered.
        pause(50);
        server.get("/");
        server.signal("TERM");
        assert_eq!(client.response().status(), 429);
        let mut server = server;
        assert_eq!(server.wait(), Some(0));
    }
}
