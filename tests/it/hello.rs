//! Promise: a plain request gets a plain answer, to the byte, and the connection lives or ends as both sides said.

use crate::support::client::Ending;
use crate::support::{Client, Server, Shared};

const REQUEST_11: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const HEAD_11: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: DATE\r\nServer: hoopsnake\r\nContent-Length: 14\r\n";

/// Sends `request`, which must be answered by `fields` behind [`HEAD_11`] and `body`, to the byte. What follows is up to the caller.
fn ask(server: &Server, request: &str, fields: &str, body: &str) -> Client {
    let mut client = server.connect();
    answer(&mut client, request, fields, body);
    client
}

fn answer(client: &mut Client, request: &str, fields: &str, body: &str) {
    client.send(request);
    let head = client.head();
    assert_eq!(head.masked(), format!("{HEAD_11}{fields}\r\n"), "{request}");
    client.expect_bytes(body.as_bytes());
}

/// The connection is good for another request.
fn expect_kept(mut client: Client) {
    answer(&mut client, REQUEST_11, "", "Hello, world!\n");
    client.expect_quiet();
}

on_every_driver! {
    /// A connection of HTTP/1.1 is kept without a word about it.
    fn http_1_1_to_the_byte(server: Shared) {
        let mut client = ask(&server, REQUEST_11, "", "Hello, world!\n");
        for _ in 0..10 {
            answer(&mut client, REQUEST_11, "", "Hello, world!\n");
        }
        expect_kept(client);
    }

    /// A connection of HTTP/1.0 is closed, which is said although its default says it too.
    fn http_1_0_to_the_byte(server: Shared) {
        for request in ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\nHost: test\r\n\r\n"] {
            ask(&server, request, "Connection: close\r\n", "Hello, world!\n").expect_closed();
        }
    }

    /// RFC 9112 §9.3: HTTP/1.0 keeps a connection when both sides say so.
    fn http_1_0_keep_alive(server: Shared) {
        let request = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
        let mut client = ask(&server, request, "Connection: keep-alive\r\n", "Hello, world!\n");
        answer(&mut client, &request.replace("keep-alive", "Keep-Alive"), "Connection: keep-alive\r\n", "Hello, world!\n");
        expect_kept(client);
        let both = "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n";
        ask(&server, both, "Connection: close\r\n", "Hello, world!\n").expect_closed();
    }

    /// RFC 9110 §9.3.2: the head a GET would get, and nothing else.
    fn head_to_the_byte(server: Shared) {
        let request = "HEAD / HTTP/1.1\r\nHost: test\r\n\r\n";
        let mut client = ask(&server, request, "", "");
        answer(&mut client, request, "", "");
        expect_kept(client);
        ask(&server, "HEAD / HTTP/1.0\r\n\r\n", "Connection: close\r\n", "").expect_closed();
    }

    /// RFC 9110 §7.6.1: `close` counts wherever it stands among the options and however it is written.
    fn connection_close_in_every_form(server: Shared) {
        let forms = [
            "Connection: close",
            "connection:close",
            "CONNECTION: CLOSE",
            "Connection: Close",
            "Connection: \t close \t ",
            "Connection: x-option, close",
            "Connection: close, x-option",
            "Connection: x-option,,close,",
            "Connection: keep-alive, close",
            "Connection: x-option\r\nConnection: close",
            "Connection: keep-alive\r\nX-Between: 1\r\nConnection: close",
        ];
        for form in forms {
            let request = format!("GET / HTTP/1.1\r\nHost: test\r\n{form}\r\n\r\n");
            ask(&server, &request, "Connection: close\r\n", "Hello, world!\n").expect_closed();
        }
    }

    /// What only looks like `close` doesn't close.
    fn other_connection_options_keep(server: Shared) {
        for form in ["Connection: keep-alive", "Connection: closed", "Connection: x-close", "Connection:", "X-Connection: close"] {
            let request = format!("GET / HTTP/1.1\r\nHost: test\r\n{form}\r\n\r\n");
            expect_kept(ask(&server, &request, "", "Hello, world!\n"));
        }
    }

    /// The order in which the application gave its fields, their names and values, status and reason are kept.
    fn what_the_application_said_is_kept(server: Shared) {
        let response = server.connect().get("/teapot");
        assert_eq!((response.status(), response.head.reason.as_str()), (299, "I'm a teapot, really"));
        let expected = "HTTP/1.1 299 I'm a teapot, really\r\nContent-Type: text/plain\r\n\
            X-Twice: 1\r\nx-twice: 2\r\nDate: DATE\r\nServer: hoopsnake\r\nContent-Length: 16\r\n\r\n";
        assert_eq!(response.head.masked(), expected);
        assert_eq!(response.text(), "short and stout\n");
    }

    /// An application may ask for the end of the connection.
    fn the_application_asks_to_close(server: Shared) {
        let mut client = server.connect();
        let response = client.get("/close-please");
        response.expect("closing\n");
        assert!(response.head.closes(), "{}", response.head.masked());
        client.expect_closed();
    }

    /// Whether a length is known or not, 1.1 keeps its connection and 1.0 can tell where the body ends.
    fn without_length(server: Shared) {
        let mut client = server.connect();
        let response = client.get("/hello-without-length");
        response.expect("Hello, world!\n");
        assert!(!response.head.has("connection"), "{}", response.head.masked());
        expect_kept(client);
        let mut client = server.connect();
        client.send("GET /hello-without-length HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let response = client.response();
        response.expect("Hello, world!\n");
        if response.ending == Ending::Close {
            assert!(response.head.closes(), "{}", response.head.masked());
        } else {
            // RFC 9112 §6.1: chunked is not for HTTP/1.0.
            assert_eq!(response.ending, Ending::Length);
        }
    }

    /// One empty line before a request line is left by some clients behind a body (RFC 9112 §2.2).
    fn an_empty_line_before_the_request(server: Shared) {
        let mut client = ask(&server, &format!("\r\n{REQUEST_11}"), "", "Hello, world!\n");
        answer(&mut client, &format!("\r\n{REQUEST_11}"), "", "Hello, world!\n");
        expect_kept(client);
    }
}
