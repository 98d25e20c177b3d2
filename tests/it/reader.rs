//! Promise: the reader that every other test relies on lets no faulty response pass.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::support::Client;
use super::support::client::Ending;

const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

/// What the reader makes of `response` to a request with `method`, with the connection closed behind it.
fn read(method: &str, response: &str) -> Result<(u16, String, Ending), String> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut client = Client::connect(listener.local_addr().expect("it is bound"));
    let (mut socket, _) = listener.accept().expect("the client has connected");
    socket.write_all(response.as_bytes()).expect("it is small");
    drop(socket);
    match client.try_response(method) {
        Ok(response) => Ok((response.status(), response.text(), response.ending)),
        Err(broken) => Err(broken.fault),
    }
}

fn check_good(method: &str, fields: &str, body: &str, expected: &str, ending: Ending) {
    let response = format!("HTTP/1.1 200 OK\r\n{DATE}{fields}\r\n{body}");
    assert_eq!(read(method, &response), Ok((200, expected.to_owned(), ending)), "{response}");
}

fn check_bad(response: &str) {
    assert!(read("GET", response).is_err(), "{response}");
}

#[test]
fn good_responses() {
    check_good("GET", "Content-Length: 3\r\n", "abc", "abc", Ending::Length);
    check_good("GET", "content-length: 0\r\n", "", "", Ending::Length);
    check_good("GET", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n", "abcd", Ending::LastChunk);
    check_good("GET", "Connection: close\r\n", "abc", "abc", Ending::Close);
    check_good("HEAD", "Content-Length: 3\r\n", "", "", Ending::NoBody);
}

#[test]
fn bad_heads() {
    for line in
        ["HTTP/1.0 200 OK", "HTTP/1.1 200", "HTTP/1.1 2000 OK", "HTTP/1.1 20 OK", "http/1.1 200 OK", " HTTP/1.1 200 OK"]
    {
        check_bad(&format!("{line}\r\n{DATE}Content-Length: 0\r\n\r\n"));
    }
    for fields in [
        "Content-Length: 0\r\n",
        "Date: now\r\nContent-Length: 0\r\n",
        &format!("{DATE}{DATE}Content-Length: 0\r\n"),
        &format!("{DATE}Content-Length: 0\r\nContent-Length: 0\r\n"),
        &format!("{DATE}Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
        &format!("{DATE}Content-Length: +0\r\n"),
        &format!("{DATE}Transfer-Encoding: gzip\r\n"),
        &format!("{DATE}Content-Length: 0\r\nX : y\r\n"),
        &format!("{DATE}Content-Length: 0\r\nX: y \r\n"),
        &format!("{DATE}Content-Length: 0\r\nX: \ny\r\n"),
        &format!("{DATE}Content-Length: 0\r\nno colon\r\n"),
        DATE,
    ] {
        check_bad(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"));
    }
    check_bad(&format!("HTTP/1.1 200 OK\r\n{DATE}Content-Length: 0\r\n"));
}

#[test]
fn bad_bodies() {
    check_bad(&format!("HTTP/1.1 200 OK\r\n{DATE}Content-Length: 4\r\n\r\nabc"));
    for body in [
        "",
        "3\r\nabc\r\n",
        "3\r\nabc\r\n0\r\n",
        "3\r\nab",
        "3\r\nabcd\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "3;x\r\nabc\r\n0\r\n\r\n",
    ] {
        check_bad(&format!("HTTP/1.1 200 OK\r\n{DATE}Transfer-Encoding: chunked\r\n\r\n{body}"));
    }
}

#[test]
#[should_panic(expected = "nothing more should come")]
fn bytes_behind_the_response() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut client = Client::connect(listener.local_addr().expect("it is bound"));
    let (mut socket, _) = listener.accept().expect("the client has connected");
    write!(socket, "HTTP/1.1 200 OK\r\n{DATE}Content-Length: 0\r\n\r\nmore").expect("it is small");
    client.send("GET / HTTP/1.1\r\n\r\n");
    let mut request = [0; 18];
    socket.read_exact(&mut request).expect("the client has sent it");
    drop(socket);
    client.response().expect("");
    client.expect_closed();
}
